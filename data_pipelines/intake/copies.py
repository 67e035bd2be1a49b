"""Files that are copies of one another and lie on two sides of a split: said, whatever they are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import concurrent.futures
import hashlib
import logging
import os

_PIECE = 4096      # bytes of a file that are looked at first, from its middle
_MOST = 20_000     # files of equal sizes that are opened; all DICOM files of a set have one size


def find(sides: Mapping[str, Iterable[str]]) -> list[tuple[str, str, str, str]]:
  """(file, its side, copy, its side): files with the same bytes, the first of each on either side.

  Args:
    sides: {split: paths}, in the order of splits; what cannot be opened is left out.
  """
  side_of = {path: side for side, paths in reversed(list(sides.items())) for path in paths}
  found = []
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    alike = [list(side_of)]
    for key in (_size, _piece, _digest):  # each opens only what the one before could not tell apart
      groups: dict = {}
      for number, group in enumerate(alike):
        for path, value in zip(group, pool.map(key, group)):
          if value is not None:
            groups.setdefault((number, value), []).append(path)
      alike = [g for g in groups.values() if len({side_of[p] for p in g}) > 1]
      if sum(map(len, alike)) > _MOST:
        logging.info("more than %d files are alike in size: copies were not looked for", _MOST)
        return []
  for group in alike:
    first = {side: next((p for p in group if side_of[p] == side), "") for side in sides}
    (a, path), *others = [(side, p) for side, p in first.items() if p]
    found += [(path, a, copy, b) for b, copy in others]
  return found


def say(dataset) -> None:
  """Warns of what `find` finds among the files of a DataSet (data_pipelines/dataset.py)."""
  train = dataset.train()
  sources = [("train", s) for s in (train.values() if isinstance(train, Mapping) else [train])]
  sources += [(s if s in ("val", "test") else "train", dataset.split(s)) for s in dataset.splits]
  sides: dict[str, list[str]] = {"train": [], "val": [], "test": []}
  for side, source in sources:
    sides[side] += [str(p) for p in (source.meta(i).get("path") for i in range(len(source))) if p]
  if found := find(sides):
    path, a, copy, b = found[0]
    logging.warning("%s: %d file(s) lie, byte for byte, on two sides of the split, the first: %s (%s) and %s "
                    "(%s): take the copies away, else a measure says how well the model knows them",
                    dataset.name, len(found), path, a, copy, b)


def _size(path):
  try:
    return os.stat(path).st_size or None
  except OSError:  # who reads it says so
    return None


def _piece(path):
  try:
    with open(path, "rb") as file:
      file.seek(max(0, os.fstat(file.fileno()).st_size // 2 - _PIECE // 2))
      return file.read(_PIECE)
  except OSError:
    return None


def _digest(path):
  try:
    with open(path, "rb") as file:
      return hashlib.file_digest(file, "sha256").digest()
  except OSError:
    return None
