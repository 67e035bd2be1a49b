"""Layouts in which public sets come: read as their names say, or refused with what to do."""

import pathlib

import numpy as np
from PIL import Image
import pytest

from data_pipelines.brains import inputs, own_scans, scan_folders, sequences
from data_pipelines.errors import UserError
from data_pipelines.intake import folder_words, sides
from tests.unit.intake.test_sequence_names import RULE, folder_of, found
from tests.unit.intake.test_sides import image, opened, twelve_normals


@pytest.fixture
def normals(tmp_path):
  return twelve_normals(tmp_path / "set")


def test_labels_in_folders_of_the_decathlon_are_no_scans(tmp_path):
  """labelsTr/ was scored as FLAIR and trained on as normal, and imagesTr/ was one patient."""
  folder_of(tmp_path, "imagesTr/BRATS_001", "imagesTr/BRATS_002", "labelsTr/BRATS_001", "Masks/Consensus")
  scans, left_out = found(tmp_path, ("flair",))
  assert list(scans) == ["BRATS_001", "BRATS_002"]
  assert left_out == {"BRATS_001": "lies in a folder of masks", "Consensus": sequences.LABEL}
  assert found(tmp_path / "labelsTr", ("flair",))[0]  # nothing else is there: it is what was asked for
  assert [p.parent.name for p in sides.look(tmp_path).masks] == ["Masks", "labelsTr"]


@pytest.mark.parametrize("name, used", [
    ("file_brain_AXFLAIR_201", True), ("P1_3DFLAIR", True), ("study_PD_001", True), ("x_sub-01_brain", True),
    ("file_brain_AXT1POST_201", False), ("P1_3DT1", False), ("P1_T1WKS", False), ("P1_pd_pp", False),
    ("P1_dwi_b0", False), ("P1_flairstar", False)])
def test_sequences_that_are_written_together_with_other_words(tmp_path, name, used):
  """A T1 of fastMRI, MSLUB or the WMH challenge was scored by a model of FLAIR."""
  assert bool(found(folder_of(tmp_path, name), ("flair",))[0]) == used


def test_names_of_planes_are_read_in_training(tmp_path):
  folder_of(tmp_path, "P1/3DFLAIR", "P1/AXT1PRE", "P1/AXT1POST")
  (scan,) = scan_folders.look(tmp_path, ("flair", "t1", "t1ce"), RULE).complete
  assert [pathlib.Path(p).name.split(".")[0] for p in scan.volumes] == ["3DFLAIR", "AXT1PRE", "AXT1POST"]


def test_where_scan_folders_may_lie_is_said(tmp_path):
  folder_of(tmp_path, "outer/P1/P1_flair", "outer/P2/P2_flair")
  with pytest.raises(UserError, match="are the scan folders those in .*outer. Then give that"):
    scan_folders.look(tmp_path, ("flair",), RULE)
  with pytest.raises(UserError, match="put the files of each scan into a folder of its own"):
    scan_folders.look(folder_of(tmp_path / "flat", "P1_flair", "P2_flair"), ("flair",), RULE)


def test_labels_of_no_scan_where_all_count_as_normal(tmp_path):
  """Those of ISLES below derivatives: every stroke was trained on as healthy, with a warning."""
  folder_of(tmp_path, "raw/P1_dwi", "raw/P2_dwi", "derivatives/P1_msk")
  members = sides.look(tmp_path).members
  with pytest.raises(UserError, match="P1_msk.nii.gz is named as a label and is of no scan"):
    own_scans.group(members, ())
  with pytest.raises(UserError, match="3DT1.nii.gz and .*T1.nii.gz are one sequence"):
    own_scans.group(sides.look(folder_of(tmp_path / "b", "P1/3DT1", "P1/T1")).members, ())


def test_numbered_folders_are_not_normal_and_abnormal(tmp_path):
  """Patient 0 was the normal side, patient 1 the abnormal one, the others were left out."""
  for name in ("0/a", "0/b", "1/a", "2/a", "3/a"):
    image(tmp_path / "set" / f"{name}.png", len(name))
  with pytest.raises(UserError, match="set/0 and .*set/[23]: are numbers patients or classes"):
    opened(tmp_path / "set")
  (tmp_path / "set").rename(tmp_path / "normal")
  found_ = opened(tmp_path, prepared_dir=str(tmp_path.parent / "p"))
  assert {r["patient"] for r in found_.listing} == {"0", "1", "2", "3"}
  files, words = [tmp_path / f"{k}/a.png" for k in range(3)], ({"0"}, {"1", "2"})
  assert list(folder_words.sides(files, tmp_path, words).values()) == [0, 1, 1]
  series = [tmp_path / f"pat{k}/{n}/a.dcm" for k in range(3) for n in (k, 3)]
  assert set(folder_words.sides(series, tmp_path, ((), ())).values()) == {None}  # of a scanner's numbers


