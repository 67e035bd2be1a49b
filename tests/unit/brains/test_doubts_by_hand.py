"""What headers, lists, names and sessions say of volumes, and whose they are; none is written."""

import json
import pathlib
import types

import numpy as np
import pytest

from data_pipelines.brains import inputs, own_scans, scan_folders, volumes
from data_pipelines.errors import UserError
from data_pipelines.intake import geometry

RULE = {"pattern": "", "grouping": "patient"}


def test_of_two_files_the_one_whose_header_knows_its_place_says_it(monkeypatch):
  """The first file of the scan may have lost it: mm, and which way round, are those of the second."""
  array = np.zeros((4, 6, 5))
  array[1:3, 2:4, 1:3] = [[[7, 8], [9, 1]], [[2, 3], [4, 5.5]]]
  image = types.SimpleNamespace(header={})
  grids = {"a": geometry.Grid("a", array.shape, np.eye(4), False),
           "b": geometry.Grid("b", array.shape, np.diag([2.0, 3, 4, 1]), True)}
  other = lambda path: array + (path == "b") * (array > 0)  # the same voxels twice would be said
  monkeypatch.setattr(volumes, "_on_grid", lambda path: (other(path), grids[path], image))
  for files in ({"flair": "a", "t1": "b"}, {"t1": "b", "flair": "a"}):
    read = volumes.read(files, "LPS")
    assert read.spacing == (2, 3, 4) and read.grid.name == "b"
    np.testing.assert_array_equal(read.back(read.arrays[list(files).index("flair")]), array)


@pytest.mark.parametrize("codes, what", [
    (range(2, 25), "a statistic"), ((1002, 1003), "labels"), (range(1004, 1010), "matrices or vectors"),
    ((0, 1, 25, 1000, 1001, 1010), "")])
def test_volumes_that_hold_no_grey_values_by_their_header_are_said(caplog, codes, what):
  array = np.arange(60.0).reshape(3, 4, 5) / 7
  for code in codes:
    caplog.clear()
    image = types.SimpleNamespace(header={"intent_code": code})
    volumes._say_doubts({"flair": "a.nii"}, [array], [image])
    said = f"a.nii holds {what} by its header (intent code {code}), and is read as grey values"
    assert (said in caplog.text) == bool(what) == ("intent" in caplog.text)


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("field", ["modality", "channel_names"])
@pytest.mark.parametrize("order, refused", [(("FLAIR", "T1"), False), (("T1", "FLAIR"), True)])
def test_channels_are_in_the_order_of_the_set_s_own_list(tmp_path, above, field, order, refused):
  """dataset.json of the Decathlon and of nnU-Net, beside the scans or above their folder."""
  path = tmp_path / "imagesTr/a.nii.gz"
  path.parent.mkdir()
  place = path.parent.parent if above else path.parent
  (place / "dataset.json").write_text(json.dumps({field: {str(i): name for i, name in enumerate(order)}}))
  if refused:
    with pytest.raises(UserError, match="its channels are T1, FLAIR, and the model reads flair, t1"):
      volumes._check_declared(path, ("flair", "t1"))
  else:
    volumes._check_declared(path, ("flair", "t1"))


@pytest.mark.parametrize("pattern, wanted", [
    ("", {"s1-anna": "ID1", "s2-anna": "ID2", "x": "ID3", "y": "y"}),
    ("-([a-z]+)", {"s1-anna": "anna", "s2-anna": "anna", "x": "ID3", "y": "y"})])
def test_a_pattern_that_fits_goes_before_the_patient_s_number(pattern, wanted):
  scans = {name: scan_folders._Candidate({}, name, patient) for name, patient in (
      ("s1-anna", "ID1"), ("s2-anna", "ID2"), ("x", "ID3"), ("y", ""))}
  assert scan_folders._people(scans, {}, {**RULE, "pattern": pattern}) == wanted


def bids(root, *names):
  for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
  return root


