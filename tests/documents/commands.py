"""The commands that README, docs and the first lines of configs show."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shlex

from tests.contract.cases import ROOT

FENCE = re.compile(r"^\s*```")
SPAN = re.compile(r"`((?:python (?:launch\.py|-m )|medae(?:-jax)? --)[^`]*)`")
STARTS = ("python ", "medae ", "medae-jax ", "pytest ", "make ", "pip ", "tensorboard ")
ENVIRONMENT = re.compile(r"^(?:[A-Z_]+=\S+\s+)+")


@dataclasses.dataclass(frozen=True)
class Command:
  """One command and where it stands."""
  page: str
  line: int
  text: str

  def words(self) -> list[str]:
    """As a shell reads it, without comment and variables in front."""
    return shlex.split(ENVIRONMENT.sub("", self.text), comments=True)


def _joined(lines):
  """(number, line) with the lines that a backslash goes on with."""
  held, first = "", 0
  for number, line in enumerate(lines, 1):
    first = first or number
    held += line.strip()
    if held.endswith("\\"):
      held = held[:-1].rstrip() + " "
      continue
    yield first, held
    held, first = "", 0


def of_page(path: pathlib.Path) -> list[Command]:
  """All commands of a Markdown page: lines of code blocks, and commands within a sentence or a table."""
  text = path.read_text(encoding="utf-8")
  found, name = [], str(path.relative_to(ROOT))
  for number, line in _joined(text.splitlines()):
    line = line.strip()
    bare = ENVIRONMENT.sub("", line)
    if bare.startswith(STARTS) and "`" not in bare:
      found.append(Command(name, number, line))
    found += [Command(name, number, span.replace("\\|", "|")) for span in SPAN.findall(line)]
  return found


def all_commands() -> list[Command]:
  """Of README.md, CONTRIBUTING.md and docs/."""
  pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
  return [command for page in pages for command in of_page(page)]
