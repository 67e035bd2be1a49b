"""Where the tests find golden vectors and the real data sets.

Golden vectors are read from $MEDAE_GOLDEN/<family> where that variable is set (vectors of other
cases, say), else from tests/golden/<family>, else from a folder `shared` beside the repository.

What is missing          without CI              with CI=true
MEDAE_GOLDEN itself      the run fails           the run fails
a family                 its tests are skipped   its tests are errors
a file of a family       its tests are skipped   errors, unless MEDAE_GOLDEN chose the folder
"""

from __future__ import annotations

import os
import pathlib

import pytest

_HERE = pathlib.Path(__file__).resolve().parent
_SHARED = _HERE.parent.parent / "shared"

# The families whose methods are in.
FAMILIES = ("ae_zoo", "annotation_removal", "dae", "deep_geo", "deep_if", "dpa", "morphaeus",
            "noisy_annotation", "piad", "protocol", "stain_normalization")


class MissingGolden(Exception):
  """Golden vectors that must be there are not."""


def _in_ci() -> bool:
  return os.environ.get("CI", "").lower() in ("true", "1")


def _chosen() -> pathlib.Path | None:
  """The folder of MEDAE_GOLDEN, None where it is not set.

  Raises:
    MissingGolden: it does not exist or holds none of FAMILIES (a typing error must not turn into
      a run that skips every comparison and passes).
  """
  value = os.environ.get("MEDAE_GOLDEN")
  if not value:
    return None
  folder = pathlib.Path(value)
  if not folder.is_dir():
    raise MissingGolden(f"MEDAE_GOLDEN={value}: no such folder; unset it or name a folder with the "
                        f"folders {', '.join(FAMILIES)}")
  if not any((folder / family).is_dir() for family in FAMILIES):
    raise MissingGolden(f"MEDAE_GOLDEN={value} holds none of the families {', '.join(FAMILIES)}")
  return folder


def check_environment() -> None:
  """Stops the test run where MEDAE_GOLDEN is wrong; called once by conftest.py."""
  try:
    _chosen()
  except MissingGolden as e:
    raise pytest.UsageError(str(e)) from e


def find_family(family: str) -> tuple[pathlib.Path | None, str]:
  """(folder, "") of a golden family, or (None, why not).

  Raises:
    MissingGolden: MEDAE_GOLDEN is wrong; or the family is missing in CI. Families outside FAMILIES
      belong to methods that are not in yet: they may be missing anywhere.
  """
  chosen = _chosen()
  places = [chosen] if chosen else [_HERE / "golden", _SHARED / "golden"]
  for place in places:
    if (place / family).is_dir():
      return place / family, ""
  reason = f"no golden family {family!r} in {' or '.join(str(p) for p in places)}"
  if _in_ci() and family in FAMILIES:
    raise MissingGolden(f"{reason}; CI=true allows none to be missing")
  return None, reason


def golden_dir(family: str) -> pathlib.Path:
  """Folder of a golden family for a test or fixture; skips where the family may be missing."""
  folder, reason = find_family(family)
  if folder is None:
    pytest.skip(reason)
  return folder


def find_files(family: str, pattern: str) -> tuple[list[pathlib.Path], str]:
  """(files of a family by pattern, sorted; why there is none).

  Raises:
    MissingGolden: as `find_family`; or CI reads its own folders and none matches.
  """
  folder, reason = find_family(family)
  if folder is None:
    return [], reason
  files = sorted(folder.glob(pattern))
  reason = "" if files else f"no {pattern} in golden family {family!r}"
  if not files and _in_ci() and not os.environ.get("MEDAE_GOLDEN"):
    raise MissingGolden(f"{reason}; CI=true allows none to be missing")
  return files, reason


def golden_files(family: str, pattern: str) -> list[pathlib.Path]:
  """Files of a family by pattern for a test or fixture; skips where none may be there."""
  files, reason = find_files(family, pattern)
  if not files:
    pytest.skip(reason)
  return files


def file_cases(family: str, pattern: str) -> list:
  """One pytest parameter per file of a family: for pytest.mark.parametrize, while collecting.

  Where there is none, one parameter that is skipped with the reason: an empty list would hide it.
  """
  files, reason = find_files(family, pattern)
  if not files:
    return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="none")]
  return [pytest.param(f, id=f.stem) for f in files]


def shared_data(name: str) -> pathlib.Path:
  """Folder of a real data set, or a skip where it is not there."""
  folder = pathlib.Path(os.environ.get("MEDAE_DATA", _SHARED / "data")) / name
  if not folder.is_dir():
    pytest.skip(f"real data set {name!r} is not on this machine (set MEDAE_DATA)")
  return folder