def test_a_label_is_that_of_its_session(tmp_path):
  sessions = [f"sub-0{i}/ses-{k}/anat/sub-0{i}_ses-{k}" for i in (1, 2) for k in (1, 2)]
  root = bids(tmp_path, "dataset_description.json", *(f"{s}_FLAIR.nii.gz" for s in sessions),
              *(f"derivatives/m/{s}_label-lesion_mask.nii.gz" for s in sessions[:3]))
  found = scan_folders.look_bids(root, ("flair",), RULE)
  assert [pathlib.Path(s.seg).name.partition("_label")[0] for s in found.complete] == [
      pathlib.Path(s).name for s in sessions[:3]]
  assert len(found.incomplete) == 1 and "no label of" in next(iter(found.incomplete.values()))
  assert set(found.person.values()) == {"sub-01", "sub-02"}


@pytest.mark.parametrize("grouping, people", [("patient", 1), ("file", 2)])
def test_sessions_of_a_subject_are_one_person_unless_each_file_is(tmp_path, grouping, people):
  root = bids(tmp_path, "dataset_description.json", *(
      f"sub-01/ses-{k}/anat/sub-01_ses-{k}_FLAIR.nii.gz" for k in (1, 2)))
  found = scan_folders.look_bids(root, ("flair",), {**RULE, "grouping": grouping})
  assert len({s.group for s in found.complete}) == people and len(found.complete) == 2


@pytest.mark.parametrize("values, wanted, refused", [
    ((0, 3), (), True), ((0, 3), (1, 2), False), ((0, 2), (1, 2), True), ((0,), (), False)])
def test_marks_of_a_normal_scan_are_those_of_the_values_that_are_lesion(monkeypatch, values, wanted, refused):
  monkeypatch.setattr(own_scans.nifti, "read", lambda path: (np.array(values, np.float64), None))
  scans = [own_scans.Group("P1.nii", {}, pathlib.Path("P1_seg.nii"))]
  if refused:
    with pytest.raises(UserError, match="P1.nii is normal by its folder, and its label marks something"):
      own_scans._check_first_labels(scans, pathlib.Path("root"), wanted)
  else:
    own_scans._check_first_labels(scans, pathlib.Path("root"), wanted)


@pytest.mark.parametrize("others", [True, False])
def test_volumes_in_a_folder_of_masks_are_inputs_where_there_are_no_others(others):
  root = pathlib.Path("set")
  masks = [root / "labelsTr/a.nii.gz", root / "labelsTr/b.nii.gz"]
  found = inputs._in_folders_of_masks(masks + [root / "imagesTr/a.nii.gz"] * others, root)
  assert found == (dict.fromkeys(masks, "lies in a folder of masks") if others else {})


def test_pictures_beside_volumes_are_scans_as_a_whole_set_of_another_name_alone():
  place = pathlib.Path("p")
  group = lambda prefix, ending, names: (place / f"{prefix}_{names[0]}.{ending}", prefix, {
      m: place / f"{prefix}_{m}.{ending}" for m in names})
  both = ("flair", "t1")
  groups = [group("a", "nii.gz", both), group("a", "png", both), group("b", "png", both),
            group("c", "png", ("t1",))]
  said = inputs._beside(groups, both, False)
  assert {p.name for p in said} == {"a_flair.png", "a_t1.png", "c_t1.png"}
  assert inputs._beside(groups[1:], both, False) == {}, "no volume is there"


def test_one_of_two_files_of_a_modality_is_a_scan_where_it_is_given_alone(tmp_path):
  """As the line about the two says; both together are none."""
  names = [f"sub-01/anat/sub-01_{kind}FLAIR.nii.gz" for kind in ("", "desc-brain_")]
  root = bids(tmp_path, "dataset_description.json", *names)
  scans, found = inputs.find_all(root, ("flair",), ("nifti",))
  assert scans == [] and {i.path.name for i in found.left_out} >= {pathlib.Path(n).name for n in names}
  for name in names:
    scan, = inputs.find_all(root / name, ("flair",), ("nifti",))[0]
    assert scan.files == {"flair": root / name}
