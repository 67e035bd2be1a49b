"""calibration.json: what the validation split fixes for everything that is scored afterwards.

Thresholds, colour scales and, where config.eval.fit_residual asks for it, sign and weight of each
modality's residual. evaluate writes it; evaluate, predict and export read it:

  threshold, threshold_rule              of the map; mask = map > threshold
  image_threshold, image_threshold_rule  of the image score
  scan_threshold, scan_threshold_rule    of the score of a whole scan (highest of its slices), or of an image
  probability                            slope and intercept of a logistic curve of the image score
  scan_unit, scan_alpha, scan_scores     scan or image; share of false alarms; normal scores for p-values
  components                             components of at most so many voxels are deleted
  map_max, window                        one heat scale and one grey window a channel, all pictures
  score                                  merged into config.method.score by core.trained
  prepared                               fields of config.data that prepare images, as they were scored
  scored_with                            config.method.score, as they were scored
  score_fit                              what that choice or fit stands on (residual_fit.py, score_choice.py)
"""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

from medae_jax.core import checks, files
from medae_jax.core.errors import UserError

FILE = "calibration.json"
_REMEDY = "run --mode=evaluate again"


def _group(value) -> str:
  return "" if isinstance(value, dict) else "a group of fields"


def _checkpoint(value) -> str:
  return "" if isinstance(value, dict) and isinstance(value.get("step"), int) else "a checkpoint"


def _pairs(value) -> str:
  pair = lambda v: isinstance(v, list) and len(v) == 2 and not any(map(checks.number(), v))
  return "" if isinstance(value, list) and all(map(pair, value)) else "a list of pairs of numbers"


def _numbers(value) -> str:
  return "" if isinstance(value, list) and not any(map(checks.number(), value)) else "a list of numbers"


_RULES = {"threshold": checks.number(), "image_threshold": checks.number(),
          "map_max": checks.number(0), "components": checks.whole(0), "kind": checks.text,
          "scan_threshold": checks.number(), "scan_threshold_rule": checks.text,
          "scan_scores": _numbers, "probability": _numbers,
          "threshold_rule": checks.text, "image_threshold_rule": checks.text,
          "score": _group, "prepared": _group, "scored_with": _group,
          "score_fit": _group, "checkpoint": _checkpoint, "window": _pairs}


def read(workdir) -> dict[str, Any] | None:
  """The calibration of a workdir, None where validation was not evaluated yet.

  Raises:
    UserError: the file is damaged; the line names it.
  """
  path = pathlib.Path(workdir) / FILE
  if not path.exists():
    return None
  found = files.read_json(path, _REMEDY)
  for key, rule in _RULES.items():
    if found.get(key) is not None and rule(found[key]):
      raise UserError(f"{path} is damaged ({key}={found[key]!r} is not {rule(found[key])}): {_REMEDY}")
  return found


def explain(calibration: Mapping[str, Any]) -> str:
  """One line for the log and the report: the thresholds and where they come from."""
  parts = []
  for key, what in (("threshold", "pixel threshold"), ("image_threshold", "image threshold"),
                    ("scan_threshold", "scan threshold")):
    if calibration.get(key) is not None:
      rule = calibration.get(f"{key}_rule", "no rule given")
      parts.append(f"{what} {calibration[key]:.4g} ({rule})")
    elif key == "scan_threshold" and calibration.get("scan_threshold_rule"):
      parts.append(f"{what} {calibration['scan_threshold_rule']}")
  return "; ".join(parts) or "no threshold"
