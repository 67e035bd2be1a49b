"""Where the tests find golden vectors and the real data sets; both are optional on a user's machine."""

import os
import pathlib

import pytest

_HERE = pathlib.Path(__file__).resolve().parent
_SHARED = _HERE.parent.parent / "shared"


def golden_dir(family: str) -> pathlib.Path:
  """Folder of a golden family: $MEDAE_GOLDEN/<family>, else tests/golden/<family>, else ../shared.

  Where MEDAE_GOLDEN is set, its folder must exist: a typing error must not turn into a skip.
  """
  if os.environ.get("MEDAE_GOLDEN"):
    folder = pathlib.Path(os.environ["MEDAE_GOLDEN"]) / family
    if not folder.is_dir():
      pytest.skip(f"MEDAE_GOLDEN holds no family {family!r}")
    return folder
  for folder in (_HERE / "golden" / family, _SHARED / "golden" / family):
    if folder.is_dir():
      return folder
  pytest.skip(f"no golden vectors of family {family!r}")


def shared_data(name: str) -> pathlib.Path:
  """Folder of a real data set, or a skip where it is not there."""
  folder = pathlib.Path(os.environ.get("MEDAE_DATA", _SHARED / "data")) / name
  if not folder.is_dir():
    pytest.skip(f"real data set {name!r} is not on this machine (set MEDAE_DATA)")
  return folder
