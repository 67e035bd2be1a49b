"""What half precision and 8-bit weights of an exported score cost: AP of the test split by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import time
from typing import Any

import numpy as np

from data_pipelines import dataset as datasets, stream
from medae_jax.core.errors import UserError
from medae_jax.metrics import detection

_MOST = 1024  # images, evenly over the split: the first ones of a stored split are of few patients


def measure(config, paths: Sequence[pathlib.Path], batch_size: int = 8) -> dict[str, Any]:
  """The same examples through every file.

  Args:
    config: of the run, whose data set is read. paths: of score.onnx and of the others, the exact one first.
    batch_size: images at a time.

  Returns:
    {"split", "images", "files": {name: numbers}}, numbers "bytes", "seconds", "map_difference",
    "score_difference", "image_ap", "image_ap_loss", "pixel_ap", "pixel_ap_loss"; losses are against the first
    file, positive = worse; AP is None without labels or masks of both kinds. {"not_measured": why} where the
    data cannot be read.
  """
  try:
    data = datasets.open_dataset(config.data, config.seed)
    split = "test" if "test" in data.splits else data.splits[-1]
    batches = _examples(data.split(split), batch_size)
  except (UserError, OSError, ValueError) as error:
    return {"not_measured": " ".join(str(error).split())}
  masks = _joined(batches, "mask")
  labels = _joined(batches, "label")
  if labels is None and masks is not None:
    labels = masks.reshape(len(masks), -1).max(1) > 0
  found: dict[str, dict[str, Any]] = {}
  exact: tuple = ()
  for path in paths:
    maps, scores, seconds = _scored(path, [b["image"] for b in batches])
    exact = exact or (maps, scores)
    apart = lambda a, b: None if a is None else float(np.abs(a - b).max(initial=0))
    one = {"bytes": path.stat().st_size, "seconds": seconds, "map_difference": apart(maps, exact[0]),
           "score_difference": apart(scores, exact[1]), "image_ap": _ap(scores, labels),
           "pixel_ap": None if maps is None or masks is None or maps.shape != masks.shape else _ap(
               np.float16(maps), masks > 0)}
    first = next(iter(found.values()), one)
    for key in ("image_ap", "pixel_ap"):
      one[f"{key}_loss"] = None if one[key] is None else first[key] - one[key]
    found[path.name] = one
  return {"split": split, "images": sum(len(b["image"]) for b in batches), "files": found}


def _examples(source, batch_size) -> list[dict[str, np.ndarray]]:
  step = -(-len(source) // _MOST)
  batches = []
  for b in stream.eval_batches(source, batch_size=batch_size):
    kept = b["valid"] & (b["position"] % step == 0)
    if kept.any():
      batches.append({k: b[k][kept] for k in ("image", "mask", "label") if k in b})
  return batches


def _joined(batches, key):
  return np.concatenate([b[key] for b in batches]) if key in batches[0] else None


def _scored(path, images):
  import onnxruntime
  session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
  names = [o.name for o in session.get_outputs() if o.name in ("map", "score")]
  begin = time.monotonic()
  parts = [dict(zip(names, session.run(names, {"image": np.ascontiguousarray(i, np.float32)})))
           for i in images]
  seconds = time.monotonic() - begin
  join = lambda key: np.concatenate([p[key] for p in parts]) if key in names else None
  return join("map"), join("score"), round(seconds, 3)


def _ap(values, positive):
  """None where there are not both kinds."""
  if positive is None:
    return None
  positive = np.ravel(positive)
  values, positive = np.ravel(values)[positive >= 0], positive[positive >= 0] > 0
  if positive.all() or not positive.any():
    return None
  return float(detection.average_precision(detection.sorted_counts(values, positive)))
