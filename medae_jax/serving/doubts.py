"""What readers and checks say of an input in the log: a server has none, so that the answer tells it."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import logging

_OURS = ("/data_pipelines/", "/medae_jax/tasks/")  # who looks at inputs


class _Collector(logging.Handler):
  """Lines of warnings, each once."""

  def __init__(self) -> None:
    super().__init__(logging.WARNING)
    self.lines: list[str] = []

  def emit(self, record: logging.LogRecord) -> None:
    line = " ".join(record.getMessage().split())
    ours = any(part in record.pathname for part in _OURS)
    if ours and record.levelno == logging.WARNING and line not in self.lines:
      self.lines.append(line)


@contextlib.contextmanager
def said() -> Iterator[list[str]]:
  """Warnings of readers and checks from here on, as they come."""
  collector = _Collector()
  logging.getLogger().addHandler(collector)
  try:
    yield collector.lines
  finally:
    logging.getLogger().removeHandler(collector)
