"""Which sequence of a brain the name of a file tells, and what is no input for a model of others."""

import pathlib
import shutil

import nibabel
import numpy as np
import pytest

from data_pipelines.brains import files, inputs, own_scans, scan_folders, sequences
from data_pipelines.errors import UserError
from data_pipelines.intake import sides

THREE = ("flair", "t1", "t1ce")


def folder_of(root, *names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.ones((3, 3, 2), np.int16), np.eye(4)), root / f"{name}.nii.gz")
  return root


def found(root, modalities):
  """({scan: {modality: name of the file}}, {name: reason})."""
  scans, every = inputs.find_all(root, modalities, ("nifti",))
  shown = lambda p: p.name.removesuffix(".nii.gz")
  return ({s.name: {m: shown(p) for m, p in s.files.items()} for s in scans},
          {shown(item.path): item.reason for item in every.left_out})


@pytest.mark.parametrize("files", [
    ("p1_FLAIR", "p1_T1w", "p1_ce-gd_T1w"), ("p1_flair", "p1_t1_pre", "p1_t1_post"),
    ("p1.flair", "p1.t1", "p1.t1gd"),
    ("p1-t2f", "p1-t1n", "p1-t1c"),
    ("p1/T2_FLAIR", "p1/T1", "p1/T1_CE"), ("p1/p1_T2_flair", "p1/p1_t1", "p1/p1_gd_t1"),
    ("p1_dark-fluid", "p1_T1", "p1_t1km")])
def test_the_three_of_a_scan_are_found_by_their_usual_names(tmp_path, files):
  scans, left_out = found(folder_of(tmp_path, *files), THREE)
  assert scans == {"p1": {m: f.rsplit("/", 1)[-1] for m, f in zip(THREE, files)}} and not left_out


@pytest.mark.parametrize("name", [
    "p1_T1w", "p1_t1gd", "p1_dwi", "p1_ADC", "p1_T2star", "p1_t1_brain", "t1_p1", "p1_pet", "T1", "p1_gd_t1",
    "p1_T1map", "p1_mprage", "p1_T1rho", "p1_FLAIRSTAR", "p1_MEMPRAGE", "p1_UNIT1", "p1_IRFSPGR", "p1_VIBE",
    "p1_FLASH", "p1_3D_TFE", "p1_fl3d", "p1_FISP", "p1_FGATIR", "p1_WMn", "p1_T2s", "p1_TRACEW", "p1_FET",
    "p1_MTon", "p1_T13D", "p1_MPRAGE2"])
@pytest.mark.parametrize("alone", [True, False])
def test_another_sequence_is_never_read_as_flair(tmp_path, name, alone):
  """A model of one sequence took any file that it did not know for its own."""
  root = folder_of(tmp_path, name)
  scans, left_out = found(root / f"{name}.nii.gz" if alone else root, ("flair",))
  assert not scans and left_out == {name: sequences.UNUSED}


@pytest.mark.parametrize("folder, left_out", [
    ("T1", True), ("t1ce", True), ("DWI", True), ("FLAIR", False), ("T1_study", False), ("P01", False)])
def test_a_folder_called_as_another_sequence_holds_it(tmp_path, folder, left_out):
  """T1/P01.nii.gz was scored as FLAIR."""
  root = folder_of(tmp_path, "P01")
  (root / folder).mkdir()
  (root / "P01.nii.gz").rename(root / folder / "P01.nii.gz")
  scans, out = found(root, ("flair",))
  assert (not scans, bool(out)) == (left_out, left_out)
  assert not left_out or f"lies in the folder {folder}, of a sequence" in out["P01"]


@pytest.mark.parametrize("name", [
    "p1_MPRAGE_GD", "p1_BRAVO_POST", "p1_AX_T1_BRAVO_C", "p1_T1_VIBE_GD", "p1_T1_TSE_post", "p1_T1w_TFE_GD",
    "p1_gd_mprage", "p1_FLAIR3D", "p1_FLAIR2std", "p1_T1_map", "p1_T1_sub", "p1_T1_mapping",
    "p1_T1_posteriors", "p1_T1w_recon", "p1_t1_ph", "p1_mprage_biasfield", "p1_t1_uncertainty"])
