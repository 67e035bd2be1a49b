"""Whether a result is that of the undisturbed run: every file, every array, every row."""

from __future__ import annotations

import fcntl
import functools
import json
import pathlib
import re

import numpy as np

from medae_jax.core import checkpoint, parallel

# What an unfinished write leaves; none of it may survive the next run.
LITTER = re.compile(r"\.tmp|orbax-checkpoint-tmp|\.partial_|\.export-|\.unfinished|\.replaced|\.damaged")
_TIMES = {"date", "seconds", "train/images_per_second", "images_per_second"}


def content(path: pathlib.Path) -> bytes:
  """A file without dates, durations and the command."""
  if path.suffix in (".json", ".jsonl"):
    text = path.read_text()
    values = [json.loads(x) for x in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
    return json.dumps(_timeless(values)).encode()
  data = path.read_bytes()
  if path.suffix == ".md":
    data = re.sub(rb"\|[^|\n]*\| seconds \|.*", b"", data)
  if path.suffix == ".html":
    data = re.sub(rb"<svg.*?</svg>|\d{4}-\d\d-\d\dT[\d:+.]+|[\d.,]+ (s|images/s)\b", b"", data, flags=re.S)
    data = re.sub(rb"<dt>Command</dt>.*?</dd>", b"", data, flags=re.S)  # it names the folder of results
  return data


def _timeless(value):
  if isinstance(value, dict):
    return {k: _timeless(v) for k, v in value.items() if k not in _TIMES}
  return [_timeless(v) for v in value] if isinstance(value, list) else value


def names(folder: pathlib.Path) -> set[str]:
  """Files that are compared one by one: checkpoints are compared as arrays, events are TensorBoard's."""
  files = (p for p in folder.rglob("*") if p.is_file() and "checkpoints" not in p.parts)
  return {str(p.relative_to(folder)) for p in files
          if not p.name.endswith(".lock") and not p.name.startswith("events.out")}


@functools.cache
def _reference(path: pathlib.Path) -> bytes:
  return content(path)


def differences(folder: pathlib.Path, reference: pathlib.Path, only=None) -> list[str]:
  """What differs, of all files or of those whose name `only` (a regular expression) matches."""
  chosen = lambda where: {n for n in names(where) if only is None or re.search(only, n)}
  want, have = chosen(reference), chosen(folder)
  found = [f"{n} is missing" for n in sorted(want - have)]
  found += [f"{n} is too much" for n in sorted(have - want)]
  for name in sorted(want & have):
    try:
      same = content(folder / name) == _reference(reference / name)
    except ValueError as e:
      found.append(f"{name} cannot be read ({e})")
      continue
    if not same:
      found.append(f"{name} differs")
  return found


def litter(folder: pathlib.Path) -> list[str]:
  """Temporary files and folders, and locks that are held."""
  found = [p for p in folder.rglob("*") if LITTER.search(p.name)]
  return [f"{p.relative_to(folder)} is left" for p in (*found, *filter(_held, folder.rglob(".*.lock")))]


def _held(lock: pathlib.Path) -> bool:
  with open(lock, encoding="utf-8") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      return False
    except BlockingIOError:
      return True


def checkpoints(folder: pathlib.Path, reference: pathlib.Path) -> list[str]:
  """Checkpoints of all workdirs below `folder` that differ from the reference's in a bit."""
  found = []
  for place in sorted(p.parent.relative_to(reference) for p in reference.rglob("checkpoints")):
    ours, theirs = folder / place, reference / place
    for which in ("last", "best"):
      want, have = _metas(theirs, which), _metas(ours, which)
      if want != have:  # checksums of model and optimiser are in there
        found.append(f"{place}: {which}: {have} instead of {want}")
      elif want and not _same(_model(ours, which), _model(theirs, which)):
        found.append(f"{place}: {which}: parameters differ")
  return found


def _metas(workdir, which):
  return {p.name: json.loads((p / "meta" / "metadata").read_text())
          for p in sorted((workdir / "checkpoints" / which).glob("*")) if p.name.isdigit()}


def _model(workdir, which):
  opened = checkpoint.Checkpoints(workdir)
  try:
    state, _ = opened.restore_model(which)
    return parallel.to_host({"params": state.params, "stats": state.stats, "extra": state.extra})
  finally:
    opened.close()


def _same(a, b):
  import jax
  return jax.tree.structure(a) == jax.tree.structure(b) and all(
      np.array_equal(x, y, equal_nan=np.asarray(x).dtype.kind == "f")
      for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


# ------------------------------------------------------------------ what says that something is finished
def unreadable(workdir: pathlib.Path) -> list[str]:
  """Checkpoints under their final name that cannot be read."""
  found = []
  for which in ("last", "best"):
    if _finished(workdir, which):
      opened = checkpoint.Checkpoints(workdir)
      found += [] if opened.sound(which) else [f"{workdir.name}: {which} is damaged"]
      opened.close()
  return found


def _finished(workdir, which):
  return [p for p in (workdir / "checkpoints" / which).glob("*") if p.name.isdigit()]


def workdirs(folder: pathlib.Path, reference: pathlib.Path) -> list[str]:
  """Of a run or of several: checkpoints, <split>.json, report.html and tables that are not what they say."""
  found = []
  for work in sorted({p.parent for p in folder.rglob("config.json")} | {folder}):
    place = reference / work.relative_to(folder)
    found += unreadable(work)
    for result in (work / "evaluation").glob("*.json"):
      belongs = rf"^evaluation/{result.stem}" + ("|^calibration" if result.stem == "val" else "")
      found += [f"{work.name}: {x}" for x in differences(work, place, belongs)]
    if (work / "report.html").exists() and place != reference:
      found += [f"{work.name}: {x}" for x in differences(work, place, r"^(evaluation/|calibration|report)")]
  for table in ("seeds.json", "sweep.json"):
    if (folder / table).exists() and not json.loads((folder / table).read_text()).get("missing"):
      found += differences(folder, reference, r"evaluation/|calibration")
  return found


def predictions(folder: pathlib.Path, reference: pathlib.Path) -> list[str]:
  """predictions.csv without "not finished"."""
  table = folder / "predictions.csv"
  if not table.exists() or "not finished" in table.read_text():
    return []
  return differences(folder, reference)


def everything(marker: str):
  """A rule: where `marker` ("" = the folder itself) is there, everything is."""
  def rule(folder, reference):
    there = (folder / marker).exists() if marker else folder.is_dir() and any(folder.iterdir())
    return differences(folder, reference) if there else []
  return rule