@pytest.mark.parametrize("text, told", [
    ("AXT1POST", "t1ce"), ("3DFLAIR_SAG", "flair"), ("sT1W_3D_TFE", "t1"), ("AXT1PRE", "t1"),
    ("FLAIR_SENSE", "flair"), ("localizer", ""), ("t2star", "")])
def test_descriptions_of_series_that_are_written_together(text, told):
  """A T1 with contrast, alone in its study, was scored by a model of FLAIR."""
  assert sequences.described([text], sequences.KNOWN)[0] == told


def test_a_folder_that_was_declared_is_no_patient(normals):
  """All images of MVTec's broken_large/ were of one patient, and so were all normal ones of notumor/."""
  for name in ("a", "b"):
    image(normals / "test" / "broken_large" / f"{name}.png", len(name))
  data = opened(normals, anomaly_words=("broken_large",))
  assert {r["patient"] for r in data.listing if r["label"] == "abnormal"} == {
      "test/broken_large/a", "test/broken_large/b"}
  with pytest.raises(UserError, match="no normal scan.*no folder of test/broken_large/a.png says a side"):
    sides.look(normals, (), ("normal",))


def test_masks_beside_a_folder_of_images(normals):
  """VisA, BMAD and COVID-19 Radiography: x/images/1.png and x/masks/1.png."""
  image(normals / "abnormal" / "Images" / "1.png")
  image(normals / "abnormal" / "Masks" / "1.png", 0, mark=(slice(2, 5), slice(2, 5)))
  assert opened(normals).has_lesions("test")


def test_marks_beside_an_image_that_counts_as_normal(normals):
  """The tumours of kaggle_3m (x_mask.tif beside x.tif) were trained on as normal."""
  image(normals / "normal" / "p00_mask.png", 0)
  opened(normals)
  image(normals / "normal" / "p00_mask.png", 0, mark=(slice(2, 5), slice(2, 5)))
  with pytest.raises(UserError, match="p00_mask.png marks something, and its image counts as normal"):
    opened(normals)


@pytest.mark.parametrize("name", ["png_masks", "ManualMask", "Task1_GroundTruth", "images_segm"])
def test_folders_named_as_masks_are_not_taken_for_normal(tmp_path, name):
  for place in ("photos/a.png", f"{name}/a.png"):
    image(tmp_path / place)
  with pytest.raises(UserError, match=f"{name} is named as a folder of masks"):
    sides.look(tmp_path)


@pytest.mark.parametrize("place", ["1st_manual/p{}_manual1.png", "lbl/p{}.png"])
def test_folders_of_masks_by_their_pixels_are_not_taken_for_normal(normals, place):
  """DRIVE's 1st_manual was trained on as normal images; a folder of pictures of one grey is none of masks."""
  for i in range(4):
    image(normals / "normal" / place.format(i), 0)
  opened(normals)
  for i in range(4):
    image(normals / "normal" / place.format(i), 0, mark=(slice(2, 5), slice(2, 5)))
  with pytest.raises(UserError, match="has two grey values alone, as masks have, and so have others"):
    opened(normals)
  for i in range(12):
    image(normals / "normal" / f"p{i:02d}.png", 60 + i, mark=(slice(2, 9), slice(2, 5)))
  opened(normals)  # all are so: drawings


@pytest.mark.parametrize("ends, said", [("010", True), ("000", False), ("012", False)])
def test_names_that_end_as_labels_do_are_said(tmp_path, caplog, ends, said):
  """The Shenzhen radiographs (CHNCXR_0001_1 is tuberculosis) were all normal, without a word."""
  for i, end in enumerate(ends):
    image(tmp_path / f"CHNCXR_000{i}_{end}.png")
  sides.look(tmp_path)
  assert ("end in 0 or 1, and all are taken for normal" in caplog.text) == said


@pytest.mark.parametrize("names, said", [
    (("JPCLN001", "JPCLN002", "JPCNN001"), True), (("n_1", "t_1"), True), (("p1", "p2", "p3"), False),
    (("a1", "b2", "c3"), False), (("JPCLN001", "JPCNN001", "mine"), False),
    (tuple(f"{w}1" for w in ("an", "bo", "cy", "di", "ed", "fy", "gu")), False)])
def test_two_words_before_a_number_are_said(tmp_path, caplog, names, said):
  """Radiographs of JSRT with a nodule (JPCLN) were normal, without a word."""
  for name in names:
    image(tmp_path / f"{name}.png")
  sides.look(tmp_path)
  assert ("and all are taken for normal: where one of these" in caplog.text) == said


