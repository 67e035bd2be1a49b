"""Prepared scans on disk: one record a scan, readable slice by slice without loading the rest.

  <folder>/records/<patient>.image.npy   [n,h,w,C] float32 or float16
  <folder>/records/<patient>.mask.npy    uint8 [n,h,w,1]
  <folder>/records/<patient>.json        slices, lesion pixels, checksums, source; written last
  <folder>/manifest.json                 parameters, splits, healthy slices, counts, checksums
  <folder>/report.json                   scans that were left out with the reason, warnings of others

Every file is written under another name and renamed, and a record counts only once its .json is
there: a run killed at any moment leaves nothing half-written behind that would be used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib
import re

import numpy as np

from data_pipelines.brains.slices import Scan
from data_pipelines.errors import UserError

CHECKED_AT_ONCE = 4 << 30
_SOUND: set[tuple] = set()  # (path, checksum, state of the file) that this process has found to agree


class MappedArray:
  """A .npy file read slice by slice; opened on demand, so that thousands need no file handles.

  Attributes:
    shape, dtype: of the array.
  """

  def __init__(self, path, shape, dtype, version=""):
    self.path, self.shape, self.dtype = str(path), tuple(shape), np.dtype(dtype)
    self.version = version  # of the content: a file replaced later is opened anew

  def __len__(self):
    return self.shape[0]

  def __getitem__(self, index):
    self._check()
    return np.array(_open(self.path, os.stat(self.path).st_ino, self.version)[index])

  def __array__(self, dtype=None, copy=None):
    del copy
    self._check()
    return np.load(self.path, allow_pickle=False).astype(dtype or self.dtype, copy=False)


  def _check(self):
    """Compares the checksum when a process reads the file for the first time."""
    if self.version and not _is_sound(self.path, self.version):
      raise UserError(f"{self.path} is damaged (its checksum is another one): delete it and start "
                      "again, it will be prepared anew")


@functools.lru_cache(maxsize=128)
def _open(path, inode, version):
  del inode, version  # part of the cache key: of a file that was replaced, the new one is opened
  return np.load(path, mmap_mode="r", allow_pickle=False)


def stem(patient: str) -> str:
  """A file name for a patient id: the id itself where it is a plain one."""
  if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", patient):
    return patient
  return (re.sub(r"[^A-Za-z0-9._-]", "_", patient)[:80].lstrip("._-") + "-"
          + hashlib.sha256(patient.encode()).hexdigest()[:10])


def stamp(paths) -> list:
  """[path, bytes, mtime in ns] of each source file: what makes a record stale when it changes.

  Of a DICOM series (a sequence of files) [the first, bytes of all, a number that stands for all stamps].
  """
  stamps = []
  for path in paths:
    if isinstance(path, (tuple, list)):
      inside = stamp(path)
      digest = hashlib.sha256(json.dumps(inside).encode()).hexdigest()
      stamps.append([str(path[0]), sum(s[1] for s in inside), int(digest[:12], 16)])
    elif path is not None:
      s = os.stat(path)
      stamps.append([str(path), s.st_size, s.st_mtime_ns])
  return stamps


def write_json(path: pathlib.Path, content: dict) -> None:
  """Writes JSON under another name and renames it into place."""
  temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  temp.write_text(json.dumps(content, indent=1) + "\n")
  os.replace(temp, path)


def _write_array(path: pathlib.Path, array: np.ndarray) -> dict:
  """Writes an array atomically; returns {"bytes", "sha256"} of the file."""
  temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  try:
    with open(temp, "wb") as f:
      np.save(f, np.ascontiguousarray(array), allow_pickle=False)
    digest = file_sha256(temp)
    size = temp.stat().st_size
    os.replace(temp, path)
  finally:
    temp.unlink(missing_ok=True)
  return {"bytes": size, "sha256": digest}


def file_sha256(path) -> str:
  """SHA-256 of a file, hexadecimal."""
  digest = hashlib.sha256()
  with open(path, "rb") as f:
    while block := f.read(1 << 22):
      digest.update(block)
  return digest.hexdigest()


def _is_sound(path, sha256: str, anew: bool = False) -> bool:
  """Whether a file has its checksum; computed once a process, and where the file was written to.

  Args:
    anew: computed in any case.
  """
  try:
    info = os.stat(path)
    key = str(path), sha256, info.st_ino, info.st_size, info.st_mtime_ns
    if anew or key not in _SOUND:
      _SOUND.discard(key)
      if file_sha256(path) != sha256:
        return False
      _SOUND.add(key)
  except OSError:
    return False
  return True


def damaged(folder: pathlib.Path, found: Sequence[dict]) -> set[str]:
  """Patients whose record files do not have their checksums any more.

  A set of at most CHECKED_AT_ONCE bytes is read as a whole. Of a larger one, files that were changed
  after their record was written; the others are compared when they are first read (MappedArray).
  """
  files = [(r["patient"], folder / f["file"], f, folder / "records" / f"{stem(r['patient'])}.json")
           for r in found for f in r["files"].values()]
  if sum(f["bytes"] for _, _, f, _ in files) > CHECKED_AT_ONCE:
    files = [x for x in files if x[1].stat().st_mtime_ns > x[3].stat().st_mtime_ns]
  with concurrent.futures.ThreadPoolExecutor(8) as pool:  # hashing releases the interpreter's lock
    sound = list(pool.map(lambda x: _is_sound(x[1], x[2]["sha256"], anew=True), files))
  return {x[0] for x, good in zip(files, sound) if not good}


def write_record(folder: pathlib.Path, patient: str, prepared, storage: str, key: dict,
                 spacing=(), label_values: Mapping[str, int] | None = None) -> dict:
  """Writes one prepared scan (volumes.Prepared); returns the content of its .json.

  Args:
    key: {"parameters", "source"}: what the record depends on.
    spacing: mm along the three axes of the scan as it was prepared, () where no header says.
    label_values: labels.counts of its label.
  """
  records = folder / "records"
  name = stem(patient)
  mask = prepared.mask
  image = prepared.image.astype(storage)
  files = {}
  for kind, array in (("image", image), ("mask", mask)):
    files[kind] = {"file": f"records/{name}.{kind}.npy",
                   **_write_array(records / f"{name}.{kind}.npy", array)}
  content = {
      "patient": patient, **key, "files": files, "shape": list(image.shape), "dtype": storage,
      "slices": prepared.slices.tolist(), "scale": prepared.scale.tolist(),
      "lesion_px": mask.sum(axis=(1, 2, 3), dtype=np.int64).tolist(),
      "spacing": [float(v) for v in spacing], "warning": prepared.left_out,
      "voxel_mm": [float(spacing[2]), *prepared.place.pixel_mm(spacing)] if len(spacing) == 3 else [],
      "label_values": dict(label_values or {}),
  }
  write_json(records / f"{name}.json", content)
  return content


def read_record(folder: pathlib.Path, patient: str, key: dict) -> dict | None:
  """The record's .json if it is complete and belongs to `key`, else None."""
  try:
    content = json.loads((folder / "records" / f"{stem(patient)}.json").read_text())
    if any(content[k] != v for k, v in key.items()) or content["patient"] != patient:
      return None
    if any((folder / f["file"]).stat().st_size != f["bytes"] for f in content["files"].values()):
      return None
    return content
  except (OSError, ValueError, KeyError, TypeError):
    return None


def scan_of(folder: pathlib.Path, record: dict) -> Scan:
  """The scan of a record, its arrays on disk."""
  n, h, w, _ = record["shape"]
  def array(kind, shape, dtype):
    file = record["files"][kind]
    return MappedArray(folder / file["file"], shape, dtype, file["sha256"])
  source = pathlib.Path(record["source"][0][0])
  return Scan(record["patient"], array("image", record["shape"], record["dtype"]),
              array("mask", (n, h, w, 1), np.uint8), np.array(record["slices"], np.int64),
              np.array(record["lesion_px"], np.int64), str(source.parent),
              spacing=tuple(record.get("spacing", ())), voxel_mm=tuple(record.get("voxel_mm", ())))


def verify(folder) -> list[str]:
  """Names of record files whose checksum is not the one of manifest.json (empty = all good)."""
  folder = pathlib.Path(folder)
  manifest = json.loads((folder / "manifest.json").read_text())
  return [f["file"] for scan in manifest["scans"] for f in scan["files"].values()
          if not (folder / f["file"]).is_file() or file_sha256(folder / f["file"]) != f["sha256"]]
