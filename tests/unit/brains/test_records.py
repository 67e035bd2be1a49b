"""What makes a record stale or damaged, on files of a few bytes; slices of files as those in memory."""

import dataclasses
import hashlib
import os

import numpy as np
import pytest

from data_pipelines.brains import records, slices


@pytest.fixture(name="one")
def a_record(tmp_path):
  """(folder, the file of a record, the record)."""
  (tmp_path / "records").mkdir()
  file = tmp_path / "records" / "p.image.npy"
  file.write_bytes(b"good")
  (tmp_path / "records" / "p.json").write_text("{}")
  digest = hashlib.sha256(b"good").hexdigest()
  return tmp_path, file, {"patient": "p", "files": {"image": {
      "file": "records/p.image.npy", "bytes": 4, "sha256": digest}}}


def spoil(file, content, later=0):
  """Other bytes of the same length, and a time of its own."""
  written = file.with_name("p.json").stat().st_mtime_ns
  file.write_bytes(content)
  os.utime(file, ns=(written, written + later))


@pytest.mark.parametrize("later", [0, 10**9])
def test_a_small_set_is_compared_at_every_opening(one, later):
  folder, file, record = one
  spoil(file, b"good", later)
  assert records.damaged(folder, [record]) == set()
  spoil(file, b"evil", later)  # as before by its size and its time
  assert records.damaged(folder, [record]) == {"p"}
  file.unlink()
  assert records.damaged(folder, [record]) == {"p"}


@pytest.mark.parametrize("later, found", [(-10**9, set()), (10**9, {"p"})])
def test_of_a_large_set_files_that_were_changed_after_their_record_are(one, monkeypatch, later, found):
  folder, file, record = one
  monkeypatch.setattr(records, "CHECKED_AT_ONCE", 0)
  spoil(file, b"evil", later)
  assert records.damaged(folder, [record]) == found


def test_a_series_is_stale_when_any_of_its_files_is(tmp_path):
  files = [tmp_path / f"IM{i}" for i in range(3)]
  for i, file in enumerate(files):
    file.write_bytes(bytes(i + 1))
    os.utime(file, ns=(10**9, 10**9))
  first = records.stamp([tuple(files), None])
  assert first[0][:2] == [str(files[0]), 6] and len(first) == 1
  assert records.stamp([tuple(files), files[1]])[1] == [str(files[1]), 2, 10**9]
  os.utime(files[2], ns=(10**9, 10**9 + 1))
  assert records.stamp([tuple(files)]) != first


def test_names_of_files_are_plain_and_no_two_alike():
  names = ["BraTS2021_00001", "case/1", "case:1", "../x", "é", "a" * 150, "a" * 151, ".hidden", "-x", "P 01"]
  stems = [records.stem(n) for n in names]
  assert len(set(stems)) == len(names) and stems[0] == names[0]
  assert all(s == os.path.basename(s) and s[0] not in "._" and len(s) < 120 for s in stems)


class Filed:
  """An array that is read from elsewhere, as that of a record."""

  def __init__(self, array):
    self._array, self.shape, self.dtype = array, array.shape, array.dtype

  def __getitem__(self, index):
    return np.array(self._array[index])


def test_what_is_known_of_a_slice_and_nothing_else():
  scan = slices.Scan("P1", np.zeros((2, 3, 3, 1), np.float32), np.zeros((2, 3, 3, 1), np.uint8),
                     np.array([40, 44]), np.array([0, 1]), "f")
  bare = {"id": "P1/44", "patient": "P1", "slice": 44, "path": "f"}
  assert slices.SliceSource([scan], False, True).meta(1) == bare
  for known in ({"scan_label": 0}, {"scan_label": 1}, {"spacing": (1.0, 2.0, 3.0)},
                {"voxel_mm": (3.0, 4.0, 5.0)}):
    source = slices.SliceSource([dataclasses.replace(scan, **known)], False, True)
    assert source.meta(1) == {**bare, **known}


@pytest.mark.parametrize("healthy_only", [False, True])
@pytest.mark.parametrize("with_truth", [False, True])
def test_slices_kept_in_memory_are_those_of_the_files(healthy_only, with_truth):
  rng = np.random.default_rng(0)
  scans = []
  for name, lesion in (("a", [3, 0, 0, 2]), ("b", [1, 1, 0]), ("c", [2])):
    image = rng.random((len(lesion), 4, 6, 2)).astype(np.float16)
    mask = np.zeros((len(lesion), 4, 6, 1), np.uint8)
    for i, k in enumerate(lesion):
      mask[i].reshape(-1)[:k] = 1
    scans.append(slices.Scan(name, Filed(image), Filed(mask), np.arange(len(lesion)), np.array(lesion)))
  kept, read = (slices.SliceSource(scans, healthy_only, with_truth, cache=c) for c in (True, False))
  assert len(kept) == (3 if healthy_only else 8) and kept._cached and not read._cached
  order = np.random.default_rng(1).permutation(len(kept))
  for key, value in read.read(order).items():
    np.testing.assert_array_equal(kept.read(order)[key], value, err_msg=key)
  wanted = [(s, i) for s in scans for i in np.flatnonzero(s.lesion_px == 0) if healthy_only] or [
      (s, i) for s in scans for i in range(len(s.slices))]
  for row, k in enumerate(order):
    scan, i = wanted[k]
    np.testing.assert_array_equal(kept.read(order)["image"][row], scan.image[i])
    if with_truth:
      assert kept.read(order)["mask"][row].sum() == scan.lesion_px[i]
