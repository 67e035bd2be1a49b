"""Prepared records: cached, resumed after a kill, never stale, the same for any workers."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import nibabel
import numpy as np
import pytest

from data_pipelines import dataset as datasets, machine, workers
from data_pipelines.brains import fields, prepare, records
from tests.brain_folders import SIZE, config, everything, rewrite, scan, volume_of


def mtimes(tmp_path):
  return {f.name: f.stat().st_mtime_ns for f in (tmp_path / "prepared" / "records").iterdir()}


def test_a_record_depends_on_what_changes_its_numbers():
  """And keeps the parameters of its first form, so that folders prepared then stay valid."""
  cfg = {**fields.defaults().to_dict(), "orientation": ""}
  first = prepare.parameters(cfg)
  assert first == {"version": 1, "modalities": ["flair", "t1", "t1ce", "t2"], "image_size": [128, 128],
                   "storage": "float32", "percentile": 0.99, "slice_sum": 0.5, "label": 0.5}
  of = lambda **changes: prepare.parameters({**cfg, **changes})
  changes = (dict(orientation="LPS"), dict(placement="anatomy"), dict(placement="anatomy", field_mm=160.0),
             dict(unit="median"), dict(lesion_values=(1, 4)), dict(modalities=("t1",)),
             dict(image_size=(96, 96)), dict(storage="float16"))
  seen = [first, *(of(**c) for c in changes)]
  assert not [i for i, a in enumerate(seen) for b in seen[:i] if a == b]
  assert of(field_mm=160.0, noise_std=0.1, workers=3, cache=False) == first  # of a whole slice: no field


@pytest.mark.parametrize("cache", [True, False])
def test_a_second_open_prepares_nothing_and_a_changed_scan_alone_again(source, tmp_path, cache):
  open_it = lambda: everything(datasets.open_dataset(config(source, tmp_path, cache=cache), 0))
  first = open_it()
  before = mtimes(tmp_path)
  second = open_it()
  assert mtimes(tmp_path) == before
  np.testing.assert_array_equal(first["image"], second["image"])
  changed = scan(source, 4)
  rewrite(volume_of(changed, "t1"), lambda a: np.where(a > 300, a, 0))
  third = open_it()
  after = mtimes(tmp_path)
  assert {k.split(".")[0] for k in before if before[k] != after[k]} == {changed.name}
  assert not np.array_equal(first["image"], third["image"])


def test_a_relative_folder_is_the_same_folder(source, tmp_path, monkeypatch):
  datasets.open_dataset(config(source, tmp_path), 0)
  before = mtimes(tmp_path)
  monkeypatch.chdir(tmp_path)
  datasets.open_dataset(config("scans", tmp_path), 0)
  assert mtimes(tmp_path) == before


def test_a_split_too_large_for_memory_is_read_from_its_files(source, tmp_path, monkeypatch, caplog):
  want = everything(datasets.open_dataset(config(source, tmp_path), 0))
  monkeypatch.setattr(machine, "free_memory", lambda: 1000)
  got = everything(datasets.open_dataset(config(source, tmp_path), 0))
  assert "half of the free memory" in caplog.text
  np.testing.assert_array_equal(want["image"], got["image"])
  np.testing.assert_array_equal(want["mask"], got["mask"])


def test_a_damaged_record_is_prepared_again(source, tmp_path):
  want = everything(datasets.open_dataset(config(source, tmp_path), 0))
  record = tmp_path / "prepared" / "records" / f"{scan(source, 4).name}.image.npy"
  record.write_bytes(record.read_bytes()[:-10])
  got = everything(datasets.open_dataset(config(source, tmp_path), 0))
  np.testing.assert_array_equal(want["image"], got["image"])
  assert not records.verify(tmp_path / "prepared")
  content = bytearray(record.read_bytes())
  content[-1] ^= 1
  record.write_bytes(content)
  assert records.verify(tmp_path / "prepared") == [f"records/{record.name}"]
  got = everything(datasets.open_dataset(config(source, tmp_path), 0))
  np.testing.assert_array_equal(want["image"], got["image"])
  assert not records.verify(tmp_path / "prepared")


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_a_flipped_bit_is_noticed_whatever_the_clock_says(source, tmp_path, limit, monkeypatch):
  """Small sets are read as a whole when they are opened; of large ones each file when it is first read."""
  monkeypatch.setattr(records, "CHECKED_AT_ONCE", limit)
  want = everything(datasets.open_dataset(config(source, tmp_path), 0))
  record = tmp_path / "prepared" / "records" / f"{scan(source, 4).name}.image.npy"
  content, times = bytearray(record.read_bytes()), record.stat()
  content[-1] ^= 1
  record.write_bytes(content)
  os.utime(record, ns=(times.st_atime_ns, times.st_mtime_ns))
  records._SOUND.clear()
  opened = datasets.open_dataset(config(source, tmp_path), 0)
  if limit:
    np.testing.assert_array_equal(want["image"], everything(opened)["image"])
  else:
    with pytest.raises(ValueError, match=f"{record.name} is damaged"):
      everything(opened)


def test_other_parameters_do_not_share_a_folder(source, tmp_path):
  datasets.open_dataset(config(source, tmp_path), 0)
  with pytest.raises(ValueError, match="prepared_dir.*image_size"):
    datasets.open_dataset(config(source, tmp_path, image_size=(16, 16)), 0)


def test_default_folder_depends_on_parameters_and_can_be_written(source, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  folders = set()
  for size in (SIZE, (16, 16)):
    dataset = datasets.open_dataset(config(source, tmp_path, prepared_dir="", image_size=size), 0)
    folders.add(dataset.describe()["prepared_dir"])
  assert len(folders) == 2 and all(f.startswith(str(tmp_path / "cache")) for f in folders)


def test_workers_and_storage_change_no_number(source, tmp_path):
  one = everything(datasets.open_dataset(config(source, tmp_path), 0))
  options = {"workers": 3, "cache": False, "prepared_dir": str(tmp_path / "p3")}
  three = everything(datasets.open_dataset(config(source, tmp_path, **options), 0))
  np.testing.assert_array_equal(one["image"], three["image"])
  np.testing.assert_array_equal(one["mask"], three["mask"])
  half = everything(datasets.open_dataset(
      config(source, tmp_path, storage="float16", prepared_dir=str(tmp_path / "p4")), 0))
  assert half["image"].dtype == np.float32
  np.testing.assert_allclose(one["image"], half["image"], atol=1e-3)


def test_workers_load_neither_tensorflow_nor_jax():
  code = ("import sys, data_pipelines.brains.prepare_scan as w; "
          "sys.exit(any(m in sys.modules for m in ('tensorflow', 'jax', 'flax')))")
  assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_kill_and_resume(source, tmp_path):
  """kill -9 in the middle; the next run goes on and ends with the numbers of an unbroken one."""
  for d in [d for d in source.iterdir() if d.name.startswith("BraTS")]:
    for copy in range(4):  # 30 scans
      target = source / f"{d.name}{copy}"
      shutil.copytree(d, target)
      for f in target.iterdir():
        f.rename(target / f.name.replace(d.name, target.name))
  shutil.rmtree(source / "data_splits")
  cfg = config(source, tmp_path, workers=2)
  code = f"from data_pipelines.datasets import brats; brats.build({cfg!r}, 0)"
  process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
  made = tmp_path / "prepared" / "records"
  deadline = time.time() + 60
  while len(list(made.glob("*.json"))) < 4 and time.time() < deadline:
    time.sleep(0.005)
  os.killpg(process.pid, signal.SIGKILL)
  process.wait()
  (made / ".left.image.npy.123.tmp").write_bytes(b"half a file")
  done = {f.name: f.stat().st_mtime_ns for f in made.glob("*.json")}
  assert 4 <= len(done) < 30 and not (tmp_path / "prepared" / "manifest.json").exists()
  resumed = everything(datasets.open_dataset(cfg, 0))
  after = {f.name: f.stat().st_mtime_ns for f in made.glob("*.json")}
  assert len(after) == 30 and all(after[k] == v for k, v in done.items())
  assert not list(made.glob(".*"))
  unbroken = everything(datasets.open_dataset({**cfg, "prepared_dir": str(tmp_path / "other")}, 0))
  for key in unbroken:
    np.testing.assert_array_equal(resumed[key], unbroken[key])


def test_workers_end_when_the_program_is_killed(source, tmp_path):
  worker = subprocess.Popen([sys.executable, "-m", "data_pipelines.brains.prepare_scan"],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  worker.stdin.close()
  assert worker.wait(timeout=60) == 0


def test_a_full_disk_stops_with_one_line(source, tmp_path, monkeypatch):
  def full(*unused):
    raise OSError(28, "No space left on device")
  monkeypatch.setattr(records, "write_record", full)
  with pytest.raises(OSError, match="No space left on device.*run again"):
    datasets.open_dataset(config(source, tmp_path), 0)


def test_a_worker_that_dies_names_its_scan(source, tmp_path, monkeypatch):
  real = workers.Worker.run
  victim = scan(source, 1).name
  def run(self, job):
    if job["patient"] == victim:
      job = {**job, "size": "no size"}  # makes the process end with an error
    return real(self, job)
  monkeypatch.setattr(workers.Worker, "run", run)
  datasets.open_dataset(config(source, tmp_path, workers=2), 0)
  report = json.loads((tmp_path / "prepared" / "report.json").read_text())
  assert report["prepared"] == 5 and report["scans"][0]["patient"] == victim
  assert "ended with code" in report["scans"][0]["reason"]


# ------------------------------------------------------------------------------------------ options
def test_order_of_scans_follows_the_published_code(source, tmp_path):
  for seed in (0, 5):
    dataset = datasets.open_dataset(config(source, tmp_path), seed)
    ids = sorted(s.patient for s in dataset.scans["train"])
    random.Random(seed).shuffle(ids)
    assert [s.patient for s in dataset.scans["train"]] == ids
    limited = datasets.open_dataset(config(source, tmp_path, limit_train=2), seed)
    assert [s.patient for s in limited.scans["train"]] == ids[:2]


def test_files_may_be_plain_nii(source, tmp_path):
  want = everything(datasets.open_dataset(config(source, tmp_path), 0))
  for path in source.glob("*/*.nii.gz"):
    nibabel.save(nibabel.load(path), str(path)[:-3])
    path.unlink()
  got = everything(datasets.open_dataset(
      config(source, tmp_path, prepared_dir=str(tmp_path / "p2")), 0))
  np.testing.assert_array_equal(want["image"], got["image"])
