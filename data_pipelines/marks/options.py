"""What config.data.marks may say; checked before anything is drawn: drawing happens inside the stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import math
from typing import Any

from data_pipelines.errors import UserError
from data_pipelines.marks.catalogue import KINDS
from data_pipelines.marks.parts import COLOURS, face

_RANGES = {"count": (0, 1000), "opacity": (0, 1), "blur": (0, 1000), "jpeg_quality": (0, 100)}


def check(options: Mapping[str, Any]) -> None:
  """Raises UserError for kinds or colours that do not exist, weights that are none, numbers out of range."""
  for field, known in (("kinds", KINDS), ("colours", COLOURS)):
    names = [n.partition(":")[0] for n in options[field]]
    unknown = sorted(set(names) - set(known))
    if unknown or not names:
      raise UserError(f"config.data.marks.{field}: {', '.join(unknown) or 'nothing'} is not among "
                       f"{', '.join(known)}")
    try:
      weights = [float(n.partition(":")[2] or 1) for n in options[field]]
    except ValueError:
      weights = []
    if not (weights and min(weights) >= 0 and 0 < sum(weights) < math.inf):
      raise UserError(f"config.data.marks.{field}={tuple(options[field])}: a weight is a number from 0, "
                      f"as in {names[0]}:2, and not all are 0")
  for field, (low, high) in _RANGES.items():
    values = tuple(options[field])
    if len(values) != 2 or not low <= values[0] <= values[1] <= high:
      raise UserError(f"config.data.marks.{field}={values}: use (low, high) between {low} and "
                      f"{high}")
  if not options["size"] > 0:
    raise UserError(f"config.data.marks.size={options['size']}: it must be above 0")
  for field in ("unmarked", "jpeg"):
    if not 0 <= options[field] <= 1:
      raise UserError(f"config.data.marks.{field}={options[field]}: a share between 0 and 1 is needed")


def check_fonts(paths: Iterable[Any]) -> None:
  """Opens the fonts, for who will draw with them: a finished run does without.

  Raises:
    UserError: no path. FileNotFoundError: no font file that can be read.
  """
  for path in paths:
    if not isinstance(path, str) or not path:
      raise UserError(f"config.data.marks.fonts: {path!r} is no path of a TrueType file")
    face(path, 12)
