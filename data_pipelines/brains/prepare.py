"""Prepares a folder of scans once: parallel, resumable, every bad scan named with its reason."""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import pathlib
import queue
import subprocess
import sys
import time

from data_pipelines.brains import files, normalise, prepare_scan, records
from data_pipelines.brains.slices import free_memory
from data_pipelines.errors import UserError

SYNTHETIC_MARK = "SYNTHETIC.txt"  # lies in folders that synthetic.write_nifti wrote
_VERSION = 1  # of the preparation itself: raise it when its numbers change


def parameters(cfg: dict) -> dict:
  """What a record depends on besides its source files."""
  return {"version": _VERSION, "modalities": list(cfg["modalities"]),
          "image_size": list(cfg["image_size"]), "storage": cfg["storage"],
          "percentile": normalise.PERCENTILE, "slice_sum": normalise.SLICE_SUM, "label": normalise.LABEL}


def default_folder(cfg: dict) -> pathlib.Path:
  """$XDG_CACHE_HOME or ~/.cache, medae_jax/<source>_<hash of source and parameters>.

  Not beside the source, which is often read-only.
  """
  source = pathlib.Path(cfg["dir"]).expanduser().resolve()
  text = json.dumps([str(source), parameters(cfg)], sort_keys=True)
  base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
  return base / "medae_jax" / f"{source.name}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def prepare_set(cfg: dict) -> tuple[pathlib.Path, dict]:
  """Prepares what is missing or stale of `cfg["dir"]`.

  Args:
    cfg: resolved fields of brain_fields.defaults().

  Returns:
    (folder of the prepared set, content of its manifest.json).

  Raises:
    FileNotFoundError, ValueError: see scan_files.find_scans; every scan bad; one scan bad with
      `strict`; the folder holds a set of other parameters. OSError: it cannot be written.
  """
  found = files.find_scans(cfg["dir"], cfg["modalities"])
  folder = pathlib.Path(cfg["prepared_dir"]).expanduser() if cfg["prepared_dir"] else (
      default_folder(cfg))
  try:
    (folder / "records").mkdir(parents=True, exist_ok=True)
  except OSError as e:
    raise OSError(f"cannot make the folder for prepared scans {folder} ({e.strerror}); set "
                  "config.data.prepared_dir to one that can be written") from e
  with _locked(folder):
    _check_parameters(folder, cfg)
    for left in (folder / "records").glob(".*.tmp"):
      left.unlink()  # of a run that was killed: the lock says that nobody else writes here
    done, bad = _prepare_missing(found, cfg, folder)
    bad = {**found.incomplete, **bad}
    manifest = _manifest(found, done, bad, cfg)
    records.write_json(folder / "report.json", {
        "source": str(cfg["dir"]), "prepared": len(done), "left_out": len(bad),
        "scans": [{"patient": p, "reason": r} for p, r in sorted(bad.items())]})
    records.write_json(folder / "manifest.json", manifest)
  _say(bad, done, cfg, folder)
  return folder, manifest


def _check_parameters(folder, cfg):
  """A folder belongs to one set of parameters: two configs must not overwrite each other's."""
  try:
    old = json.loads((folder / "manifest.json").read_text())["parameters"]
  except (OSError, ValueError, KeyError):
    return
  new = parameters(cfg)
  changed = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
  if changed:
    raise UserError(f"config.data.prepared_dir={str(folder)!r} holds a set prepared with another "
                     + ", ".join(f"{k} ({old.get(k)}, now {new.get(k)})" for k in changed)
                     + "; choose another folder")


def _prepare_missing(found, cfg, folder):
  """({patient: record}, {patient: reason}) after preparing every scan without a valid record."""
  jobs, done, bad = [], {}, {}
  for scan in found.scans:
    try:
      key = {"parameters": parameters(cfg), "source": records.stamp([*scan.volumes, scan.seg])}
    except OSError as e:
      bad[scan.patient] = f"{pathlib.Path(e.filename).name} does not exist"
      continue
    record = records.read_record(folder, scan.patient, key)
    if record:
      done[scan.patient] = record
      continue
    jobs.append({"patient": scan.patient, "volumes": scan.volumes, "seg": scan.seg,
                 "modalities": cfg["modalities"], "size": cfg["image_size"],
                 "storage": cfg["storage"], "folder": str(folder), "key": key})
  if jobs:
    logging.info("preparing %d of %d scans of %s into %s", len(jobs), len(found.scans), cfg["dir"],
                 folder)
    progress = _Progress(len(jobs))
    for result in _run(jobs, int(cfg["workers"]) or default_workers()):
      if "fatal" in result:
        raise OSError(f"preparation stopped at scan {result['patient']}: {result['fatal']}; what "
                      "is prepared is kept, run again to go on")
      if "bad" in result:
        bad[result["patient"]] = result["bad"]
      else:
        done[result["patient"]] = result["record"]
      progress.step(len(bad))
    progress.close()
  return done, bad


def default_workers() -> int:
  """One process a core, as far as memory lasts: a BraTS scan takes about 1.1 GB while it is read."""
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
  return max(1, min(cores, int(free_memory() / 1.5e9)))


