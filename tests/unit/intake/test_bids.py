"""Scans of a BIDS data set by their names and places alone: nothing of the files is read."""

import pytest

from data_pipelines.intake import bids, find


def data_set(root, *names, description=True):
  for name in names:
    (root / f"{name}.nii.gz").parent.mkdir(parents=True, exist_ok=True)
    (root / f"{name}.nii.gz").touch()
  if description:
    (root / bids.DESCRIPTION).write_text("{}")
  return root


def scans(root, modalities, any_suffix=False):
  """({name: {modality: file}}, {file: why it is none}, broken files), all by their names."""
  found, short = find.find(root, ("nifti",)), lambda path: path.name[:-7]
  found.left_out = []
  listed = {title: {m: short(p) for m, p in files.items()}
            for title, files in bids.scans(found, root, modalities, any_suffix)}
  return listed, {short(i.path): i.reason for i in found.left_out}, [short(i.path) for i in found.broken]


@pytest.mark.parametrize("name, parsed", [
    ("sub-01_ses-b_run-2_T1w.nii.gz", ({"sub": "01", "ses": "b", "run": "2"}, "T1w")),
    ("sub-01_acq-a_acq-b_T1w.nii", ({}, "")), ("ses-1_sub-01_T1w.nii", ({}, "")), ("T1w.nii", ({}, "")),
    ("sub-01_T1-w.nii", ({}, "")), ("sub-01_x_T1w.nii", ({}, ""))])
def test_entities_of_a_name(name, parsed):
  assert bids.parse(name) == parsed
  assert not parsed[1] or bids.name(parsed[0]) == "sub-01_ses-b_run-2"


@pytest.mark.parametrize("content, told", [
    (b'{"Name": "raw"}', {"Name": "raw"}), (b"", {}), (b"{", {}), (b"\xff\xfe{}", {}), (b"[1]", {}),
    (None, {})])
def test_a_description_that_cannot_be_read_says_nothing(tmp_path, content, told):
  if content is not None:
    (tmp_path / bids.DESCRIPTION).write_bytes(content)
  assert bids.describe(tmp_path) == told
  assert bids.describe(tmp_path / "none") == {}


def test_files_of_a_session_are_a_scan_and_what_lies_elsewhere_is_none(tmp_path):
  root = data_set(tmp_path, "sub-1/anat/sub-1_T1w", "sub-1/anat/sub-1_ce-gd_T1w", "sub-1/anat/sub-1_T2w",
                  *(f"sub-2/ses-{s}/anat/sub-2_ses-{s}_desc-x_{k}" for s in "ab" for k in ("T1w", "T2w")),
                  "sub-3/anat/sub-4_T1w", "derivatives/sub-5/anat/sub-5_T1w", "sub-6/func/sub-6_T1w")
  listed, reasons, broken = scans(root, ("t1", "t2"))
  assert listed == {"sub-1": {"t1": "sub-1_T1w", "t2": "sub-1_T2w"},
                    **{f"sub-2_ses-{s}": {f"t{k}": f"sub-2_ses-{s}_desc-x_T{k}w" for k in (1, 2)}
                       for s in "ab"}}
  assert set(reasons) == {"sub-1_ce-gd_T1w", "sub-4_T1w", "sub-5_T1w", "sub-6_T1w"} and not broken
  assert scans(root, ("t1ce",))[0] == {"sub-1": {"t1ce": "sub-1_ce-gd_T1w"}}


def test_a_scan_is_called_by_its_first_modality_and_twins_are_none(tmp_path):
  root = data_set(tmp_path, "sub-1/anat/sub-1_acq-z_T1w", "sub-1/anat/sub-1_run-1_FLAIR",
                  "sub-2/anat/sub-2_acq-a_T1w", "sub-2/anat/sub-2_acq-a_desc-b_T1w", "sub-3/anat/sub-3_PDw",
                  "sub-4/anat/sub-4_ce-gd_PDw")
  assert list(scans(root, ("t1", "flair"))[0]) == ["sub-1_acq-z"]
  listed, _, broken = scans(root, ("flair", "t1"))
  assert list(listed) == ["sub-1_run-1"] and broken == ["sub-2_acq-a_T1w", "sub-2_acq-a_desc-b_T1w"]
  assert list(scans(root, ("PDw",))[0]) == ["sub-3", "sub-4"]  # of other sequences nobody says more


def test_where_any_sequence_will_do_each_volume_is_a_scan_but_for_labels(tmp_path):
  root = data_set(tmp_path, *(f"sub-1/anat/sub-1_{k}" for k in (
      "T1w", "acq-a_bold", "desc-brain_mask", "dseg")))
  listed, reasons, _ = scans(root, ("image",), True)
  assert listed == {f"sub-1_{k}": {"image": f"sub-1_{k}"} for k in ("acq-a_bold", "T1w")}
  assert set(reasons) == {"sub-1_desc-brain_mask", "sub-1_dseg"}


def test_the_data_set_of_a_part_of_it(tmp_path):
  root = data_set(tmp_path / "set", "sub-1/ses-a/anat/sub-1_ses-a_T1w", "sub-1/other/x")
  inside = root / "sub-1/ses-a/anat"
  parts = (root, root / "sub-1", inside, inside / "sub-1_ses-a_T1w.nii.gz")
  assert {bids.root_of(p) for p in parts} == {root}
  assert bids.root_of(root / "sub-1/other") is None and bids.root_of(tmp_path) is None
  assert bids.root_of(data_set(tmp_path / "no", "P1/x")) is None
  assert bids.root_of(data_set(tmp_path / "none", "sub-1/anat/x", description=False)) is None


@pytest.mark.parametrize("part, shown", [("", True), ("_part-mag", True), ("_part-phase", False),
                                         ("_part-real", False), ("_part-imag", False)])
def test_the_magnitude_alone_is_a_picture(part, shown):
  assert bids.modality_of(f"sub-1{part}_T1w.nii.gz", ("t1",)) == ("t1" if shown else "")
