"""Each word by which names tell a sequence, a label or neither: what has a lost one is read otherwise."""

import pathlib

import numpy as np
import pytest

from data_pipelines.brains import inputs, labels, own_scans, scan_folders, sequences
from data_pipelines.errors import UserError
from data_pipelines.intake import processed, sides, words_of_volumes
from tests import dicom_series_files as series_files
from tests.unit.intake.test_sequence_names import RULE, folder_of, found

words = str.split
LABELS = words("seg mask label labels segmentation segm msk groundtruth gt")
FINDINGS = words("lesion lesions tumor tumour wmh")
ENDINGS = (*LABELS, "ground_truth", *FINDINGS)
LIKE = words("truth dseg manual consensus roi annotation annotations contour delineation rater reader expert "
             "observer les wt tc et core ncr necrosis enhancing")
WITHIN = words("lesion tumor tumour wmh gtv infarct stroke edema oedema metasta hematoma haematoma "
               "hemorrhage haemorrhage glioma")
TISSUES = words("brain brainmask bet skull head tissue wm gm csf ventricles aseg aparc wmparc ribbon face "
                "deface cortex hippocampus fov")
SEQUENCES = {
    "flair": "flair t2flair t2_flair t2-flair t2f tirm dark-fluid dark_fluid darkfluid",
    "t1ce": "t1ce t1_ce t1c t1-c t1gd t1_gd t1gad t1-gado t1_gadolinium t1km t1_contrast t1_postcontrast "
            "t1_post t1w_post t1_enhanced ce-gd_t1w gd_t1 gado_t1 km-t1w contrast_t1",
    "t1": "t1 t1w t1n t1_pre t1-native t1_nativ", "t2": "t2 t2w"}
DESCRIBED = {"flair": "flair t2f tirm darkfluid dark_fluid", "t1ce": "t1ce t1c t1gd t1post", "t2": "t2 t2w",
             "t1": "t1 t1n t1w mprage mp2rage spgr fspgr bravo"}
OTHER = words("star swi swan gre hemo dwi adc trace dti perf perfusion pwi dsc dce asl bold tof mra mrv mip "
              "map mapping loc localizer localiser scout survey sub subtraction screenshot phase")
OTHER_NAMES = words("t1map t2map t2star t1rho flairstar mtr fa md cbf cbv pd pdw pet ct")


def like(name):
  return sequences.like_label(f"P1/{name}.nii.gz")


def test_labels_are_of_the_scan_before_their_words():
  found = lambda name: sequences.scans_of_label(f"P1/P1_{name}.nii.gz")
  between = (*FINDINGS, *words("manual consensus expert whole flair t1 t1ce t2 t2f t1n t1c t2w t1gd mprage"))
  for ending in ENDINGS:
    assert found(ending) == ["P1"] and found(f"x_{ending}") == ["P1_x"]
    assert all(found(f"{word}_{ending}") == [f"P1_{word}", "P1"] for word in between), ending
  assert found("flair_whole_seg") == ["P1_flair_whole", "P1_flair", "P1"]


def test_words_that_look_like_labels():
  for word in LIKE:
    assert like(f"P1_{word}") and like(f"P1_{word}2"), word
  for word in WITHIN:
    assert like(f"P1_my{word}x"), word
    assert not sequences.like_label(f"{word}1/{word}1_flair.nii.gz")  # what scans are called, too
  assert like("P1_tcs") and like("roi_t1") and not like("P1_core_t1") and not like("P1_flair")
  assert sequences.like_label("wt/wt.nii.gz")  # its folder's name is all that it has


def test_masks_of_a_brain_are_no_labels_but_lesions_in_it_are():
  for word in TISSUES:
    assert not like(f"P1_{word}_mask") and like(f"P1_{word}_tumor_mask") and like(f"P1_{word}_mylesion"), word


@pytest.mark.parametrize("modality", SEQUENCES)
def test_endings_of_names_tell_the_sequence(modality):
  for ending in words(SEQUENCES[modality]):
    for name in (f"P01_{ending}", f"P01-{ending.upper()}", ending):
      assert sequences.split_name(f"P01/{name}.nii.gz", sequences.KNOWN) == ("P01", modality), name
  for word in words(DESCRIBED[modality]):
    assert sequences.described((f"AX {word}", "t2"), sequences.KNOWN) == (modality, ""), word
    assert sequences.described((word,), ("pet",)) == ("", "")  # no brain: other words count


@pytest.mark.parametrize("name", [
    "a_t1_to_flair", "a_t1w_2_flair", "a_t12_flair", "a_t2_in_flair", "a_t2w_on_flair", "a_t1_coreg_flair",
    "a_t1_co-registered_flair", "a_t1-reg_flair", "a_flair_t1", "a_t2f_t1", "a_flair_x_t1", "a_t1gd_t1"])
def test_two_sequences_of_a_name_are_none(name):
  assert sequences.split_name(f"P1/{name}.nii.gz", sequences.KNOWN) == (name, "")


