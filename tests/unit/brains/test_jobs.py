"""What the preparation of a scan is asked to do: all that changes its numbers; by hand."""

import fcntl

import numpy as np
import pytest

from data_pipelines.brains import fields, files, normalise, placement, prepare, prepare_scan, records, volumes
from data_pipelines.brains.scan_folders import ScanFiles
from data_pipelines.errors import UserError
from data_pipelines.intake import geometry

CHANGED = {"orientation": "RAS", "placement": "anatomy", "field_mm": 160.0, "unit": "median",
           "lesion_values": (2, 4)}


@pytest.fixture
def asked(tmp_path, monkeypatch):
  """(cfg -> jobs): of a set of four scans with labels, none of which can be prepared."""
  paths = {}
  for name in ("flair", "t1", "seg"):
    paths[name] = str(tmp_path / f"{name}.nii.gz")
    (tmp_path / f"{name}.nii.gz").write_bytes(name.encode())
  scans = [ScanFiles(f"p{i}", split, (paths["flair"], paths["t1"]), paths["seg"], f"p{i}")
           for i, split in enumerate(("train", "train", "val", "train"))]
  scans.append(ScanFiles("p4", "test", (paths["flair"], paths["t1"]), paths["seg"], "p4"))
  seen, counts = [], []

  def results(jobs, count):
    counts.append(count)
    seen.extend(jobs)
    return [(job, {"bad": "no scan"}) for job in jobs]
  monkeypatch.setattr(prepare, "_results", results)

  def go(**changes):
    seen.clear()
    cfg = {**fields.defaults().to_dict(), "modalities": ("flair", "t1"), "prepared_dir": str(tmp_path / "p"),
           "dir": str(tmp_path), **changes}
    with pytest.raises(UserError, match="none of the"):
      prepare.prepare_set(cfg, files.Found(scans, {}, "column"))
    return cfg, list(seen)
  return go, counts, paths


def test_a_scan_is_prepared_as_the_config_says(asked):
  go, counts, paths = asked
  cfg, jobs = go(**CHANGED, image_size=(40, 30), storage="float16", workers=3)
  assert [job["patient"] for job in jobs] == ["p0", "p1", "p2", "p3", "p4"] and counts == [3]
  for job in jobs:
    assert {k: job[k] for k in (*CHANGED, "storage", "modalities")} == {k: cfg[k] for k in (
        *CHANGED, "storage", "modalities")}
    assert tuple(job["size"]) == (40, 30) and job["folder"] == cfg["prepared_dir"]
    assert job["key"] == {"parameters": prepare.parameters(cfg),
                          "source": records.stamp([paths["flair"], paths["t1"], paths["seg"]])}


def test_of_folds_the_scans_of_test_are_not_read_and_the_others_change_places(asked):
  go, _, _ = asked
  assert [job["patient"] for job in go(folds=4, fold=1)[1]] == ["p0", "p1", "p2", "p3"]


def test_a_record_says_what_it_is_of_and_a_file_of_another_length_is_none(tmp_path):
  (tmp_path / "records").mkdir()
  soft = np.zeros((3, 4, 6, 1))
  soft[1, :2, :3], soft[2, 0, 0] = 1, 1
  where = placement.of_scan((8, 18), (4, 6))  # of 1 mm rows and 0.5 mm columns
  prepared = normalise.Prepared(np.ones((3, 4, 6, 2)), soft, np.arange(5, 8), np.array([2.0, 3.0]),
                                np.zeros(9), where, "slices 9 hold anatomy")
  key = {"parameters": {"a": 1}, "source": [["x", 1, 2]]}
  made = records.write_record(tmp_path, "p", prepared, "float16", key, (1.0, 0.5, 4.0))
  assert (made["slices"], made["lesion_px"], made["scale"]) == ([5, 6, 7], [0, 6, 1], [2, 3])
  assert made["spacing"] == [1, 0.5, 4] and made["voxel_mm"] == [4, 2, 1.5]
  assert made["warning"] == prepared.left_out
  assert records.write_record(tmp_path, "q", prepared, "float16", key)["voxel_mm"] == []
  assert records.read_record(tmp_path, "p", key) == made
  scan = records.scan_of(tmp_path, made)
  assert scan.spacing == (1, 0.5, 4) and scan.voxel_mm == (4, 2, 1.5)
  for other in ({"parameters": {"a": 2}}, {"source": [["x", 1, 3]]}):
    assert records.read_record(tmp_path, "p", {**key, **other}) is None
  (tmp_path / "records/p.mask.npy").write_bytes(b"half")
  assert records.read_record(tmp_path, "p", key) is None


