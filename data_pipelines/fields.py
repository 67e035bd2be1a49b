"""Fields of config.data: one way to declare, complete and check them, for every data set.

A data set module declares `defaults()`, a ConfigDict that starts as `common(name)` and gives every
field a value and a comment. Config files start from it; `resolve` puts what was given over it and
refuses what it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import difflib
import math
import numbers
import re

import ml_collections

from data_pipelines import typed
from data_pipelines.errors import UserError


@dataclasses.dataclass(frozen=True)
class Spec:
  """What a data set promises of "image" by its fields alone, without opening a file.

  Attributes:
    shape: (H, W, C) of a training example; None where the files decide.
    low, high: range of the values, both ends included; None = no bound.
    native: evaluation shows whole files at their own sizes; `shape` is then that of training windows.
  """
  shape: tuple[int | None, int | None, int | None]
  low: float | None = 0.0
  high: float | None = 1.0
  native: bool = False


def common(name: str) -> ml_collections.ConfigDict:
  """What every data set has: the start of its `defaults()`."""
  fields = ml_collections.ConfigDict()
  fields.name = name               # data_pipelines/datasets/<name>.py, or a.dotted.module elsewhere
  fields.resident = False          # keep the whole training split on the accelerator
  return fields


def files(fields: ml_collections.ConfigDict) -> None:
  """Adds what all data sets of files have: whose a file is (data_pipelines/intake/patients.py)."""
  fields.group_pattern = ""        # first group of this regular expression = the patient; searched in
                                   # the path where it has a "/", else in the name; "" = by folder, name
  fields.grouping = "patient"      # patient, file (each file its own) or legacy (as before this field)


GROUPINGS = ("patient", "file", "legacy")
_JOINED = re.compile(r"[^\s,;][,;][^\s,;]|^[\[({].*[\])}]$")  # of a name: several that no quotes have parted


def resolve(data_cfg: Mapping, known: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """`known` with the given fields put over it. Resolving twice changes nothing.

  Numbers are taken for pairs of numbers (image_size=64 is 64x64), lists for tuples.

  Args:
    data_cfg: config.data, or a dict of fields.
    known: a fresh `defaults()`; changed and returned.

  Raises:
    UserError: a field that does not exist, with the one that was probably meant; a value of another
      kind than the default's.
  """
  _put(known, data_cfg, "config.data", known.get("name", "?"))
  if "window" in known:
    _check_window(known["window"])
  return known


def changed(known: ml_collections.ConfigDict, **given) -> ml_collections.ConfigDict:
  """`resolve` for config files: changed(nih.defaults(), view="AP", fold=0)."""
  return resolve(given, known)


def choice(cfg: Mapping, field: str, allowed: Sequence[str]) -> str:
  """cfg[field]; raises UserError unless it is one of `allowed`."""
  if cfg[field] not in allowed:
    raise UserError(f"config.data.{field}={cfg[field]!r}: use {', '.join(allowed)}")
  return cfg[field]


def at_least(cfg: Mapping, **least: int) -> None:
  """Raises UserError where one of these fields is below its number."""
  for field, number in least.items():
    if cfg[field] < number:
      raise UserError(f"config.data.{field}={cfg[field]}: at least {number}")


def given_dir(cfg: Mapping, field: str, what: str) -> str:
  """cfg[field]; raises UserError where it is empty, saying what it should lead to."""
  if not cfg[field]:
    raise UserError(f"config.data.{field} is empty: give {what}")
  return cfg[field]


def _check_window(window):
  """Raises UserError unless `window` is (0, 0) or (black, white)."""
  numeric = len(window) == 2 and all(isinstance(v, (int, float)) and abs(v) < 1e12 for v in window)
  if not numeric or (tuple(window) != (0, 0) and not window[0] < window[1]):
    raise UserError(f"config.data.window={tuple(window)}: give (black, white) in the units of the "
                    "files, black below white, or (0, 0) for the rule")


def _put(known, given, where, dataset):
  for name, value in given.items():
    if name not in known:
      near = difflib.get_close_matches(name, list(known), 1)
      hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(known))}"
      raise UserError(f"{where}.{name} is not a field of the data set {dataset}; {hint}")
    default = known[name]
    if isinstance(default, ml_collections.ConfigDict):
      if not hasattr(value, "items"):
        raise UserError(f"{where}.{name}={value!r}: give its fields, {', '.join(sorted(default))}")
      _put(default, value, f"{where}.{name}", dataset)
    else:
      with known.ignore_type():
        known[name] = _of_kind(value, default, f"{where}.{name}")


# Whole numbers that must not be 0: sides and counts.
_SIZES = ("image_size", "crop_size", "frame_size", "channels", "n_slices", "noise_res", "n_folds",
          "n_patients")
_SHARES = ("_share", "_fraction", "flip_lr", "flip_ud", "lesion_share", "opacity", "unmarked")
_MOST = 2**31 - 1


def _in_range(value, default, where):
  """Refuses numbers that no data set can use: below 0 where the default is not, shares above 1."""
  name = where.rpartition(".")[2]
  if name == "window" or isinstance(value, bool) or not isinstance(value, (int, float)):
    return value
  low = min(0, default if isinstance(default, (int, float)) else 0)
  low = 1 if name in _SIZES and isinstance(value, int) else low
  high = 1 if name.endswith(_SHARES) else _MOST
  if not low <= value <= high:
    raise UserError(f"{where}={value!r}: it must be from {low:g} to {high:.10g}")
  return value


def _of_kind(value, default, where):
  """`value` as the type of `default` and in its range; a default of None takes anything."""
  value = _of_type(value, default, where)
  if isinstance(value, tuple) and isinstance(default, tuple) and default and all(
      isinstance(v, (int, float)) and not isinstance(v, bool) for v in default):
    if len(value) != len(default):
      raise UserError(f"{where}={value!r}: use {len(default)} numbers such as {default!r}")
    whole = all(isinstance(v, int) for v in default) and not where.endswith(".window")
    return tuple(_in_range(_of_type(v, d if whole else float(d), where), d, where)
                 for v, d in zip(value, default, strict=True))
  return _in_range(value, default, where)


def _check_elements(value, default, where):
  """Refuses lists and groups inside a tuple, and what is no text in one of texts."""
  texts = bool(default) and all(isinstance(v, str) for v in default)
  joined = next((v for v in value if isinstance(v, str) and _JOINED.search(v)), "")
  if joined and not any(isinstance(v, (list, tuple)) for v in default):
    parts = ", ".join(f"'{part.strip()}'" for part in re.split("[,;]", joined.strip("()[]{}")))
    raise UserError(f"{where}={value!r}: {joined!r} would be one name; several stand in quotes each: "
                    f"\"({parts},)\"")
  odd = [v for v in value if not isinstance(v, str if texts else (str, numbers.Real))]
  if odd and not any(isinstance(v, (list, tuple)) for v in default):
    kind = "names" if texts else "single values"
    raise UserError(f"{where}={value!r}: use {kind} in parentheses, not {odd[0]!r}")


def _of_type(value, default, where):
  number = (isinstance(value, numbers.Real) and not isinstance(value, bool)
            and math.isfinite(value))
  if default is None:
    return value
  if isinstance(default, bool):
    if isinstance(value, bool) or value in (0, 1):
      return bool(value)
    raise UserError(f"{where}={value!r}: use True or False")
  if isinstance(default, int):
    if number and float(value).is_integer():
      return int(value)
    raise UserError(f"{where}={value!r}: use a whole number")
  if isinstance(default, float):
    if number:
      return float(value)
    raise UserError(f"{where}={value!r}: use a number")
  if isinstance(default, str):
    if isinstance(value, str) and "\0" not in value:  # no path, and nothing else, may hold it
      return typed.home(value)
    raise UserError(f"{where}={value!r}: use text")
  if isinstance(value, (list, tuple)):
    _check_elements(value, default, where)
    return tuple(value)
  if number and len(default) == 2:
    return (value, value)
  raise UserError(f"{where}={value!r}: use a tuple such as {default!r}")