def test_a_t1_with_an_agent_or_a_map_of_t1_is_never_read_as_t1(tmp_path, name):
  assert found(folder_of(tmp_path, name), ("t1",)) == ({}, {name: sequences.UNUSED})


@pytest.mark.parametrize("name", ["p1_MPRAGE", "post_p1_MPRAGE", "c_1_T1_TSE", "p1_T1_TSE_pre", "p1_FLASH",
                                  "p1_T1_VIBE_native", "p1_mprage_ohne_km", "p1_T1_GRE"])
def test_a_t1_under_its_readout_is_read(tmp_path, name):
  assert list(found(folder_of(tmp_path, name), ("t1",))[0]) == [name]


@pytest.mark.parametrize("name", ["p1_MPRAGE_GD", "p1_T1_VIBE_post"])
def test_a_t1_with_an_agent_under_its_readout_is_one(tmp_path, name):
  assert list(found(folder_of(tmp_path, name), ("t1ce",))[0]) == [name]


def test_labels_and_tissues_of_other_programs_are_no_scans(tmp_path):
  """FreeSurfer's aseg, FSL's pve and the challenge's wmh were scored as FLAIR."""
  names = ("aseg", "brainmask", "fast_pve_0", "wmh", "p1-t2f-mask-healthy", "p1_mask2", "aparc+aseg",
           "p1_lesion1")
  scans, left_out = found(folder_of(tmp_path, "p1_flair", "lesion_p2", "mine", *names), ("flair",))
  assert set(scans) == {"p1", "lesion_p2", "mine"}
  assert left_out == dict.fromkeys(names, "is named as a label or a result")


def test_contrast_is_told_apart_where_the_model_has_none(tmp_path):
  scans, left_out = found(
      folder_of(tmp_path, "a_T1w", "a_ce-gd_T1w", "b_t1_gd", "c_t1", "d_post_t1"), ("t1",))
  assert scans == {"a": {"t1": "a_T1w"}, "c": {"t1": "c_t1"}, "d_post": {"t1": "d_post_t1"}}
  assert set(left_out) == {"a_ce-gd_T1w", "b_t1_gd"}


def test_a_name_of_two_sequences_is_named(tmp_path):
  scans, left_out = found(folder_of(tmp_path, "a_t1_to_flair", "b_flair_t1", "c_T1_flair"), ("flair",))
  assert scans == {"c_T1": {"flair": "c_T1_flair"}}  # of the first visit
  assert all("names several sequences (flair, t1): rename" in why for why in left_out.values())
  assert set(left_out) == {"a_t1_to_flair", "b_flair_t1"}


def test_words_of_other_models_and_own_names_mean_nothing_here(tmp_path):
  root = folder_of(tmp_path, "a_pet", "b_T1w", "map_01")
  assert found(root, ("pet",))[0] == {"a": {"pet": "a_pet"}, "b_T1w": {"": "b_T1w"}, "map_01": {"": "map_01"}}
  scans, left_out = found(root, ("flair", "t1w"))
  assert scans == {"b": {"t1w": "b_T1w"}, "map_01": {"": "map_01"}} and set(left_out) == {"a_pet"}


@pytest.mark.parametrize("names", [
    ("FLAIR", "T1", "T1CE", "mask"), ("P1_T2_flair", "P1_T1w", "p1_ce-gd_T1w", "P1_label"),
    ("P1_flair", "p1-t1n", "P1_t1gd", "seg")])
def test_training_takes_the_same_names(tmp_path, names):
  folder_of(tmp_path, *(f"P1/{n}" for n in names), "P1/P1_t2", "P1/P1_brain_mask")
  (scan,) = scan_folders.look(tmp_path, THREE, {"pattern": "", "grouping": "patient"}).complete
  assert [p.rsplit("/", 1)[-1] for p in (*scan.volumes, scan.seg)] == [f"{n}.nii.gz" for n in names]