def test_a_scan_whose_file_went_is_named_and_the_others_are_prepared(tmp_path, monkeypatch):
  there = tmp_path / "a_flair.nii"
  there.write_bytes(b"x")
  (tmp_path / "records").mkdir()
  scans = [ScanFiles("a", "train", (str(there),), None, "a"),
           ScanFiles("b", "test", (str(there), str(tmp_path / "gone.nii")), None, "b")]
  asked = []
  monkeypatch.setattr(prepare, "_results", lambda jobs, count: asked.extend(jobs) or [
      (job, {"record": {"patient": job["patient"]}}) for job in jobs])
  cfg = {**fields.defaults().to_dict(), "dir": "nowhere"}
  done, bad = prepare._prepare_missing(files.Found(scans, {}, "column"), cfg, tmp_path)
  assert bad == {"b": "gone.nii does not exist"} and list(done) == ["a"]
  assert [job["patient"] for job in asked] == ["a"]


def test_the_manifest_counts_slices_without_a_single_lesion_pixel():
  scans = [ScanFiles(name, split, ("f",), None, name) for name, split in (("a", "train"), ("b", "test"))]
  done = {s.patient: {"patient": s.patient, "slices": [3, 4, 5], "lesion_px": px, "files": {}}
          for s, px in zip(scans, ([0, 1, 7], [0, 0, 2]))}
  found = prepare._manifest(files.Found(scans, {}, "column"), done, {},
                            {**fields.defaults().to_dict(), "dir": "nowhere"})
  assert found["healthy_slices"] == {"a": [3], "b": [3, 4]} and found["splits"]["test"] == ["b"]
  assert found["counts"]["train"] == {"patients": 1, "slices": 3, "healthy_slices": 1, "lesion_slices": 2}
  assert found["counts"]["test"]["lesion_slices"] == 1 and found["counts"]["val"]["slices"] == 0


@pytest.mark.parametrize("offset", [-1024, 300])
def test_a_constant_background_is_taken_off(offset):
  """Air of CT, a stored offset: it is what all eight corners have, and nothing lies below it."""
  volume = np.zeros((8, 9, 5))
  volume[2:6, 2:7, 1:4] = np.random.default_rng(0).uniform(50, 200, (4, 5, 3))
  plain, moved = (normalise.prepare([volume + o], None, (8, 9)) for o in (0, offset))
  np.testing.assert_allclose(moved.image, plain.image, atol=1e-9)
  volume[0, 0, 0] = 1  # one corner differs: no background that is known
  assert normalise._on_zero(volume + 1, 0).min() == 1


def test_few_negative_voxels_are_ringing_and_more_of_them_no_intensities():
  """Counted among the voxels that are not 0: a large background hides none of them."""
  volume = np.zeros((20, 20, 5))
  volume[4:14, 4:14, 2] = 100
  for count, refused in ((5, False), (6, True)):
    volume[4, 4:4 + count, 2] = -1
    if refused:
      with pytest.raises(normalise.BadScan, match="negative values in 6%"):
        normalise._on_zero(volume, 0)
    else:
      assert normalise._on_zero(volume, 0) is volume


@pytest.mark.parametrize("known", [True, False])
def test_a_record_knows_mm_where_a_header_says_them(tmp_path, monkeypatch, known):
  volume = np.zeros((8, 9, 5))
  volume[2:6, 2:7, 1:4] = 100
  grid = geometry.Grid("x", volume.shape, np.diag([2.0, 3, 4, 1]), known)
  read = volumes.Volumes([volume], None, (2.0, 3.0, 4.0), grid, None, None)
  monkeypatch.setattr(prepare_scan.volumes, "read", lambda *_: read)
  (tmp_path / "records").mkdir()
  job = {"patient": "p", "volumes": ["x"], "seg": None, "modalities": ["flair"], "size": (8, 9),
         "storage": "float32", "folder": str(tmp_path), "key": {}, "orientation": "", "placement": "scan",
         "field_mm": 192.0, "unit": "percentile", "lesion_values": ()}
  assert prepare_scan.run(job)["record"]["spacing"] == ([2, 3, 4] if known else [])


def test_scans_are_prepared_under_the_lock_of_their_folder(asked, tmp_path, monkeypatch):
  """Two processes would write one file at a time."""
  free = []
  def look(jobs, count):
    with open(tmp_path / "p/.lock", "w") as file:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free.append(True)
      except BlockingIOError:
        free.append(False)
    return [(job, {"bad": "no scan"}) for job in jobs]
  monkeypatch.setattr(prepare, "_results", look)
  asked[0]()
  assert free == [False]


def test_a_scan_that_goes_while_it_is_prepared_is_left_out(tmp_path):
  """It was there when the set was listed."""
  job = {"patient": "a", "volumes": [str(tmp_path / "gone.nii")], "seg": None, "modalities": ("flair",),
         "orientation": ""}
  assert "gone.nii" in prepare_scan.run(job)["bad"]
