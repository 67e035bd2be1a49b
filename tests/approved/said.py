"""Lines of the log while something runs."""

import contextlib
import logging


@contextlib.contextmanager
def said():
  """The list that lines of INFO and above are appended to, with their level where that is not INFO."""
  lines: list[str] = []

  class Noted(logging.Handler):
    """Keeps what this package says."""

    def emit(self, record):
      if not any(own in record.pathname for own in ("medae_jax", "data_pipelines")):
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
