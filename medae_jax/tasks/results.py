"""Results of predict in --output: which input each one came from, and what a later run may replace.

<output>/results.csv has a line for every result of every run into this folder: its path in there and the
file that it was made from (of a scan the first one). A run may be repeated and then replaces what came
from the same file; whatever else has the name of a result is kept, and the input refused.
"""

from __future__ import annotations

from collections.abc import Sequence
import csv
import io
import pathlib

from data_pipelines.intake.find import RESULTS
from data_pipelines.intake.names import same
from medae_jax.core import files, places
from medae_jax.core.errors import UserError
from medae_jax.reporting import predictions

FILE = "results.csv"
LEFT_OUT = "left_out.csv"
_HEADS = {RESULTS: b"input,", LEFT_OUT: b"file,reason", FILE: b"result,source",
          predictions.FILE: predictions.HEAD}


_OF_RUNS = ("checkpoints", "evaluation", "stages")


def check(output: pathlib.Path) -> None:
  """Raises UserError where --output is no folder, or holds somebody else's file of the name of a table."""
  places.check_folder(output, "--output")
  owner = output.resolve().parent
  if output.name in _OF_RUNS and places.is_run(owner):
    raise UserError(f"--output={output} is a folder of the run {owner}, among whose files results would lie: "
                    "choose another")
  if places.is_run(output):
    raise UserError(f"--output={output} is the folder of a run, among whose files results would lie: leave "
                    f"it out ({output / 'predictions'}), or choose another")
  for name, head in _HEADS.items():
    path = output / name
    if path.exists() and not (path.is_file() and path.read_bytes()[:len(head)] == head):
      raise UserError(f"{path} is there and no table of predict: choose another --output")


class Results:
  """The results in a folder; `replaced` counts those of earlier runs that this one has replaced."""

  def __init__(self, output: pathlib.Path):
    self._output, self._path, self.replaced = output, output / FILE, 0
    self._written: dict[str, str] = {}  # place: name of its input, of this run
    text = self._path.read_text(encoding="utf-8", errors="replace") if self._path.exists() else ""
    self._sources = _read(text)         # place: file that it was made from, of all runs
    self._before = "result,source\n" if not text else "" if text.endswith("\n") else "\n"

  def claim(self, targets: Sequence[pathlib.Path], source: str, name: str) -> None:
    """Notes that `targets` are about to be written from the file `source` of the input called `name`.

    Raises:
      UserError: one of them is a result of another input, or no result at all.
    """
    places = [_plain(t.relative_to(self._output).as_posix()) for t in targets]
    source, old = _plain(source), 0
    for place, target in zip(map(same, places), targets):
      if place in self._written:
        raise UserError(f"would overwrite {target}, a result of {self._written[place]}; predict the two by "
                        "themselves")
      if not target.exists():
        continue
      former = self._sources.get(place)
      if former is None:
        raise UserError(f"would overwrite {target}, which no prediction has written as far as {FILE} says; "
                        "choose another --output")
      if former != source:
        raise UserError(f"would overwrite {target}, the result of another input ({former}); choose another "
                        "--output")
      old += 1
    self._note([(place, source) for place in places if self._sources.get(same(place)) != source])
    self._written.update((same(place), name) for place in places)
    self.replaced += old

  def _note(self, lines):
    """Before the results are moved: of a run that is killed in between, each of them has its line."""
    if not lines:
      return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    with open(self._path, "a", encoding="utf-8") as file:
      file.write(self._before + text.getvalue())
    self._before = ""
    self._sources.update((same(place), source) for place, source in lines)


def _read(text: str) -> dict[str, str]:
  # Line by line: half a line of a killed run, with an open quote, costs no other.
  rows = [next(csv.reader([line]), []) for line in text.splitlines()]
  return {same(row[0]): row[1] for row in rows if len(row) == 2}


def _plain(text: str) -> str:
  """As it stands in the table: one line of characters, and no formula of a spreadsheet."""
  shown = (c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
  return str(files.cell("".join(shown)))
