"""Which split a scan goes to, what a table may name, and what a set keeps in memory; by hand."""

import os

import numpy as np
import pytest

from data_pipelines.brains import files, normalise, placement, slices
from tests.unit.brains.test_jobs import asked  # noqa: F401 - a fixture
from tests.unit.brains.test_records import Filed


def table_of(root, rows, columns="patient,flair,seg"):
  (root / "manifest.csv").write_text("\n".join([columns, *rows]) + "\n")
  return root


def listed(folder, **lists):
  for split, ids in lists.items():
    (folder / split).mkdir(parents=True)
    (folder / split / "scans.csv").write_text("\n".join(ids) + "\n")


def test_a_scan_that_lacks_a_volume_leaves_the_splits_of_the_others_as_they_are(tmp_path):
  """The published rule counts all scans that are listed: a copy that is wanting moves nobody."""
  rows = [f"P{i:02},f{i:02}.nii," for i in range(40)]
  for i in range(40):
    (tmp_path / f"f{i:02}.nii").touch()
  split_of = lambda rows: {s.patient: s.split for s in files.find_scans(
      table_of(tmp_path, rows), ("flair",)).scans}
  whole = split_of(rows)
  assert [list(whole.values()).count(s) for s in ("train", "val", "test")] == [30, 2, 8]
  for i in (0, 17, 39):
    part = split_of([*rows[:i], f"P{i:02},,", *rows[i + 1:]])
    assert part == {k: v for k, v in whole.items() if k != f"P{i:02}"}


@pytest.mark.parametrize("inner", [True, False])
def test_lists_in_data_splits_go_before_those_beside_the_scans(tmp_path, inner):
  listed(tmp_path, train=["a"], val=["b"], test=["c"])
  if inner:
    listed(tmp_path / "data_splits", train=["b"], val=["c"], test=["a"])
  lists, rule = files._split_lists(["a", "b", "c"], tmp_path)
  assert lists == ({"train": ["b"], "val": ["c"], "test": ["a"]} if inner else
                   {"train": ["a"], "val": ["b"], "test": ["c"]})
  assert rule == f"files {'data_splits' if inner else tmp_path.name}/*/scans.csv"


@pytest.mark.parametrize("count, few", [(19, True), (20, False)])
def test_a_rule_that_leaves_no_scan_for_val_is_said(tmp_path, caplog, count, few):
  for i in range(count):
    (tmp_path / f"f{i}.nii").touch()
  files.find_scans(table_of(tmp_path, [f"P{i},f{i}.nii," for i in range(count)]), ("flair",))
  assert (f"{count} scans are too few for a val split" in caplog.text) == few


def test_a_row_with_a_label_of_another_scan_is_no_sorted_column_by_itself(tmp_path, caplog):
  """Two scans exchanged are said; c has no other row in which its name could have come to lie."""
  files.find_scans(table_of(tmp_path, ["a,a_flair.nii,b_seg.nii", "c,c_flair.nii,a_seg.nii"]), ("flair",))
  assert "several scans" not in caplog.text


@pytest.mark.parametrize("dicom", [True, False])
def test_a_label_of_a_table_is_a_volume_and_no_series(tmp_path, monkeypatch, dicom):
  (tmp_path / "f.nii").touch()
  label = tmp_path / ("seg/1.dcm" if dicom else "seg/1.nii")
  label.parent.mkdir()
  label.write_bytes(bytes(128) + b"DICM" if dicom else b"")
  monkeypatch.setattr(files.series, "of_cell", lambda path, _: [path] if path.suffix == ".dcm" else [])
  found = files.find_scans(table_of(tmp_path, [f"P1,f.nii,seg/{label.name}"]), ("flair",))
  assert found.incomplete == ({"P1": f"{label} is DICOM: a label is a NIfTI volume"} if dicom else {})
  assert [s.seg for s in found.scans] == ([] if dicom else [str(label)])


def test_half_a_pixel_of_label_is_no_lesion():
  """Published: above 0.5, in the stored label and again after the resize."""
  soft = np.zeros((2, 3, 4, 1))
  soft[0, 1, 2], soft[1, 0, 0] = 0.5, 0.5 + 1e-9
  prepared = normalise.Prepared(np.ones((2, 3, 4, 1)), soft, np.arange(2), np.ones(1), np.ones(2),
                                placement.of_scan((3, 4), (3, 4)))
  assert prepared.mask.sum((1, 2, 3)).tolist() == [0, 1] and prepared.healthy.tolist() == [True, False]


def test_what_a_killed_preparation_had_half_written_goes(asked, tmp_path):  # noqa: F811
  half = [tmp_path / "p/.manifest.json.7.tmp", tmp_path / "p/records/.p0.image.npy.7.tmp"]
  kept = [tmp_path / "p/records/p0.image.npy", tmp_path / "p/records/.other"]
  os.makedirs(tmp_path / "p/records")
  for path in (*half, *kept):
    path.write_bytes(b"half")
  asked[0]()
  assert not any(p.exists() for p in half) and all(p.exists() for p in kept)


@pytest.mark.parametrize("with_truth", [True, False])
@pytest.mark.parametrize("kind, size", [(np.float16, 2), (np.float32, 4)])
def test_slices_are_kept_in_memory_up_to_half_of_what_is_free(monkeypatch, with_truth, kind, size):
  """Two slices of 4x6 pixels and 3 channels, and their masks of a byte a pixel where truth is asked for."""
  scan = slices.Scan("a", Filed(np.ones((2, 4, 6, 3), kind)), Filed(np.zeros((2, 4, 6, 1), np.uint8)),
                     np.arange(2), np.zeros(2, int))
  need = 2 * 4 * 6 * (3 * size + with_truth)
  for free, kept in ((2 * need, True), (2 * need - 1, False)):
    monkeypatch.setattr(slices.machine, "free_memory", lambda free=free: free)
    source = slices.SliceSource([scan], False, with_truth, cache=True)
    assert (source._cached is not None) == kept
    assert source.read([1])["image"].dtype == np.float32


def test_numbers_of_a_set_are_sums_over_its_scans():
  """Of three scans, of which nobody has marked the last one."""
  def scan(name, lesion, **more):
    n = len(lesion)
    return slices.Scan(name, np.zeros((n, 4, 6, 2), np.float32), np.zeros((n, 4, 6, 1), np.uint8),
                       np.arange(n), np.array(lesion), **more)
  data = slices.SliceDataSet("x", False, {"train": [scan("a", [0, 7, 2]), scan("b", [0, 0])],
                                          "test": [scan("c", [0, 0], unlabelled=True)]}, {"more": 1})
  found = data.describe()
  assert found["image_shape"] == [4, 6, 2] and found["more"] == 1
  assert found["splits"] == {
      "train": {"patients": 2, "slices": 5, "healthy_slices": 3, "lesion_slices": 2, "lesion_pixels": 9},
      "test": {"patients": 1, "slices": 2, "healthy_slices": 0, "lesion_slices": 2, "lesion_pixels": 0}}
