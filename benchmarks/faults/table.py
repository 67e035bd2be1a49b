"""The faults: table/<room>.toml, one entry a fault.

  [[fault]]
  name = "erosion-left-out"               # unique
  file = "medae_jax/methods/dae.py"
  old = "raw * scores.erode(mask, s.erosion)"   # exact text, there exactly once
  new = "raw"
  tests = ["tests/unit/methods/test_dae_score.py"]   # default: `tests` at the head of the file
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = pathlib.Path(__file__).resolve().parent / "table"


@dataclasses.dataclass(frozen=True)
class Fault:
  """One line of wrong code.

  Attributes:
    name: for people and --only. room: the table it stands in.
    file: path below the repository's root. old, new: text and what replaces it.
    tests: files or folders of tests that should fail.
  """

  name: str
  room: str
  file: str
  old: str
  new: str
  tests: tuple[str, ...]

  @property
  def key(self) -> str:
    """Changes when anything about the fault does: results of another fault of this name are void."""
    text = "\0".join((self.name, self.file, self.old, self.new, *self.tests))
    return hashlib.sha256(text.encode()).hexdigest()[:16]

  def applied(self, text: str) -> str:
    """The file's text with the fault in it."""
    return text.replace(self.old, self.new)


def read(folder: pathlib.Path = FOLDER) -> list[Fault]:
  """All faults, in the order of the tables."""
  faults = []
  for path in sorted(folder.glob("*.toml")):
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    for entry in table["fault"]:
      tests = tuple(entry.get("tests", table.get("tests", ())))
      faults.append(Fault(entry["name"], path.stem, entry["file"], entry["old"], entry["new"], tests))
  return faults


def problems(faults: list[Fault], root: pathlib.Path = ROOT) -> list[str]:
  """What keeps the table from being true: one line each; [] = all is well."""
  found = []
  names = [f.name for f in faults]
  found += [f"{name}: the name is used {names.count(name)} times" for name in sorted(set(names))
            if names.count(name) > 1]
  for fault in faults:
    path = root / fault.file
    if not path.is_file():
      found.append(f"{fault.name}: {fault.file} does not exist")
      continue
    count = path.read_text(encoding="utf-8").count(fault.old)
    if count != 1:
      found.append(f"{fault.name}: the old text is {count} times in {fault.file}: {fault.old!r}")
    if fault.old == fault.new:
      found.append(f"{fault.name}: nothing changes")
    missing = [t for t in fault.tests if not (root / t.split("::")[0]).exists()]
    if missing or not fault.tests:
      found.append(f"{fault.name}: no such tests: {', '.join(missing) or '(none named)'}")
    if path.suffix == ".py" and count == 1:
      try:
        compile(fault.applied(path.read_text(encoding="utf-8")), fault.file, "exec")
      except SyntaxError as error:
        found.append(f"{fault.name}: the new text is no Python: {error}")
  return found
