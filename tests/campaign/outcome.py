"""What a command may do with bad input, and the count of what it did."""
# ruff: noqa: E501

from __future__ import annotations

import collections
import json
import os
import pathlib
import signal

import numpy as np

from tests import console

COUNTS: collections.Counter = collections.Counter()
HANG = 90  # seconds; the slowest honest answer takes a third


def _tree(folder):
  """{file: (bytes, mtime)} below a folder."""
  folder = pathlib.Path(folder)
  return {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*")
          if p.is_file() and ".lock" not in p.name} if folder.is_dir() else {}


def _called(kind, args):
  """console.call, broken off where it hangs."""
  def hangs(*_):
    raise AssertionError(f"hangs for {HANG} s: {kind}: {' '.join(map(str, args))}")
  before = signal.signal(signal.SIGALRM, hangs)
  signal.alarm(HANG)
  try:
    return console.call(*args)
  finally:
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refused(kind, *args, untouched=(), empty=()):
  """Runs a command that must be refused in one line; returns that line.

  Args:
    kind: counted under this name.
    untouched: folders that must stay as they are. empty: folders that must hold nothing whole.
  """
  before = [_tree(f) for f in untouched]
  code, text = _called(kind, args)
  lines = [x for x in text.splitlines() if x.startswith("medae_jax: error")]
  said = f"{kind}: {' '.join(map(str, args))}\n{text[-1500:]}"
  assert "Traceback" not in text, said
  assert code in (1, 2) and len(lines) == 1, f"exit {code}, {said}"
  assert "a fault of medae_jax" not in lines[0], said
  for folder, files in zip(untouched, before):
    assert _tree(folder) == files, f"{folder} changed: {said}"
  for folder in empty:
    left = [p for p in pathlib.Path(folder).rglob("*") if p.name in ("config.json", "calibration.json")
            or p.suffix in (".png", ".html", ".csv", ".nii", ".gz")] if os.path.isdir(folder) else []
    assert not left, f"{left} left: {said}"
  COUNTS[kind] += 1
  return lines[0]


def survived(kind, *args):
  """Runs a command that may do its work or refuse, but not fail in another way; returns its text."""
  code, text = _called(kind, args)
  said = f"{kind}: {' '.join(map(str, args))}\n{text[-1500:]}"
  assert "Traceback" not in text and "a fault of medae_jax" not in text, said
  assert code in (0, 1, 2), f"exit {code}, {said}"
  COUNTS[kind] += 1
  return text


def edits(text: str, count: int, seed: int):
  """(name, bytes) of damaged versions of a JSON or JSON-lines file."""
  rng = np.random.default_rng(seed)
  fixed = {"empty": b"", "cut": text.encode()[:len(text) // 2], "no JSON": b"{hello", "a list": b"[]\n",
           "a number": b"3\n", "null": b"null\n", "binary": bytes(range(256)), "UTF-16": text.encode("utf-16"),
           "NaN": b"NaN\n", "deep": b"[" * 5000}
  yield from fixed.items()
  value = json.loads(text.splitlines()[0] if text.count("\n{") else text)
  paths = list(_paths(value))
  for _ in range(count):
    path = paths[rng.integers(len(paths))]
    new = [None, "x", -1, [], {}, True, 1e300, "deleted"][rng.integers(8)]
    yield f"{'.'.join(map(str, path))}={new}", json.dumps(_changed(value, path, new)).encode()


def _paths(value, at=()):
  if isinstance(value, dict):
    for k, v in value.items():
      yield (*at, k)
      yield from _paths(v, (*at, k))


def _changed(value, path, new):
  copy = json.loads(json.dumps(value))
  node = copy
  for k in path[:-1]:
    node = node[k]
  if new == "deleted":
    del node[path[-1]]
  else:
    node[path[-1]] = new
  return copy
