"""Writes the approved outputs anew, to be read then: `python -m tests.approved.write [name ...]`."""

import pathlib
import sys
import tempfile

from tests.approved import all_cases

FOLDER = pathlib.Path(__file__).with_name("outputs")


def path(name: str) -> pathlib.Path:
  """Where the text of a case lies."""
  return FOLDER / f"{name}.txt"


def main(names) -> None:
  """Writes the cases of these names, or all."""
  from tests import conftest  # noqa: F401 - the settings of the tests
  for name, case in all_cases.CASES.items():
    if not names or name in names:
      with tempfile.TemporaryDirectory() as folder:
        path(name).write_text(case(pathlib.Path(folder)) + "\n", encoding="utf-8")
      print(path(name).name)


if __name__ == "__main__":
  main(sys.argv[1:])
