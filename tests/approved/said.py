"""Lines of the log while something runs."""

import contextlib
import logging
import pathlib

import data_pipelines
import medae_jax

# Not words of a path: who calls his clone medae_jax has the libraries below it as well.
_OWN = [pathlib.Path(package.__file__).parent for package in (medae_jax, data_pipelines)]


@contextlib.contextmanager
def said():
  """The list that lines of INFO and above are appended to, with their level where that is not INFO."""
  lines: list[str] = []

  class Noted(logging.Handler):
    """Keeps what this package says."""

    def emit(self, record):
      if not any(own in pathlib.Path(record.pathname).parents for own in _OWN):
        return
      level = "" if record.levelno == logging.INFO else f"{record.levelname} "
      lines.append(level + record.getMessage())
  handler, logger = Noted(), logging.getLogger("absl")
  known = logger.level
  logger.addHandler(handler)
  logger.setLevel(logging.INFO)
  try:
    yield lines
  finally:
    logger.removeHandler(handler)
    logger.setLevel(known)
