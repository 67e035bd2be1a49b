"""What the model says about one input as a `Score`: from outputs of method.score, or from predict's files."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

import numpy as np

from data_pipelines.formats import images, nifti
from medae_jax.metrics import components
from medae_jax.reporting.results import Score
from medae_jax.tasks.anomaly import whole_scans

_ENDS = ("anomaly", "mask", "prob")  # of names of predict's files, before the suffix


def arrays(config, calibration: Mapping[str, Any] | None, outputs: Mapping[str, np.ndarray],
           single: bool) -> Score:
  """Of images that are prepared already.

  Args:
    outputs: of method.score, [B,...]. single: True = B is 1 and goes.
  """
  found = calibration or {}
  cut = lambda a: a[0] if single else a
  maps = outputs.get("map")
  if maps is None and "logit" in outputs:  # segmentation: a probability
    maps = 1 / (1 + np.exp(-np.clip(outputs["logit"], -80, 80)))
  threshold = config.predict.get("threshold", 0) or found.get("threshold")
  mask = None
  if "marks" in outputs:
    mask = outputs["marks"][..., 0] > 0
  elif maps is not None and threshold is not None:
    most = found.get("components")
    most = int(config.eval.get("components", 0) if most is None else most)
    mask = np.stack([components.remove_small_components(m[None], most)[0]
                     for m in maps[..., 0] > np.float32(threshold)])
  rows = [_verdict(found, float(s)) for s in outputs.get("score", ())]
  column = lambda name: cut([r.get(name) for r in rows]) if any(name in r for r in rows) else None
  return Score(
      map=None if maps is None else cut(maps[..., 0]), mask=None if mask is None else cut(mask),
      score=float(outputs["score"][0]) if single and rows else outputs.get("score"),
      p_value=column("p_value"), verdict=column("verdict"), threshold=threshold, outputs=dict(outputs))


def _verdict(calibration, score):
  """As the row of an image in predictions.csv."""
  row = whole_scans.verdict(calibration, score, "image")
  if "verdict" not in row and calibration.get("image_threshold") is not None:
    row["verdict"] = "abnormal" if score > calibration["image_threshold"] else "normal"
  return row


def files(folder: pathlib.Path, row: Mapping[str, Any]) -> Score:
  """Of what predict has written for a single input.

  Args:
    folder: --output. row: of predictions.csv.
  """
  outputs: dict[str, np.ndarray] = {}
  affine, picture = None, None
  for path in sorted(p for p in folder.rglob("*") if p.is_file()):
    place, end = path.relative_to(folder), path.name.partition(".")[0].rpartition("_")[2]
    if nifti.is_nifti(path):
      volume, _, image = nifti.read_on_grid(path)
      outputs[end], affine = volume.astype(np.float32), image.affine
    elif path.name.endswith("_overlay.png") or place.parts[0].startswith("compare"):
      picture = path.read_bytes()
    elif end in _ENDS and path.suffix in (".png", ".tif"):
      outputs[end] = images.read_plain(path)[..., 0]
    elif place.as_posix() == row.get("output"):
      outputs["restored"] = images.read_plain(path)
  maps = outputs.get("anomaly")
  if maps is None and "prob" in outputs:
    maps = outputs["prob"].astype(np.float32) / 255
  mask = outputs["mask"] > 0 if "mask" in outputs else None
  said = row.get("verdict") or {1: "abnormal", 0: "normal"}.get(row.get("called_abnormal"))
  return Score(map=maps, mask=mask, score=row.get("score"), p_value=row.get("p_value"), verdict=said,
               threshold=row.get("threshold"), outputs=outputs, row=dict(row), affine=affine,
               picture=picture)