def test_agents_in_descriptions():
  for word in words("post gd gad gado gadolinium contrast ce c km enhanced"):
    assert sequences.described((f"T1 {word}",), sequences.KNOWN) == ("t1ce", ""), word
  for word in words("pre without wo non no native nativ ohne w/o"):
    assert sequences.described((f"T1 {word} contrast",), sequences.KNOWN) == ("t1", ""), word


def test_pictures_of_another_kind():
  for word in OTHER:
    found, reason = sequences.described((f"T1 {word}",), sequences.KNOWN)
    assert not found and f"names t1 and {word}: " in reason
  assert "names t2 and star: " in sequences.described(("T2*",), sequences.KNOWN)[1]
  for word in (*OTHER, *OTHER_NAMES, "t1", "t2w", "t1n"):
    assert sequences.other_kind(f"P1_{word}", ("flair",)) == sequences.UNUSED, word
  for word in (*LABELS, *words(
      "aseg aparc aparc+aseg wmparc ribbon brainmask pve pveseg mixeltype probseg dseg")):
    assert "label" in sequences.other_kind(f"{word}_P1", ("flair",)), word
  for word in (*LABELS, *words("truth dseg probseg anomaly overlay")):
    assert "label" in sequences.other_kind(f"P1_{word}", ("ct",)), word
  assert sequences.described(("ADC",), ("flair", "adc")) == ("adc", "")  # of a model that has it
  assert sequences.other_kind("P1_T2_FLAIR_x", ("flair",)) == ""
  assert sequences.other_kind("P1_t1_t1gd_x", ("t1ce",)) == ""


def test_the_longest_name_of_a_sequence_of_one_s_own_counts():
  assert sequences.split_name("P1_fat_ct.nii.gz", ("ct", "fat_ct")) == ("P1", "fat_ct")
  assert sequences.split_name("P1-T1N.nii.gz", ("t1n",)) == ("P1", "t1n")  # not ours
  assert sequences.split_name("P1_T1w.nii.gz", ("t1w", "flair")) == ("P1", "t1w")
  assert sequences.split_name("P1_flair_t1.nii.gz", ("t1", "flair")) == ("P1_flair_t1", "")


def test_common_names_are_those_of_a_program_only_beside_its_own():
  """brain and T1 of FreeSurfer or FSL; a scan called so in another folder is a scan."""
  files = [pathlib.Path(p) for p in ("a/nu.nii.gz", "a/brain.nii.gz", "a/T1.nii", "a/scan.nii",
                                     "b/brain.nii.gz", "b/T1.nii", "b/scan.nii", "c/ORIG.nii")]
  made = [str(p) for p in files if processed.of_program(p, files)]
  assert made == ["a/nu.nii.gz", "a/brain.nii.gz", "a/T1.nii", "c/ORIG.nii"]


def test_descriptions_of_something_else_alone():
  """Such a series, alone in its study, was a scan of the only modality of a model."""
  for word in (*words("DWI SWI TOF ADC pCASL Localizer STIR MRCP CISS QSM HASTE BOLD b1000 ep2d_diff tfl3d"),
               "MR venography", "CT head", "PD FSE", "SPACE sag", "3D CUBE", "t2* map"):
    found, reason = sequences.described((word, ""), ("flair",))
    assert not found and reason, word
  for text in ("5", "brain", "head 3d sag", "axial", ""):
    assert sequences.described((text, ""), ("flair",)) == ("", ""), text
  assert sequences.described(("SPACE", "flair sag"), ("flair",)) == ("flair", "")  # the protocol says it
  assert sequences.described(("GRE",), ("t1",)) == ("", "")
  assert sequences.described(("SWI", ""), ("flair", "swi")) == ("swi", "")


def test_names_of_a_readout_alone():
  for name in ("P1_SPACE", "P1_cube_brain", "P1_3D_VISTA", "P1_tse"):
    assert "a readout alone" in sequences.other_kind(name, ("flair",)), name
  for name in ("vista_001", "sub-01_space-MNI", "P1", "cube_2_P1"):
    assert sequences.other_kind(name, ("flair",)) == "", name
  assert sequences.other_kind("P1_space", (sequences.ANY,)) == ""


def test_a_series_of_another_modality_is_none_of_a_model_of_brains(tmp_path):
  for modality, there in (("CT", 0), ("MR", 1), ("OT", 1)):
    series_files.write(tmp_path / modality, np.ones((6, 5, 4)), np.eye(4), Modality=modality)
    scans, found = inputs.find_all(tmp_path / modality, ("flair",), ("dicom",))
    assert len(scans) == there and ("Modality CT" in str(found.left_out)) == (modality == "CT")
    assert len(inputs.find_all(tmp_path / modality, ("ct",), ("dicom",))[0]) == 1


@pytest.mark.parametrize("text, own, other", [
    ("SWI", ("SWI",), False), ("swi", ("SWI", "flair"), False), ("swi", ("flair",), True),
    ("gre", ("T1",), False), ("gre", ("flair",), True), ("epi", ("EPI",), False), ("epi", ("FLAIR",), True)])