@pytest.mark.parametrize("session", ["", "ses-1/"])
def test_a_part_of_a_bids_data_set_needs_no_description(tmp_path, session):
  prefix = f"sub-01/{session}anat/sub-01_{session.replace('/', '_')}"
  folder_of(tmp_path, *(f"{prefix}{n}" for n in ("FLAIR", "T1w", "ce-gd_T1w", "T2w")))
  for root in (tmp_path, tmp_path / "sub-01"):
    scans, left_out = found(root, THREE)
    assert [sorted(s) for s in scans.values()] == [sorted(THREE)]
    assert list(left_out) == [prefix.rsplit("/", 1)[-1] + "T2w"]


def test_a_phase_image_is_no_scan(tmp_path):
  folder_of(tmp_path, *(f"sub-01/anat/sub-01_{part}T1w" for part in ("", "part-phase_")),
            "sub-02/anat/sub-02_part-mag_T1w")
  scans, left_out = found(tmp_path, ("t1",))
  assert scans == {"sub-01": {"t1": "sub-01_T1w"}, "sub-02_part-mag": {"t1": "sub-02_part-mag_T1w"}}
  assert list(left_out) == ["sub-01_part-phase_T1w"]


RULE = {"pattern": "", "grouping": "patient"}


@pytest.mark.parametrize("label", [
    "P1_segmentation", "P1_labels", "P1_gt", "P1_ground_truth", "P1-lesion", "P1_lesion_mask", "P1_tumor_seg",
    "P1_flair_seg", "P1_consensus_gt", "P1_wmh", "P1_segm", "P1_msk"])
def test_a_label_has_words_besides(tmp_path, label):
  """All scans were taken for normal, lesions and all, with a line among others."""
  folder_of(tmp_path, "P1/P1_flair", f"P1/{label}")
  (scan,) = scan_folders.look(tmp_path, ("flair",), RULE).complete
  assert scan.seg.endswith(f"{label}.nii.gz")
  folder_of(tmp_path, "P1/P1_seg", "P1/P1_brain_mask")
  (scan,) = scan_folders.look(tmp_path, ("flair",), RULE).complete
  assert scan.seg.endswith("P1_seg.nii.gz")  # the plain name goes before


@pytest.mark.parametrize("label", [
    "P1_roi", "P1_manual", "lesions_of_P1", "P2_seg", "P1_mask1", "P1_rater2", "P1_LesionMask", "P1_WMHmask",
    "P1_automated_approx_segm", "P1_WT", "P1_GTV", "P1_edema", "P1_contours"])
def test_a_file_that_looks_like_a_label_and_is_none(tmp_path, label, caplog):
  folder_of(tmp_path, "P1/P1_flair", f"P1/{label}")
  with pytest.raises(UserError, match=f"1 files that look like labels, the first P1/{label}.nii.gz: call it"):
    scan_folders.look(tmp_path, ("flair",), RULE)
  (tmp_path / f"P1/{label}.nii.gz").rename(tmp_path / "P1/P1_brain_mask.nii.gz")
  assert scan_folders.look(tmp_path, ("flair",), RULE).complete[0].seg is None
  assert "all scans are taken for normal" in caplog.text


def test_words_of_a_scan_s_own_name_and_of_tissues_are_no_labels(tmp_path):
  folder_of(tmp_path, *(f"stroke01/stroke01_{k}" for k in ("flair", "dwi", "aseg", "hd_bet", "brain_mask")),
            "glioma_2/lesion3_FLAIR")
  assert scan_folders.look(tmp_path, ("flair",), RULE).complete[0].seg is None


@pytest.mark.parametrize("label, read", [
    ("ses-1_space-MNI_label-L_desc-T1lesion_mask", True), ("ses-1_label-WMHs_mask", True),
    ("ses-1_desc-lesionmask_msk", True), ("ses-1_msk", False), ("ses-1_desc-manual_mask", False),
    ("ses-1_T1w_label-lesion_roi", False), ("ses-1_lesion-manual", False)])
