"""Who is trained on and who is tested on: the one leak check, and the one split by patient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import itertools
import logging
import math
import re
import unicodedata

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.intake.tables import same

_SHOWN = 3
# Letters of Cyrillic and Greek that look like Latin ones, in small letters.
_ALIKE = str.maketrans("аеіјорсухѕһԁѵкмтнвαεοριτυνκχημβ", "aeijopcyxshdvkmthbaeopituvkxhmb")


def leaks(sides: Mapping[str, Iterable[str]]) -> dict[tuple[str, str], list[str]]:
  """{(split, split): patients that are in both}, over all pairs; pairs without any are left out."""
  names = {side: {same(p): p for p in found} for side, found in sides.items()}
  pairs = {}
  for a, b in itertools.combinations(names, 2):
    if both := sorted(names[a].keys() & names[b].keys()):
      pairs[a, b] = [names[a][p] for p in both]
  return pairs


def check_no_leak(sides: Mapping[str, Iterable[str]], what: str, remedy: str = "", *,
                  allow: bool = False) -> dict[tuple[str, str], list[str]]:
  """Refuses a split that has one patient on two sides.

  Args:
    sides: {"train": patients, "val": ..., "test": ...}; repeats do not matter.
    what: the table or folder, begins the message. remedy: what to do, ends it.
    allow: warn instead (published lists, runs that began before this check).

  Returns:
    What `leaks` found, empty unless `allow`.

  Raises:
    UserError: one line that names the patients and the splits.
  """
  sides = {side: list(found) for side, found in sides.items()}
  _say_alike(sides, what)
  found = leaks(sides)
  if not found:
    return found
  where: dict[str, list[str]] = {}
  for pair, patients in found.items():
    for patient in patients:
      where.setdefault(same(patient), [patient, *pair])
      where[same(patient)] += [s for s in pair if s not in where[same(patient)][1:]]
  shown = [f"{p} in {_and(sides)}" for p, *sides in list(where.values())[:_SHOWN]]
  more = f" and {len(where) - _SHOWN} more" if len(where) > _SHOWN else ""
  text = (f"{what}: {len(where)} patient{'s are' if len(where) > 1 else ' is'} on two sides of the split: "
          f"{'; '.join(shown)}{more}")
  if not allow:
    raise UserError(f"{text}; {remedy or 'put all files of a patient into one split'}")
  logging.warning("%s", text)
  return found


def _say_alike(sides, what) -> None:
  """Warns of patients on two sides whose names look alike: 001 and 1, P 01 and p-1, Jose and José, a Cyrillic
  Р01 and a Latin P01."""
  first: dict[tuple, tuple[str, str]] = {}
  pairs = {}
  for side, patients in sides.items():
    for patient in dict.fromkeys(patients):
      other, where = first.setdefault(_loosely(patient), (patient, side))
      if where != side and same(other) != same(patient):
        pairs.setdefault(_loosely(patient), f"{other!r} in {where} and {patient!r} in {side}")
  if pairs:
    more = f" and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
    logging.warning("%s: %s%s: where these are one patient (spreadsheets drop zeros, letters look "
                    "alike), write the name alike, else the splits leak", what,
                    "; ".join(list(pairs.values())[:_SHOWN]), more)


def _loosely(name):
  """Words and numbers of a name, without accents and characters of no width, alike letters as one."""
  text = unicodedata.normalize("NFKD", name).casefold().translate(_ALIKE)
  text = "".join(c for c in text if unicodedata.category(c) not in ("Mn", "Cf"))
  text = re.sub(r"^\s*(\d+)\.0+\s*$", r"\1", text)  # a number that a program has made a float
  words = re.findall(r"[^\W\d_]+|\d+", text)
  return tuple(int(w) if w.isdecimal() else w for w in words) or (text,)


def split_patients(patients: Iterable[str], shares: Mapping[str, float], seed: int) -> dict[str, str]:
  """{patient: split}: of the sorted patients, shuffled by `seed`, ceil(share * n) each, the rest train.

  Args:
    patients: repeats do not matter, names that differ in case are one.
    shares: {"val": 0.1, "test": 0.1}, in the order in which they are filled.
    seed: of numpy's default generator.
  """
  groups: dict[str, list[str]] = {}
  for patient in sorted(set(patients)):
    groups.setdefault(same(patient), []).append(patient)
  keys = sorted(groups, key=lambda k: groups[k][0])
  order = np.random.default_rng(seed).permutation(len(keys)).tolist()
  place, first = {}, 0
  for split, share in shares.items():
    last = first + math.ceil(share * len(keys))
    place.update(dict.fromkeys(order[first:last], split))
    first = last
  return {patient: place.get(i, "train") for i, k in enumerate(keys) for patient in groups[k]}


def deal(site_of: Mapping[str, str], folds: int) -> dict[str, int]:
  """{patient: fold}: folds of equal size up to one, patients of one site together where they fit.

  Sites that fit into a fold come first, the largest before the others, each whole into the emptiest fold
  while it has room; the patients of the other sites are dealt out one by one, each to the emptiest fold.

  Args:
    site_of: {patient: hospital or scanner}, "" = not known: such patients are sites of their own.

  Raises:
    UserError: fewer patients than folds.
  """
  if len(site_of) < folds:
    raise UserError(f"config.data.folds={folds}: there are {len(site_of)} patients in train and val together")
  sites: dict[tuple[str, str], list[str]] = {}
  for patient in sorted(site_of):
    sites.setdefault((site_of[patient], "" if site_of[patient] else patient), []).append(patient)
  room = [len(site_of) // folds + (k < len(site_of) % folds) for k in range(folds)]
  found: dict[str, int] = {}
  fits = lambda members: len(members) <= len(site_of) // folds
  for _, members in sorted(sites.items(), key=lambda item: (not fits(item[1]), -len(item[1]), item[0])):
    parts = [members] if max(room) >= len(members) else [[m] for m in members]
    for part in parts:
      k = max(range(folds), key=lambda f: (room[f], -f))
      room[k] -= len(part)
      found.update(dict.fromkeys(part, k))
  return found


def _and(words):
  return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
