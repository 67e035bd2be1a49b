"""Layouts in which public sets come: read as their names say, or refused with what to do."""

import pathlib

import pytest

from data_pipelines.brains import own_scans, scan_folders
from data_pipelines.errors import UserError
from data_pipelines.intake import folder_words, sides
from tests.unit.intake.test_sequence_names import RULE, folder_of, found
from tests.unit.intake.test_sides import image, opened


def test_labels_in_folders_of_the_decathlon_are_no_scans(tmp_path):
  """labelsTr/ was scored as FLAIR and trained on as normal, and imagesTr/ was one patient."""
  folder_of(tmp_path, "imagesTr/BRATS_001", "imagesTr/BRATS_002", "labelsTr/BRATS_001", "Masks/Consensus")
  scans, left_out = found(tmp_path, ("flair",))
  assert list(scans) == ["BRATS_001", "BRATS_002"]
  assert set(left_out.values()) == {"lies in a folder of masks"}
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
  assert [pathlib.Path(p).name for p in scan.volumes] == ["3DFLAIR.nii.gz", "AXT1PRE.nii.gz", "AXT1POST.nii.gz"]


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
  words = ({"0"}, {"1", "2", "3"})
  folder_words.check_numbers([tmp_path / "0" / "a.png", tmp_path / "2" / "a.png"], tmp_path, words)