def _run(jobs, workers):
  """Results in the order they finish, from `workers` processes (1 = this one)."""
  workers = min(workers, len(jobs))
  if workers == 1:
    yield from map(prepare_scan.run, jobs)
    return
  idle = queue.SimpleQueue()
  for _ in range(workers):
    idle.put(_Worker())
  def run(job):
    worker = idle.get()
    try:
      return worker.run(job)
    finally:
      idle.put(worker)
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    futures = [pool.submit(run, job) for job in jobs]
    try:
      for future in concurrent.futures.as_completed(futures):
        yield future.result()
    finally:
      for future in futures:
        future.cancel()
      pool.shutdown()
      while not idle.empty():
        idle.get().close()


class _Worker:
  """A prepare_worker process; started again if it dies."""

  def __init__(self):
    self.process = None

  def run(self, job) -> dict:
    if self.process is None:
      root = str(pathlib.Path(__file__).resolve().parents[len(__package__.split("."))])
      env = {**os.environ, "PYTHONPATH": os.pathsep.join(
          [root, *filter(None, [os.environ.get("PYTHONPATH")])]),
             # Processes run side by side: threads inside each would only get in the way.
             "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
      self.process = subprocess.Popen(
          [sys.executable, "-m", f"{__package__}.prepare_scan"], env=env, text=True,
          stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
      self.process.stdin.write(json.dumps(job) + "\n")
      self.process.stdin.flush()
      line = self.process.stdout.readline()
    except OSError:
      line = ""
    if line.endswith("\n"):
      return json.loads(line)
    code = self.process.wait()
    self.close()
    return {"patient": job["patient"],
            "bad": f"the process that read it ended with code {code} (out of memory?)"}

  def close(self):
    if self.process is not None:
      with contextlib.suppress(OSError):
        self.process.stdin.close()
      self.process.stdout.close()
      self.process.wait()
      self.process = None


class _Progress:
  """"prepared 12/68 ... ETA" on one line of a terminal, else a log line now and then."""

  def __init__(self, total):
    self.total, self.done, self.start, self.said = total, 0, time.time(), time.time()

  def step(self, bad):
    self.done += 1
    rate = self.done / max(time.time() - self.start, 1e-6)
    left = (self.total - self.done) / rate
    line = (f"prepared {self.done}/{self.total} scans, {bad} left out, {rate:.2f} scans/s, "
            f"ETA {int(left) // 60}:{int(left) % 60:02d}")
    if sys.stderr.isatty():
      print(f"\r{line}\033[K", end="", file=sys.stderr, flush=True)
    elif time.time() - self.said > 10 or self.done == self.total:
      self.said = time.time()
      logging.info(line)

  def close(self):
    if sys.stderr.isatty():
      print(file=sys.stderr)


def _manifest(found, done, bad, cfg):
  """Everything about the prepared set, scans in the order of their ids."""
  split_of = {scan.patient: scan.split for scan in found.scans}
  scans = [{"split": split_of[p], **done[p]} for p in sorted(done)]
  healthy = {s["patient"]: [z for z, px in zip(s["slices"], s["lesion_px"]) if px == 0]
             for s in scans}
  counts = {}
  for split in files.SPLITS:
    mine = [s for s in scans if s["split"] == split]
    slices, clean = sum(len(s["slices"]) for s in mine), sum(len(healthy[s["patient"]])
                                                             for s in mine)
    counts[split] = {"patients": len(mine), "slices": slices, "healthy_slices": clean,
                     "lesion_slices": slices - clean}
  checksum = hashlib.sha256("".join(f["sha256"] for s in scans
                                    for f in s["files"].values()).encode()).hexdigest()
  source = pathlib.Path(cfg["dir"]).expanduser().resolve()
  return {"parameters": parameters(cfg), "source": str(source),
          "synthetic": (source / SYNTHETIC_MARK).exists(), "split_rule": found.split_rule,
          "counts": counts, "sha256": checksum,
          "left_out": dict(sorted(bad.items())), "healthy_slices": healthy,
          "splits": {split: [s["patient"] for s in scans if s["split"] == split]
                     for split in files.SPLITS}, "scans": scans}


def _say(bad, done, cfg, folder):
  """Names the bad scans in the log; raises where they may not be left out."""
  for patient, reason in sorted(bad.items()):
    logging.warning("scan %s left out: %s", patient, reason)
  named = "; ".join(f"{p}: {r}" for p, r in sorted(bad.items())[:5])
  named += f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
  if not done:
    raise UserError(f"none of the {len(bad)} scans of {cfg['dir']} can be prepared ({named}); see "
                     f"{folder / 'report.json'}")
  if bad and cfg["strict"]:
    raise UserError(f"{len(bad)} scans of {cfg['dir']} cannot be prepared and config.data.strict "
                     f"is set ({named}); see {folder / 'report.json'}")


@contextlib.contextmanager
def _locked(folder):
  """One process at a time prepares a folder; others wait, then find the work done."""
  with open(folder / ".lock", "w") as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      logging.info("waiting for another process that prepares %s", folder)
      fcntl.flock(lock, fcntl.LOCK_EX)
    yield
