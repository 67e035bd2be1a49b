"""Measures beyond Dice that config.eval.measures asks for, image by image at native size, probability 0.5.

  surface      hd95_px and surface_dice (metrics/surface.py): files of photographs do not say mm, so pixels
  lesions      lesion-wise sensitivity, false positives an image, FROC by probability (metrics/lesions.py)
  probability  brier and ece of the pixels' probabilities, counted as they come (metrics/probability.py)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from medae_jax.metrics import lesions, probability, surface


class Measures:
  """One evaluator's; `add` in any order, each image once.

  Args:
    asked: config.eval.measures. n: images. tolerance: pixels within which surfaces agree.
  """

  def __init__(self, asked, n: int, tolerance: float):
    self._asked, self._tolerance = tuple(asked), tolerance
    self._reliability = probability.Reliability()
    self._lesions: list[lesions.Found] = []
    self.hd95, self.surface_dice = np.full(n, np.nan), np.full(n, np.nan)

  def add(self, i: int, logits: np.ndarray, mask: np.ndarray) -> None:
    """Image i: logits float [H,W], mask bool [H,W]."""
    found = logits > 0
    if "probability" in self._asked:
      self._reliability.add(1 / (1 + np.exp(-np.clip(logits, -80, 80))), mask)
    if "lesions" in self._asked:
      self._lesions.append(lesions.match(logits, found, mask))
    if "surface" in self._asked and (found.any() or mask.any()):
      apart = surface.distances(found, mask, (1.0, 1.0))
      self.surface_dice[i] = 0.0 if apart is None else surface.surface_dice(apart, self._tolerance)
      if apart is not None:
        self.hd95[i] = surface.hd95(apart)

  def result(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(numbers of the whole split, {name: a value an image, NaN where both or one mask is empty})."""
    numbers: dict[str, Any] = {}
    if "lesions" in self._asked:
      numbers.update(lesions.froc(self._lesions))
    if "probability" in self._asked:
      numbers.update(brier=self._reliability.brier(), ece=self._reliability.ece())
    columns = {"hd95_px": self.hd95, "surface_dice": self.surface_dice} if "surface" in self._asked else {}
    return numbers, columns
