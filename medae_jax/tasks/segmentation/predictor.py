"""Lesion masks of images: <name>_prob.png and <name>_mask.png in the size of the input.

Probabilities are rounded to 0 ... 255 (the published code cuts them off and writes BMP bytes under
whatever ending the input had). The logits, not the probabilities, are resized to the input's size.
The threshold is config.predict.threshold, else that of calibration.json, else 0.5. No ground truth
is read: files that end in _segmentation are left out.
"""

from __future__ import annotations

import pathlib

from absl import logging
import numpy as np

from data_pipelines.formats import images as formats
from data_pipelines.intake import counts, find as finder
from data_pipelines.intake.names import beside_its_image, result_names
from data_pipelines.masks import images
from medae_jax.core import files as outputs
from medae_jax.core.errors import UserError
from medae_jax.tasks import admit
from medae_jax.tasks.base import BasePredictor
from medae_jax.tasks.segmentation.resize import resize_logits


class Predictor(BasePredictor):
  """See the module's docstring."""

  def __init__(self, config, calibration, score_fn):
    super().__init__(config, calibration, score_fn)
    self.threshold = config.predict.threshold or (calibration or {}).get("threshold") or 0.5
    path = config.data.get("mean_image", "")
    self._mean = images.read_mean_image(path) if path else None
    logging.info("Masks: probability > %.3g.", self.threshold)

  def find_inputs(self, input_path):
    self._root = pathlib.Path(input_path)
    found = self.found = finder.find(self._root, ("image", "dicom"))
    if self._root.is_dir():
      found.leave_out({f: reason for f in found.files if (reason := _truth(f, found.files))})
    if not found.files and not found.broken:
      raise counts.Nothing(self._root, found, ("image", "dicom"))
    self._names = result_names(found.files, self._root, flat=True)
    return found.files

  def name_of(self, item):
    return counts.shown(item, self._root) if item != self._root else item.name

  def predict_one(self, item, out_dir):
    seen = admit.picture([item])
    self.gate.form(self.name_of(item), seen)
    image = formats.read_8bit(item, 3, self.config.data.get("window", (0, 0)))
    size = int(self.config.data.image_size)
    batch = images.to_network(image, size, self._mean)[None]
    self.gate.content(self.name_of(item), seen, batch)
    logits = np.asarray(self.score_fn({"image": batch})["logit"], np.float32)[0, ..., 0]
    if not np.isfinite(logits).all():
      raise UserError(f"{item}: the prediction is not finite: the model is broken")
    prob = 1 / (1 + np.exp(-np.clip(resize_logits(logits, image.shape[:2]), -80, 80)))
    mask = prob > self.threshold
    out_dir = pathlib.Path(out_dir)
    outputs.write_png(out_dir / f"{self._names[item]}_prob.png", np.round(255 * prob).astype(np.uint8))
    outputs.write_png(out_dir / f"{self._names[item]}_mask.png", (255 * mask).astype(np.uint8))
    return {"height": image.shape[0], "width": image.shape[1], "threshold": float(self.threshold),
           "lesion_pixels": int(mask.sum()), "lesion_share": float(mask.mean()),
           "mean_probability": float(prob.mean())}


def _truth(path, files):
  """Why a file is no input: it is a ground truth, or lies as a result beside its image."""
  if finder.stem_of(path).lower().endswith("_segmentation"):
    return "is named as a ground truth"
  return beside_its_image(path, files)