def test_lesions_of_public_bids_sets_are_read_or_refused_and_never_normal(tmp_path, label, read):
  folder_of(tmp_path, *(f"sub-stroke1/ses-1/anat/sub-stroke1_ses-1_{kind}" for kind in ("T1w", "dseg")),
            f"derivatives/x/sub-stroke1/ses-1/anat/sub-stroke1_{label}")
  if read:
    assert scan_folders.look_bids(tmp_path, ("t1",), RULE).complete[0].seg.endswith(f"{label}.nii.gz")
  else:
    with pytest.raises(UserError, match=f"1 files that look like labels, the first .*_{label}.nii.gz"):
      scan_folders.look_bids(tmp_path, ("t1",), RULE)


def test_training_reads_bids(tmp_path, caplog):
  anat = "sub-{0}/ses-1/anat/sub-{0}_ses-1"
  folder_of(tmp_path, *((anat + k).format(s) for s in "1234" for k in ("_FLAIR", "_T1w", "_desc-brain_mask")),
            *(f"derivatives/man/{anat}_label-lesion_mask".format(s) for s in "124"),
            "derivatives/man/sub-4/ses-1/anat/sub-4_ses-1_desc-lesion_dseg",
            "derivatives/fs/sub-1/ses-1/anat/sub-1_ses-1_dseg", "sub-5/anat/sub-5_FLAIR")
  found = files.find_scans(tmp_path, ("flair", "t1"))
  assert {s.patient: (s.group, [p.rsplit("/", 1)[-1] for p in (*s.volumes, s.seg)]) for s in found.scans} == {
      f"sub-{s}_ses-1": (f"sub-{s}", [f"sub-{s}_ses-1_{k}.nii.gz" for k in (
          "FLAIR", "T1w", "label-lesion_mask")]) for s in "12"}
  assert [found.incomplete[n].split(" ")[:2] for n in ("sub-3_ses-1", "sub-4_ses-1", "sub-5")] == [
      ["no", "label"], ["2", "labels"], ["no", "t1"]]
  shutil.rmtree(tmp_path / "derivatives")
  assert not any(s.seg for s in files.find_scans(tmp_path, ("flair", "t1"), grouping="file").scans)
  assert "no label of a lesion" in caplog.text


def test_labels_beside_the_volumes_of_one_s_own_folder(tmp_path, caplog):
  members = lambda *names: [sides.Member(f"abnormal/{n}.nii.gz", tmp_path / f"abnormal/{n}.nii.gz", 1)
                            for n in names]
  shown = lambda found: {g.name: g.seg and g.seg.name.split(".")[0] for g in found[0]}
  named = members("P1_flair", "P1_lesion", "P2_flair", "P2_tumor_seg", "P3_flair", "P4_mask")
  assert shown(own_scans.group(named, ())) == {
      "abnormal/P1": "P1_lesion", "abnormal/P2": "P2_tumor_seg", "abnormal/P3": None}
  assert "1 files named as labels are of no scan" in caplog.text and "P4_mask" in caplog.text
  assert shown(own_scans.group(members("P1", "P1_lesion", "P2", "P2_seg", "P3_lesion"), ())) == {
      "abnormal/P1.nii.gz": "P1_lesion", "abnormal/P2.nii.gz": "P2_seg", "abnormal/P3_lesion.nii.gz": None}


@pytest.mark.parametrize("names, said", [
    (("P1_FLAIR", "P1_FLAIR_bet"), "P1_FLAIR.nii.gz and P1_FLAIR_bet.nii.gz are forms"),
    (("P1_FLAIR_n4", "P1_FLAIR_brain_reg"), "P1_FLAIR_n4.nii.gz and P1_FLAIR_brain_reg.nii.gz are forms"),
    (("scan7", "wmscan7"), "scan7.nii.gz and wmscan7.nii.gz are forms"), (("P1_FLAIR", "P2_FLAIR_bet"), ""),
    (("a1_head", "a1_brain", "mary", "smary"), ""),
    (("P1_FLAIR", "P1_rater1"), "P1_rater1.nii.gz is named as a label of P1_FLAIR.nii.gz, and is not"),
    (("P1", "P1_roi"), "P1_roi.nii.gz is named as a label of P1.nii.gz"), (("lesion_1", "healthy_1"), ""),
    (("P1", "P1_aparc+aseg"), "named as a label of P1.nii.gz"), (("brain", "head"), ""),
    (("orig", "brain"), "as FreeSurfer or FSL fill it")])
