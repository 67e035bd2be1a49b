"""Numbers of each image beside its score: foldings of a deformation, errors inside and outside the lungs.

What a split has of them goes into its JSON:
  deformation       of methods that deform (score gives "folded" [B], the share of an image's pixels where the
                    Jacobian determinant is not positive): folded_share, its mean; folded_images, how many
                    images fold anywhere; by "normal" and "abnormal"
  reconstruction    where batches have "lungs" [B,H,W,1]: mae_lungs and mae_outside, the mean absolute error
                    of the pixels inside and outside, likewise
An image without any pixel on one of the sides is left out of that mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SIDES = {"normal": 0, "abnormal": 1}


class ImageNumbers:
  """{name: [n]} of a split, filled batch by batch; NaN = not known."""

  def __init__(self, n: int):
    self._n = n
    self.values: dict[str, np.ndarray] = {}

  def add(self, batch, outputs, rows, valid) -> None:
    """Takes what the batch and the outputs of `score` offer.

    Args:
      rows: places of the valid examples. valid: bool [B].
    """
    found = {}
    if "folded" in outputs:
      found["folded_share"] = np.asarray(outputs["folded"])[valid]
    if "lungs" in batch and "recon" in outputs and outputs["recon"].shape == batch["image"].shape:
      error = np.abs(np.asarray(outputs["recon"]) - batch["image"])[valid].mean(-1, keepdims=True)
      inside = batch["lungs"][valid] > 0
      found["mae_lungs"], found["mae_outside"] = _mean(error, inside), _mean(error, ~inside)
    for name, value in found.items():
      self.values.setdefault(name, np.full(self._n, np.nan))[rows] = value

  def row(self, i: int) -> dict[str, float | None]:
    """{name: number} of image i, for the table of images."""
    return {name: float(v[i]) if np.isfinite(v[i]) else None for name, v in self.values.items()}

  def result(self, label: np.ndarray) -> dict[str, Any]:
    """{"deformation", "reconstruction"} as above, without what is not known.

    Args:
      label: int [n], 0 normal, 1 abnormal, -1 not known.
    """
    found: dict[str, Any] = {}
    if "folded_share" in self.values:
      found["deformation"] = {side: {
          "folded_share": _known(self.values["folded_share"][label == k]),
          "folded_images": int((self.values["folded_share"][label == k] > 0).sum()),
          "images": int((label == k).sum())} for side, k in SIDES.items()}
    if "mae_lungs" in self.values:
      found["reconstruction"] = {side: {name: _known(self.values[name][label == k])
                                        for name in ("mae_lungs", "mae_outside")}
                                 for side, k in SIDES.items()}
    return found


def _mean(error, where):
  """Mean over the pixels of each image that are marked, NaN without any: [B,H,W,1] -> [B]."""
  count = where.sum((1, 2, 3))
  return np.where(count > 0, (error * where).sum((1, 2, 3)) / np.maximum(count, 1), np.nan)


def _known(values):
  values = values[np.isfinite(values)]
  return float(values.mean()) if values.size else None
