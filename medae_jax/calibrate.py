"""calibration.json: what the validation split fixes for everything that is scored afterwards.

Thresholds, colour scales and, where config.eval.fit_residual asks for it, sign and weight of each
modality's residual. evaluate writes it; evaluate, predict and export read it.
"""

from __future__ import annotations

from collections.abc import Mapping
import json
import pathlib
from typing import Any

FILE = "calibration.json"


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
    raise ValueError(f"{path} is damaged ({error}); run --mode=evaluate again") from error


def override(config, values: Mapping[str, Any] | None):
  """A locked copy of a ConfigDict with {"group.field": value} replaced.

  Raises:
    ValueError: a group that does not exist, with the fields there are.
  """
  config = config.copy_and_resolve_references()
  with config.unlocked():
    for name, value in (values or {}).items():
      *groups, field = name.split(".")
      node = config
      for group in groups:
        if group not in node:
          raise ValueError(f"config.{name}: there is no {group!r}; there is {', '.join(node)}")
        node = node[group]
      node[field] = value
  return config.lock()


def explain(calibration: Mapping[str, Any]) -> str:
  """One sentence for log and report."""
  return "; ".join(f"{k}={v}" for k, v in calibration.items() if k.startswith("threshold"))