def test_forms_of_a_scan_and_marks_beside_it_are_no_scans_of_others(tmp_path, names, said):
  """Each was a patient of its own: skull-stripped copies, masks of several raters, FreeSurfer's steps."""
  members = [sides.Member(f"{n}.nii.gz", tmp_path / f"{n}.nii.gz", 0) for n in names]
  if not said:
    assert len(own_scans.group(members, ())[0]) == len(names)
    return
  with pytest.raises(UserError) as error:
    own_scans.group(members, ())
  assert said in str(error.value)


def test_folders_of_forms_of_one_scan_are_no_two_scans(tmp_path, caplog):
  """P1 and P1_bet each counted as a scan."""
  folder_of(tmp_path, "P1/P1_flair", "P1_bet/P1_bet_flair", "P2_brain/P2_brain_flair", "P3/P3_flair")
  with pytest.raises(UserError, match=r"P1 and P1_bet are forms of one scan by their names \(1 such\): keep"):
    files.find_scans(tmp_path, ("flair",))
  assert set(found(tmp_path, ("flair",))[0]) == {"P1", "P1_bet", "P2_brain", "P3"}
  assert f"{tmp_path / 'P1'} and {tmp_path / 'P1_bet'} are forms of one scan" in caplog.text
  shutil.rmtree(tmp_path / "P1")
  assert len(files.find_scans(tmp_path, ("flair",)).scans) == 3
  members = [sides.Member(f"{n}.nii.gz", tmp_path / f"{n}.nii.gz", 0) for n in (
      "P1_t1", "P1_flair", "P1_bet_t1", "P1_bet_flair")]
  with pytest.raises(UserError, match="P1 and P1_bet are forms"):
    own_scans.group(members, ())


def test_what_lies_beside_a_scan_is_said_in_predict(tmp_path, caplog):
  folder_of(tmp_path, "P1_FLAIR", "P1_FLAIR_bet", "P1_rater1", "s/orig", "s/brain", "t/brain", "t/norm_FLAIR")
  scans, left = found(tmp_path, ("flair",))
  assert set(scans) == {"P1", "P1_FLAIR_bet", "brain", "norm"}
  assert left["P1_rater1"] == "is named as a label of P1_FLAIR.nii.gz, which lies beside it"
  assert "what FreeSurfer or FSL make of a T1" in left["orig"] and left["brain"] == left["orig"]
  assert caplog.text.count("are forms of one scan by their names (1 such files)") == 1
  assert {"orig", "P1_rater1"} < set(found(tmp_path, ("image",))[0])  # models of something else


@pytest.mark.parametrize("columns, said", [(("flair", "t1"), False), (("t1", "flair"), True)])
def test_exchanged_columns_of_a_table_are_said(tmp_path, caplog, columns, said):
  folder_of(tmp_path, "P1_flair", "P1_t1", "x_T2")
  (tmp_path / "manifest.csv").write_text(
      f"patient,{','.join(columns)}\nP1,P1_flair.nii.gz,P1_t1.nii.gz\nP2,x_T2.nii.gz,\n")
  (one, _) = inputs.find(tmp_path, ("flair", "t1"))
  assert one.files[columns[0]].name == "P1_flair.nii.gz"  # the table is followed
  assert ("2 files are listed in the column of another sequence" in caplog.text) == said
  caplog.clear()
  files.find_scans(tmp_path, ("flair", "t1"))
  assert ("2 files are listed in the column of another sequence" in caplog.text) == said


def test_a_sequence_without_the_name_of_a_scan_is_of_its_folder(tmp_path):
  """A file `_flair.nii.gz` was a traceback."""
  assert set(found(folder_of(tmp_path, "P1/_flair", "P2/flair"), ("flair",))[0]) == {"P1", "P2"}


@pytest.mark.parametrize("name", ["P01/P01_dwi.nii.gz", "P01/p01_DWI.nii.gz", "x/sub-Ab1_dwi.nii.gz"])
def test_words_of_a_name_are_those_behind_its_scan_in_any_capitals(name):
  assert sequences._own_words(pathlib.Path(name)) == {"dwi"}
