"""The quality of noisy annotations: what reweighting learnt of every noisy mask, ranked and drawn.

During training the method keeps, for every noisy example, a running mean of its weight map in units
of the uniform weight and of the share of pixels whose loss gradient agrees with the clean one
(medae_jax/methods/_reweighting.py). Both are measured on the image's own pixels. Pixels that the network has
learnt to fit have small gradients and hence small weights whatever their label: a low weight alone
is no verdict. The agreement and the Dice between label and prediction stand beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
import scipy.stats

from data_pipelines.ops import overlap
from medae_jax.reporting import panels

_CELL = 200       # pixels of a picture's side
_TOP = 4.0        # relative weight at the top of the heat scale
HEADS = ("image", "label yellow, found red", f"learnt weight, 0 to {_TOP:g}", "weight on image")
FOUND, EXPERT, LABEL = (235, 40, 40), (30, 120, 255), (255, 210, 0)


def framed(picture: np.ndarray) -> np.ndarray:
  """uint8 [H,W,3] or bool [H,W] -> the same at _CELL x _CELL."""
  how = Image.Resampling.NEAREST if picture.dtype == bool else Image.Resampling.BILINEAR
  return np.array(Image.fromarray(picture).resize((_CELL, _CELL), how))


def outlines(image, found, expert=None, label=None):
  """The image with the borders of what was found, the expert mask and the label."""
  for mask, colour in ((expert, EXPERT), (label, LABEL), (found, FOUND)):
    if mask is not None:
      image = panels.outline(panels.outline(image, mask, colour), _shrink(mask), colour)
  return image


def _shrink(mask):
  padded = np.pad(mask, 1)
  return (mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])


class Quality:
  """Collects, ranks and draws the noisy examples of an evaluator."""

  def __init__(self, evaluator):
    self._evaluator, n = evaluator, len(evaluator.source)
    self.weight, self.agree = np.full(n, np.nan), np.full(n, np.nan)
    self.inside, self.outside = np.full(n, np.nan), np.full(n, np.nan)
    self.seen = np.zeros(n, np.int64)
    self.to_expert, self.to_found = np.full(n, np.nan), np.full(n, np.nan)

  def add(self, i, native, found, outputs):
    """One noisy example: its masks at native size, the prediction there, and what was learnt."""
    label = native["mask"]
    self.to_found[i] = overlap.dice(label, found)
    if native["truth"] is not None:
      self.to_expert[i] = overlap.dice(label, native["truth"])
    if float(outputs.get("seen", 0)) > 0:
      weight = outputs["weight"][..., 0]
      self.weight[i], self.agree[i] = weight.mean(), outputs["agree"]
      self.seen[i] = int(outputs["seen"])
      side = weight.shape[0]
      small = np.asarray(Image.fromarray(label.astype(np.float32)).resize(
          (side, side), Image.Resampling.BOX)) >= 0.5
      self.inside[i] = weight[small].mean() if small.any() else np.nan
      self.outside[i] = weight[~small].mean() if (~small).any() else np.nan

  @property
  def _key(self):
    """What ranks the annotations: the agreement, else (no reweighting) label against prediction."""
    return self.agree if (self.seen > 0).any() else self.to_found

  def order(self) -> np.ndarray:
    """Positions from the most suspicious annotation on; unseen ones last."""
    return np.argsort(np.where(np.isnan(self._key), np.inf, self._key), kind="stable")

  def result(self):
    """Rank correlations of each measure with the Dice of the label against the expert mask."""
    known = ~np.isnan(self.to_expert)
    out: dict[str, Any] = {"n_with_learnt_weight": int((self.seen > 0).sum()),
           "ranked_by": "agreement" if (self.seen > 0).any() else "dice_label_prediction"}
    if known.any():
      out["mean_dice_label_expert"] = float(self.to_expert[known].mean())
    for name, value in (("mean_weight", self.weight), ("agreement", self.agree),
                        ("dice_label_prediction", self.to_found)):
      both = known & ~np.isnan(value)
      varied = both.sum() > 2 and np.ptp(value[both]) > 0 and np.ptp(self.to_expert[both]) > 0
      out[f"spearman_{name}"] = float(scipy.stats.spearmanr(
          value[both], self.to_expert[both]).statistic) if varied else None
    return out

  def rows(self):
    """noisy_quality.csv, the most suspicious annotation first."""
    columns = {"mean_weight": self.weight, "weight_inside_label": self.inside,
               "weight_outside_label": self.outside, "agreement": self.agree,
               "dice_label_prediction": self.to_found, "dice_label_expert": self.to_expert}
    metas = self._evaluator.metas
    return [{"rank": rank + 1, "id": metas[i]["id"], "times_seen": int(self.seen[i]),
             **{k: float(v[i]) for k, v in columns.items()}, "path": metas[i].get("path", "")}
            for rank, i in enumerate(self.order())]

  def choose(self, n):
    """The n most suspicious and the n most trusted annotations."""
    order = self.order()[:int((~np.isnan(self._key)).sum())]
    return np.concatenate([order[:n], order[max(len(order) - n, min(n, len(order))):]])

  def panels(self, cells, warning):
    """{"overlays": picture}: a row an annotation."""
    rows, captions = zip(*self._drawn(cells))
    title = f"{self._evaluator.dataset.name}: annotations, most suspicious first; expert blue"
    return {"overlays": panels.grid(rows, HEADS, captions, title, warning)}

  def gallery(self, cells):
    """Rows for the page, as `reporting.gallery` writes them."""
    return [{"part": "overlays", "title": title, "facts": facts.split(", ") if facts else [], "verdict": "",
             "sides": [], "cells": [{"head": h, "picture": c} for h, c in zip(HEADS, row)]}
            for row, (title, _, facts) in ((row, text.partition(": ")) for row, text in self._drawn(cells))]

  def _drawn(self, cells):
    """(pictures under HEADS, caption) of every annotation."""
    rank = np.argsort(self.order())
    for i, outputs in cells:
      native = self._evaluator.source.native(i)
      image, label = framed(native["image"]), framed(native["mask"])
      truth = None if native["truth"] is None else framed(native["truth"])
      logits = framed_float(outputs["logit"][..., 0])
      row = [image, outlines(image, logits > 0, truth, label)]
      if self.seen[i]:
        weight = framed_float(outputs["weight"][..., 0])
        grey = image.mean(-1) / 255
        over = panels.heat_overlay(0.6 * grey, weight, (0, 1), _TOP)
        row += [panels.heat(weight, _TOP), outlines(over, None, truth, label)]
      else:
        row += [np.full_like(image, 255)] * 2
      text = f"{rank[i] + 1}. {self._evaluator.metas[i]['id']}"
      text += f": agreement {self.agree[i]:.2f}, mean weight {self.weight[i]:.2f}" if (
          self.seen[i]) else ": no weight learnt"
      known = "" if np.isnan(self.to_expert[i]) else f", Dice to expert {self.to_expert[i]:.2f}"
      yield row, text + known


def framed_float(value):
  """float [h,w] -> [_CELL,_CELL], bilinear."""
  image = Image.fromarray(np.ascontiguousarray(value, np.float32))
  return np.asarray(image.resize((_CELL, _CELL), Image.Resampling.BILINEAR))
