"""What programs leave beside a scan, by the names that they give it."""

import pytest

from data_pipelines.brains import own_scans, scan_folders
from data_pipelines.errors import UserError
from data_pipelines.intake import processed, sides
from tests.unit.intake.test_sequence_names import RULE, folder_of, found


@pytest.mark.parametrize("scan, form, refused", [
    ("P1_T1", "mP1_T1", True), ("P1_T1", "swmP1_T1", True), ("P1/T1", "P1/wT1", True), ("P1", "mP1", True),
    ("P1_T1", "sP1_T1", True), ("20190501_T1MPRAGEs2", "co20190501_T1MPRAGEs2", True),
    ("P1/T1", "P1/mri/wmT1", True), ("am", "sam", False), ("ed", "red", False), ("CI101", "MCI101", False),
    ("01", "m01", False)])
def test_forms_by_letters_before_a_name_are_no_scans_of_others(tmp_path, scan, form, refused):
  """mP1_T1 was somebody beside P1_T1, on the other side of the split; MCI101 was a form of CI101."""
  members = sides.look(folder_of(tmp_path, scan, form)).members
  if refused:
    with pytest.raises(UserError, match=f"{scan}.nii.gz and {form.rpartition('/')[2]}.nii.gz are forms"):
      own_scans.group(members, ())
  else:
    assert len(own_scans.group(members, ())[0]) == 2


@pytest.mark.parametrize("scan, form", [
    ("P1", "P1_synthsr"), ("BraTS-GLI-0-00-t1n", "BraTS-GLI-0-00-t1n-voided"), ("P1_t1", "P1_t1_inpainted")])
def test_a_scan_that_a_program_has_filled_or_drawn_anew_is_a_form_of_it(tmp_path, scan, form):
  """Beside it such a volume counted as one more normal scan of the person."""
  with pytest.raises(UserError, match=f"{scan}.nii.gz and {form}.nii.gz are forms"):
    own_scans.group(sides.look(folder_of(tmp_path, scan, form)).members, ())


def test_maps_of_fast_are_labels(tmp_path):
  with pytest.raises(UserError, match="P1_mixeltype.nii.gz is named as a label"):
    own_scans.group(sides.look(folder_of(tmp_path, "P1", "P1_mixeltype", "P2")).members, ())


@pytest.mark.parametrize("made", [
    "BiasField_P1", "u_rc1P1_Template", "smwc1P1", "s8wc1P1", "mri/p0P1", "mri/mwp1P1", "mri/iy_P1", "y_P1"])
def test_maps_of_spm_and_cat12_are_no_scans(tmp_path, made):
  """The bias field of a scan was another normal scan, and CAT12's tissues were scored."""
  root = folder_of(tmp_path, "a/P1", "a/P2", f"a/{made}")
  assert len(found(root, ("t1",))[0]) == 2
  with pytest.raises(UserError, match=f"{made}.nii.gz is named as tissues or a deformation"):
    own_scans.group(sides.look(root).members, ())


@pytest.mark.parametrize("letter", ["C", "P"])
def test_people_of_numbered_groups_are_no_tissues(tmp_path, letter):
  """C101, C201 and C301 were tissues of SPM: refused, and left out by predict."""
  root = folder_of(tmp_path, *(f"{letter}{group}{i:02}" for group in (1, 2, 3) for i in (1, 2)))
  assert len(found(root, ("t1",))[0]) == 6
  assert len(own_scans.group(sides.look(root).members, ())[0]) == 6
  assert not processed.made(root.iterdir())


def test_a_warped_t1_is_no_label_of_a_whole_tumour(tmp_path):
  root = folder_of(tmp_path, "P1/T1", "P1/wT1", "P2/T1")
  assert len(scan_folders.look(root, ("t1",), RULE).complete) == 2
  folder_of(tmp_path, "P3/T1", "P3/WT1_2")
  with pytest.raises(UserError, match="WT1_2.nii.gz: call it <scan>_seg"):
    scan_folders.look(root, ("t1",), RULE)


def test_other_sequences_beside_a_processed_one_are_not_the_model_s(tmp_path):
  """T1 with gadolinium and proton density of MSSEG were scored as FLAIR, beside FLAIR_preprocessed."""
  root = folder_of(tmp_path, *(f"P1/{name}_preprocessed" for name in ("FLAIR", "GADO", "DP", "T1")))
  scans, left_out = found(root, ("flair",))
  assert len(scans) == 1 and set(left_out) == {f"{name}_preprocessed" for name in ("GADO", "DP", "T1")}


@pytest.mark.parametrize("name, advice", [
    ("FSL/P1_n4_fseg", "call the label <scan>_seg"), ("FSL/P1_aseg", "marks no lesion: take it away"),
    ("FSL/brainmask", "marks no lesion: take it away")])
def test_labels_in_a_folder_of_their_own_are_no_scans(tmp_path, name, advice):
  """FSL_SEG of OASIS-1 was trained on as normal scans; predict left its files out."""
  root = folder_of(tmp_path / "set", "raw/P1", "raw/P2", name)
  with pytest.raises(UserError, match=f"{name}.nii.gz is named as a label, and would be a scan .*{advice}"):
    own_scans.group(sides.look(root).members, ())
  assert len(own_scans.group(sides.look(root / "FSL").members, ())[0]) == 1  # what was asked for
  people = folder_of(tmp_path / "people", "les_01", "les_02", "con_01", "core_2", "P1_wm", "GM_02")
  assert len(own_scans.group(sides.look(people).members, ())[0]) == 6


def test_masks_of_the_brain_are_not_to_be_called_labels(tmp_path):
  """The advice was to call P1_brain_mask <scan>_seg: the whole brain would have been a lesion."""
  root = folder_of(tmp_path / "a", "normal/P1", "normal/P1_brain_mask", "normal/P2")
  with pytest.raises(UserError, match="P1_brain_mask.nii.gz .*: by its name it marks no lesion"):
    own_scans.group(sides.look(root).members, ())
  root = folder_of(tmp_path / "b", "normal/P1_T1", "normal/P1_T1_brain_mask", "normal/P2_T1")
  with pytest.raises(UserError, match="P1_T1_brain_mask.nii.gz .*: by its name it marks no lesion"):
    own_scans.group(sides.look(root).members, ())


@pytest.mark.parametrize("name", ["sub-1_desc-T1lesion_mask", "P1_lesion_seg", "P1-mask-unhealthy"])
def test_masks_of_lesions_are_not_to_be_put_among_abnormal_scans(tmp_path, name):
  """The advice for ATLAS' masks was to put them into abnormal/, where each would have been a scan."""
  with pytest.raises(UserError, match=f"named as masks of abnormal ones, the first {name}.nii.gz: put them "
                     "into .*/masks, by the names of their images, these into .*/abnormal"):
    sides.look(folder_of(tmp_path, "P1_x", "P2_x", name))


@pytest.mark.parametrize("name, said", [
    ("P1/pre/FLAIR", "P1/pre/FLAIR.nii.gz lies a folder deeper: put the volumes of a scan into its folder"),
    ("P1/P1_flair_brain", "P1_flair_brain.nii.gz is there: call it P1_flair.nii.gz")])
def test_where_the_volume_lies_that_a_scan_lacks(tmp_path, name, said):
  """Of the WMH challenge (0/pre/FLAIR.nii.gz beside 0/wmh.nii.gz): no flair volume in 0, and no more."""
  looked = scan_folders.look(folder_of(tmp_path, name, "P1/wmh", "P2/P2_flair"), ("flair",), RULE)
  assert looked.incomplete["P1"].startswith(f"no flair volume in P1 ({said}")