@pytest.mark.parametrize("name, said", [("Info.txt", True), ("README.txt", False), ("license_1.TXT", False)])
def test_a_text_beside_images_may_say_who_is_abnormal(tmp_path, caplog, name, said):
  """The list of MIAS lies beside its mammograms."""
  image(tmp_path / "mdb001.png")
  (tmp_path / name).write_text("mdb001 G CIRC B")
  sides.look(tmp_path)
  assert (f"{name} is not read, and all scans" in caplog.text) == said


def test_what_may_say_who_is_abnormal_is_said(tmp_path, caplog):
  for place in ("lung_aca/a.png", "lung_n/a.png"):
    image(tmp_path / place)
  (tmp_path / "labels.csv").write_text("id,hemorrhage")
  sides.look(tmp_path)
  assert "labels.csv is not read, and all scans" in caplog.text
  assert "taken for normal, in folders lung_aca, lung_n alike" in caplog.text
  caplog.clear()
  for k in range(8):
    image(tmp_path / "b" / f"mary{k}" / "a.png")
  sides.look(tmp_path / "b")
  assert not caplog.text


def test_channels_of_nnunet_are_no_scans_of_their_own(tmp_path):
  """case_0_0000 and case_0_0001 are sequences of a case: each was scored, and trained on, as a scan."""
  root = folder_of(tmp_path, "case_0_0000", "case_0_0001", "case_1_0000", "case_1_0001", "mine_0000")
  scans, left_out = found(root, ("flair",))
  assert set(scans) == {"mine_0000"}
  assert "is a channel of case_0 by nnU-Net's names" in left_out["case_0_0001"]
  assert all(item.broken for item in inputs.find_all(root, ("image",), ("nifti",))[1].left_out)
  look = lambda *modalities: own_scans.group(sides.look(root).members[:4], modalities)
  for asked in ((), ("flair",)):
    with pytest.raises(UserError, match="is a channel of case_0 .*0000.,.0001.* are one scan"):
      look(*asked)
  assert [(g.name, *g.volumes) for g in look("0000", "0001")[0]] == [
      ("case_0", "0000", "0001"), ("case_1", "0000", "0001")]


@pytest.mark.parametrize("name", [
    "CT1", "P1_T1+C", "P1_GdT1", "P1_T2TSE", "P1_T1SE", "P1_t1mpr", "P1_T1FLAIR", "P1_STIR", "P1_PSIR",
    "P1_QSM", "P1_rCBV", "P1_isodwi", "P1_b1000", "P1_CTA", "P1_FDG", "P1_inv2", "P1_warp"])
def test_sequences_of_scanners_are_not_read_as_flair(tmp_path, name):
  scans, left_out = found(folder_of(tmp_path, name), ("flair",))
  assert not scans and left_out == {name: sequences.UNUSED}


@pytest.mark.parametrize("name", ["CT1", "P1_cT1", "P1_T1+C", "P1_T1C+", "P1_GdT1"])
def test_t1_with_an_agent_in_the_names_of_public_sets(name):
  assert sequences.split_name(f"x/{name}.nii.gz", sequences.KNOWN)[1] == "t1ce"


@pytest.mark.parametrize("name", [
    "ground_truth_expert1", "Consensus", "ManualSegmentation_1", "rater2", "P1_FLAIRmask", "P1_lesionmask",
    "P1_GM", "P1_ventricles"])
def test_marks_and_tissues_by_any_name_are_not_scored(tmp_path, name):
  scans, left_out = found(folder_of(tmp_path, name, "013"), ("flair",))
  assert list(scans) == ["013"] and left_out == {name: sequences.LABEL}


def test_files_beside_a_scan_that_tell_no_sequence_are_not_of_the_model_s(tmp_path):
  """Whatever else lies beside P1_flair was scored as another FLAIR; another visit or form is a scan."""
  root = folder_of(tmp_path, "P1_flair", "P1_myownseq", "P1_2", "P1_visit2", "P1_FLAIR_bet", "mine",
                   "P2/FLAIR", "P2/zebra")
  scans, left_out = found(root, ("flair",))
  assert left_out == {name: f"is a file of the scan of {scan}.nii.gz, of no sequence that its name tells"
                      for name, scan in (("P1_myownseq", "P1_flair"), ("zebra", "FLAIR"))}
  assert len(scans) == 6


