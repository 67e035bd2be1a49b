"""A case against its approved text."""

import pytest

from tests.approved import all_cases, programs, shown, write


def compared(name, folder) -> None:
  """Fails with the lines that differ."""
  approved = write.path(name).read_text(encoding="utf-8")
  if programs.of_another_version(approved):
    pytest.skip("JAX traces and names operations otherwise in each version: written with another")
  changed = shown.difference(approved, all_cases.CASES[name](folder) + "\n")
  assert not changed, f"{name}: meant so? then python -m tests.approved.write {name}\n{changed}"