def test_a_modality_of_ones_own_is_no_other_series_in_capitals_either(text, own, other):
  assert words_of_volumes.other_series(words_of_volumes.words_of(text), own) == other


@pytest.mark.parametrize("name", [
    "P1_seg_flair", "P1_mask_FLAIR", "P1_gt_flair", "P1-LesionSeg-Flair", "P1_tumorseg_flair", "mask_flair",
    "P1_ManualSeg_FLAIR", "P1_wmhmask_flair", "P1_ground_truth_flair"])
def test_what_was_drawn_on_a_sequence_is_no_scan_of_it(tmp_path, name):
  """Labels of the MS set of Mendeley (1-LesionSeg-Flair) were scored, and trained on, as FLAIR."""
  root = folder_of(tmp_path, "P1/P1_flair", f"P1/{name}")
  assert found(root, ("flair",)) == ({"P1": {"flair": "P1_flair"}}, {name: sequences.LABEL})
  with pytest.raises(UserError, match=f"{name}.nii.gz: call it <scan>_seg"):
    scan_folders.look(root, ("flair",), RULE)
  for asked in ((), ("flair",)):
    with pytest.raises(UserError, match=f"{name}.nii.gz is named as a label of P1_flair|lack a modality"):
      own_scans.group(sides.look(root).members, asked)


def test_marks_that_end_as_a_sequence_or_begin_as_a_longer_name(tmp_path):
  """Of MU-Glioma-Post every P1_tumorMask was a scan of its own."""
  root = folder_of(tmp_path / "a", "P1_flair", "P1_lesion_flair", "P2_tumor_flair", "GT_flair")
  scans, left_out = found(root, ("flair",))
  assert set(scans) == {"P1", "P2_tumor", "GT"}  # nothing says that the last two are labels
  assert left_out == {"P1_lesion_flair": "is named as a label of P1_flair.nii.gz, which lies beside it"}
  marks = lambda folder, *names: {p.name.split(".")[0] for p in labels.marks_beside(
      folder_of(tmp_path / folder, *names).iterdir(), sequences.KNOWN)}
  assert marks("b", "P1_brain_t1c", "P1_brain_t1n", "P1_tumorMask", "P2_tumorMask") == {"P1_tumorMask"}
  assert not marks("c", "MRI_tumor_01", "MRI_normal_01", "les_01", "con_01", "tumor_01")
  assert marks("d", "volume-0", "volume-1", "segmentation-0", "segmentation-9") == {"segmentation-0"}
  assert marks("e", "img12", "seg12", "P01", "mask_P01", "gt_2", "im_2") == {"seg12", "mask_P01"}


@pytest.mark.parametrize("made, used", [
    ("c1P1_FLAIR", False), ("wc2P1_FLAIR", False), ("iy_P1_FLAIR", False), ("y_mP1_FLAIR", False),
    ("ples_lpa_mP1_FLAIR", False), ("bles_0.3_lpa_mP1_FLAIR", False), ("P1_FLAIR_1Warp", False),
    ("P1_FLAIRInverseWarped", False), ("mP1_FLAIR", True), ("P1_FLAIRWarped", True), ("c1Q_FLAIR", True),
    ("c12_FLAIR", True)])
def test_maps_of_spm_lst_and_ants_are_no_scans(tmp_path, made, used):
  """Tissues and maps of lesions beside a FLAIR were scored, and trained on as normal."""
  files = ("P1_FLAIR", "2_FLAIR", made)
  scans, left_out = found(folder_of(tmp_path, *files), ("flair",))
  assert len(scans) == 2 + used and bool(left_out) != used
  members = sides.look(tmp_path).members
  if used:
    processed.refuse_maps(m.path for m in members)
  else:
    with pytest.raises(UserError, match=f"{made}.nii.gz is named as .* has made of a scan .1 such"):
      own_scans.group(members, ())


@pytest.mark.parametrize("name, flair, t1", [
    ("ADNI_002_S_0295_MR_MPR__GradWarp__Scaled_Br", False, True), ("ADNI_1_MR_MP-RAGE_br", False, True),
    ("ADNI_1_MR_MT1__N3m", False, True), ("P1_MP2RAGE_INV1", False, False), ("ADNI_1_MR_Br", True, True)])
def test_t1_by_the_names_of_adni(tmp_path, name, flair, t1):
  """MPR was FLAIR to a model of FLAIR; the first inversion of MP2RAGE was T1."""
  assert [bool(found(folder_of(tmp_path, name), (m,))[0]) for m in ("flair", "t1")] == [flair, t1]


@pytest.mark.parametrize("name, scan, sequence", [
    ("a/a_t2_flair", "a", "flair"), ("P1/a_t2_flair", "a_t2", "flair"), ("a/a_t2_t1", "a_t2", "t1"),
    ("a/a_t2_t1ce", "a_t2", "t1ce")])
def test_t2_before_flair_is_part_of_its_name_or_the_second_visit(name, scan, sequence):
  assert sequences.split_name(f"{name}.nii.gz", sequences.KNOWN) == (scan, sequence)