def test_what_bids_derives_is_a_form_of_the_scan(tmp_path, caplog):
  """One person was two: native and in the space of a template, raw and preprocessed."""
  native, mni = "sub-01/anat/sub-01_desc-preproc_T1w", "sub-01/anat/sub-01_space-MNI152_desc-preproc_T1w"
  root = folder_of(tmp_path / "prep", native, mni, "sub-02/anat/sub-02_desc-preproc_T1w")
  (root / "dataset_description.json").write_text("{}")
  with pytest.raises(UserError, match="sub-01 and sub-01_space-MNI152 are forms of one scan"):
    scan_folders.look_bids(root, ("t1",), RULE)
  assert len(found(root, ("t1",))[0]) == 3 and "forms of one scan" in caplog.text
  with pytest.raises(UserError, match="are forms of one scan"):
    own_scans.group(sides.look(root).members, ())
  raw = folder_of(tmp_path / "raw", "sub-01/anat/sub-01_T1w", f"derivatives/prep/{native}",
                  "sub-02/anat/sub-02_T1w")
  with pytest.raises(UserError, match="are forms of one scan"):
    own_scans.group(sides.look(raw).members, ())
  runs = folder_of(tmp_path / "runs", *(f"sub-01/anat/sub-01_run-{k}_T1w" for k in (1, 2)))
  assert len(scan_folders.look_bids(runs, ("t1",), RULE).complete) == 2 and len(
      own_scans.group(sides.look(runs).members, ())[0]) == 2


@pytest.mark.parametrize("name, hint", [("case_001", True), ("case_901", False)])
def test_a_label_of_nnunet_that_fits_no_scan_by_its_name_says_which_it_is_of(tmp_path, name, hint):
  root = folder_of(tmp_path / "set", *(f"imagesTr/case_00{i}_0000" for i in range(6)), f"labelsTr/{name}")
  with pytest.raises(UserError, match=f"{name}.nii.gz") as error:
    opened(root)
  assert ("it is that of case_001_0000.nii.gz: call the two alike" in str(error.value)) == hint


@pytest.mark.parametrize("label", ["P1_seg.mgz", "P1.seg.nrrd", "P1_lesion.mha", ".P1_seg.nii.gz.icloud",
                                   "P1_lesion.mif", "P1_seg.npz"])
def test_labels_in_a_form_that_is_not_read_are_not_taken_for_none(tmp_path, label, caplog):
  """All scans counted as normal, with a warning that there is no label, and lesions were learnt as normal."""
  folder_of(tmp_path / "set", "P1/P1_flair", "P2/P2_flair")
  (tmp_path / "set/P1/aseg.mgz").write_bytes(b"x")  # of FreeSurfer, and no label of a lesion
  assert len(scan_folders.look(tmp_path / "set", ("flair",), RULE).complete) == 2
  (tmp_path / "set/P1" / label).write_bytes(b"x")
  with pytest.raises(UserError, match=f"holds no label that is read, and 1 files .* P1/{label} (is|stands)"):
    scan_folders.look(tmp_path / "set", ("flair",), RULE)
  folder_of(tmp_path / "set", "P2/P2_seg")
  assert label in scan_folders.look(tmp_path / "set", ("flair",), RULE).incomplete["P1"]
  folder_of(tmp_path / "own", "n1_flair", "n2_flair", "n3_flair")
  (tmp_path / "own" / label).write_bytes(b"x")
  with pytest.raises(UserError, match=f"{label} (is|stands)"):
    opened(tmp_path / "own")


def test_masks_under_the_names_of_their_images_are_no_images(normals):
  """The magnetic tiles: exp1_num_1.jpg is the picture, exp1_num_1.png its mask; both were normal images."""
  image(normals / "normal/p00.jpg", 90)
  opened(normals)  # two pictures: one grey each
  (normals / "abnormal").mkdir()
  pixels = np.random.default_rng(0).integers(0, 255, (20, 30), np.uint8)
  Image.fromarray(pixels).save(normals / "abnormal/x.jpg")
  image(normals / "abnormal/x.png", 0, mark=slice(3, 9))
  with pytest.raises(UserError, match="x.png has two grey values alone, as the mask of x.jpg"):
    opened(normals)


def test_labels_beside_normal_images_that_mark_something(normals):
  """KolektorSDD: Part3_label.bmp beside Part3.jpg was left out, and the crack was a normal image."""
  image(normals / "normal/p00_label.bmp", 0)
  opened(normals)
  image(normals / "normal/p00_label.bmp", 0, mark=slice(3, 9))
  with pytest.raises(UserError, match="p00_label.bmp marks something, and its image counts as normal"):
    opened(normals)


def test_a_volume_that_its_folder_does_not_name_is_said(tmp_path):
  """BraTS of TCIA: P1/P1_1998.02.14_flair.nii.gz lay there, and all that was said: no flair volume in P1."""
  folder_of(tmp_path, "P1/P1_1998.02.14_flair", "P2/P2_flair")
  looked = scan_folders.look(tmp_path, ("flair",), RULE)
  assert looked.incomplete["P1"].startswith(
      "no flair volume in P1 (P1_1998.02.14_flair.nii.gz is there: call it P1_flair.nii.gz, by its folder")
