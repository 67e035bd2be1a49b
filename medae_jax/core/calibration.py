"""calibration.json: what the validation split fixes for everything that is scored afterwards.

Thresholds, colour scales and, where config.eval.fit_residual asks for it, sign and weight of each
modality's residual. evaluate writes it; evaluate, predict and export read it:

  threshold, threshold_rule              of the map; mask = map > threshold
  image_threshold, image_threshold_rule  of the image score
  components                             components of at most so many voxels are deleted
  map_max, window                        one heat scale and one grey window a channel, all pictures
  score                                  merged into config.method.score by core.checkpoint
  score_fit                              pixel AP on val with and without it (residual_fit.py)
"""

from __future__ import annotations

from collections.abc import Mapping
import json
import pathlib
from typing import Any

from medae_jax.core.errors import UserError



FILE = "calibration.json"
# ------------------------------------------------------------------------------ reading, merging
def read(workdir) -> dict[str, Any] | None:
  """The calibration of a workdir, None where validation was not evaluated yet.

  Raises:
    ValueError: the file is damaged.
  """
  path = pathlib.Path(workdir) / FILE
  if not path.exists():
    return None
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise UserError(f"{path} is damaged ({error}); run --mode=evaluate again") from error


def explain(calibration: Mapping[str, Any]) -> str:
  """One line for the log and the report: the thresholds and where they come from."""
  parts = []
  for key, what in (("threshold", "pixel threshold"), ("image_threshold", "image threshold")):
    if calibration.get(key) is not None:
      rule = calibration.get(f"{key}_rule", "no rule given")
      parts.append(f"{what} {calibration[key]:.4g} ({rule})")
  return "; ".join(parts) or "no threshold"


# ------------------------------------------------------------------------------ choosing on val
