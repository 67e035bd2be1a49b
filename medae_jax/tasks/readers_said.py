"""What readers say of an input in the log; its row of predictions.csv and a server's answer have it, too."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import logging
import pathlib

_READERS = "/data_pipelines/"  # what tasks/admit.py says is in the row already


class _Collector(logging.Handler):
  """Lines of warnings, each once."""

  def __init__(self) -> None:
    super().__init__(logging.WARNING)
    self.lines: list[str] = []

  def emit(self, record: logging.LogRecord) -> None:
    line = " ".join(record.getMessage().split())
    if _READERS in record.pathname and record.levelno == logging.WARNING and line not in self.lines:
      self.lines.append(line)


@contextlib.contextmanager
def said() -> Iterator[list[str]]:
  """Warnings of readers from here on, as they come."""
  collector = _Collector()
  logging.getLogger().addHandler(collector)
  try:
    yield collector.lines
  finally:
    logging.getLogger().removeHandler(collector)


def without_place(line: str, source: pathlib.Path) -> str:
  """A line with files called by their paths below the input `source`, a file or folder."""
  folder = source if source.is_dir() else source.parent
  for place in dict.fromkeys((str(folder.resolve()), str(folder.absolute()), str(folder))):
    line = line.replace(f"{place}/", "") if len(place) > 1 else line
  return line
