"""UserError, and what says whether code outside the package may run: one of each for both packages.

data_pipelines.errors and .outside are leaves; of leaves alone may modules below the modes import from
data_pipelines (this one, files and device.memory do).
"""

from collections.abc import Iterator
import contextlib
import os
import traceback

from data_pipelines.errors import UserError, line_of
from data_pipelines.outside import allow as allow_outside_code, check as check_outside_code

__all__ = ["UserError", "allow_outside_code", "check_outside_code", "line_of", "of_field", "place_in",
           "shown"]

_LONGEST = 200  # letters of a value in a message


@contextlib.contextmanager
def of_field(name: str, value) -> Iterator[None]:
  """Begins what is refused inside with "config.<name>=<value>", unless it names the field itself."""
  try:
    yield
  except UserError as error:
    if f"config.{name}=" in str(error):
      raise
    raise UserError(f"config.{name}={shown(value)}: {error}") from error


def place_in(error: BaseException, file: str) -> str:
  """" (line N of FILE)", where in `file` it was raised; "" where its traceback does not meet the file."""
  name = os.path.basename(file)
  frames = traceback.extract_tb(error.__traceback__)
  lines = [f.lineno for f in frames if os.path.basename(f.filename) == name]
  return f" (line {lines[-1]} of {name})" if lines and name else ""


def shown(value) -> str:
  """A value in a message: on one line, and not all of a long one."""
  text = " ".join(repr(value).split())
  return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
