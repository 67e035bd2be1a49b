"""Sign and weight of each modality's residual, fitted to the lesion masks of the validation split.

The reference averages |image - recon| over the modalities. Where a lesion is bright on one modality
and dark on another, and healthy variation is not, signs and weights separate the two much better.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import ml_collections
import numpy as np

from data_pipelines.brains import drawn_lesions
from data_pipelines.dataset import Source
from medae_jax.core.errors import UserError
from medae_jax.metrics import detection
from medae_jax.scores import residual as scores

_FACTORS = (0.0, 0.5, 0.75, 1.33, 2.0)


def examples(config, dataset):
  """What the weights are fitted on: val with its masks, its healthy slices with SYNTHETIC lesions, or both.

  Raises:
    UserError: lesions are to be drawn, and val has no healthy slices, or modalities that nothing is known of.
  """
  if config.eval.fit_lesions == "marked":
    return dataset.split("val")
  healthy = dataset.validation()
  if healthy is None:
    raise UserError("config.eval.fit_lesions='drawn' needs healthy slices in the val split; it has none")
  drawn = drawn_lesions.DrawnLesions(healthy, config.data.get("modalities", ()))
  return drawn if config.eval.fit_lesions == "drawn" else Joined(dataset.split("val"), drawn)


def fit_of(config, source: Source, groups) -> ResidualFit | BothFit:
  """What fits the weights to `examples`; groups: [n], the patient of each."""
  if isinstance(source, Joined):
    return BothFit(config.method.score, groups, len(source.marked),
                   {"lesions": "marked, and SYNTHETIC drawn on healthy slices: mean of both weights"})
  about = {"lesions": "SYNTHETIC, drawn on healthy slices"} if config.eval.fit_lesions == "drawn" else {}
  return ResidualFit(config.method.score, groups, about=about)


class Joined(Source):
  """The examples of `marked`, then those of `drawn`: "image" and "mask" alone."""

  def __init__(self, marked: Source, drawn: Source):
    self.marked, self._drawn = marked, drawn

  def __len__(self):
    return len(self.marked) + len(self._drawn)

  def meta(self, i):
    n = len(self.marked)
    return self.marked.meta(i) if i < n else self._drawn.meta(i - n)

  def read(self, indices):
    indices, n = np.asarray(indices), len(self.marked)
    parts = [self.marked.read(indices[indices < n]), self._drawn.read(indices[indices >= n] - n)]
    if any("mask" not in p for p in parts):
      raise UserError("config.eval.fit_lesions='both' needs masks in the val split; use 'drawn'")
    order = np.argsort(np.argsort(indices >= n, kind="stable"), kind="stable")
    return {k: np.concatenate([p[k] for p in parts])[order] for k in ("image", "mask")}


class BothFit:
  """Mean of the weights fitted to marked and to drawn lesions: a few marked patients alone fit badly.

  On 56 patients of brain_lgg the mean is as good as either with 11 marked patients, and with one to four
  its worst draw is far better than that of the marked ones alone (docs/dae.md).

  Args:
    marked: examples that are marked; the rest of `groups` are drawn.
  """

  def __init__(self, options, groups, marked: int, about=()):
    self._n = marked
    self._marked = ResidualFit(options, groups[:marked], about=about)
    self._drawn = ResidualFit(options, groups[marked:])

  def update(self, batch, outputs) -> None:
    """Takes the pixels of a batch; see tasks.base.BaseEvaluator.update."""
    position, valid = np.asarray(batch["position"]), np.asarray(batch["valid"])
    marked = position < self._n
    for fit, own, shift in ((self._marked, marked, 0), (self._drawn, ~marked, self._n)):
      if (valid & own).any():
        fit.update({**batch, "valid": valid & own, "position": position - shift}, outputs)

  def result(self) -> dict[str, Any]:
    """As ResidualFit.result."""
    drawn = self._drawn.result()
    self._marked.prior = np.array([*drawn["weights_positive"], *drawn["weights_negative"]])
    return self._marked.result()

  def summary(self) -> dict[str, Any]:
    """As ResidualFit.summary, of the mean weights on the marked lesions."""
    return self._marked.summary()


class ResidualFit:
  """Fits map = mean_c (w+_c max(r_c, 0) + w-_c max(-r_c, 0)), r = image - recon, to masks.

  Starts from the best of some plain choices (absolute, brighter, darker, one modality) and then
  changes one weight at a time while the pixel AP grows by more than `tolerance` of itself. Weights
  average 1, so that the map stays on its scale. As the AP on the data of the fit flatters, the AP
  of weights fitted without the patients they are applied to is computed beside it.

  Args:
    options: config.method.score, for its filters.
    groups: [n], the patient of every example of the split.
    tolerance: relative gain that a change must bring.
    pixels: how many pixels are kept for the fit.
    about: what the summary says besides.

  Attributes:
    prior: weights [2C] of mean 1; set, the result is the mean of them and of the fitted ones.
  """

  prior: np.ndarray | None = None

  def __init__(self, options, groups, tolerance: float = 0.002, pixels: int = 1_500_000, about=()):
    self._options, self._tolerance, self._pixels = options, tolerance, pixels
    # The parts are not on the map's scale before they are weighted.
    self._linear = ml_collections.ConfigDict({**options, "saturation": 0.0})
    self._groups = np.unique(np.asarray(groups), return_inverse=True)[1]
    self._parts: list[np.ndarray] = []   # [k, 2C] filtered residual parts, positive then negative
    self._truth: list[np.ndarray] = []   # [k] bool
    self._group: list[np.ndarray] = []   # [k]
    # Pixels whose score is 0 whatever the weights: [patients, normal or lesion].
    self._zeros = np.zeros((self._groups.max(initial=0) + 1, 2))
    self._plain = np.zeros((2, detection.CODES))  # the map of the config's own weights, all pixels
    self._summary: dict[str, Any] = dict(about)

  def update(self, batch, outputs) -> None:
    """Takes the pixels of a batch; see tasks.base.BaseEvaluator.update.

    Raises:
      UserError: val has no masks, or the method gives no reconstruction.
    """
    if "mask" not in batch or "recon" not in outputs:
      raise UserError("config.eval.fit_residual needs masks in the val split and a method that "
                       "reconstructs; turn it off")
    valid, image = np.asarray(batch["valid"]), jnp.asarray(batch["image"])
    residual = image - outputs["recon"]
    kept = scores.inside(scores.foreground(image), self._options)
    parts = jnp.concatenate([jnp.maximum(residual, 0), jnp.maximum(-residual, 0)], -1)
    parts = np.asarray(scores.finished(parts, image, kept, self._linear))[valid]
    truth = np.asarray(batch["mask"])[valid].reshape(-1) > 0
    # The median of a sum is not the sum of medians: what the fit is compared with is the map itself.
    o = self._options
    own = scores.residual_map(residual, o.get("weights_positive", ()), o.get("weights_negative", ()))
    plain = detection.code_of(np.asarray(scores.finished(own, image, kept, o))[valid].reshape(-1))
    for y in (False, True):
      self._plain[int(y)] += np.bincount(plain[truth == y], minlength=detection.CODES)
    group = np.repeat(self._groups[np.asarray(batch["position"])[valid]], parts[0, ..., 0].size)
    parts = parts.reshape(-1, parts.shape[-1])
    seen = parts.any(-1)
    np.add.at(self._zeros, (group[~seen], truth[~seen].astype(int)), 1)
    self._parts.append(parts[seen])
    self._truth.append(truth[seen])
    self._group.append(group[seen])

  def result(self) -> dict[str, Any]:
    """{"weights_positive": [C], "weights_negative": [C]} for config.method.score.

    Raises:
      UserError: no lesion pixel in val.
    """
    parts, truth = np.concatenate(self._parts), np.concatenate(self._truth)
    group, share = np.concatenate(self._group), min(1.0, self._pixels / max(len(truth), 1))
    if not truth.any():
      raise UserError("config.eval.fit_residual needs lesions in the val split; it has none")
    kept = np.random.default_rng(0).random(len(truth)) < share
    parts, truth, group = parts[kept], truth[kept], group[kept]
    zeros = share * self._zeros
    best = self._fit(parts, truth, zeros.sum(0))
    self._summary |= {"pixel_ap_plain": float(detection.average_precision(self._plain)),
                     "pixel_ap_fitted": _ap(parts @ best, truth, zeros.sum(0)),
                     "pixel_ap_other_patients": self._held_out(parts, truth, group, zeros)}
    half = len(best) // 2
    rounded = [round(float(w), 4) for w in best]
    return {"weights_positive": rounded[:half], "weights_negative": rounded[half:]}

  def summary(self) -> dict[str, Any]:
    """Pixel AP on val: of the map without the fit, of the fitted ones, and of weights fitted on the other
    patients only (five folds); NaN where there are too few patients."""
    return self._summary

  def _held_out(self, parts, truth, group, zeros, folds=5):
    """AP of all pixels, each scored with weights that were fitted without its patient."""
    fold = np.arange(len(zeros)) % min(folds, len(zeros))
    score = np.zeros(len(truth))
    for k in range(fold.max() + 1):
      own = fold[group] == k
      if not own.any():
        continue
      if not truth[~own].any():
        return float("nan")
      score[own] = parts[own] @ self._fit(parts[~own], truth[~own], zeros[fold != k].sum(0))
    return _ap(score, truth, zeros.sum(0))

  def _fit(self, parts, truth, zeros):
    """Weights [2C] of mean 1: the best ones, or their mean with the prior."""
    best = self._best(parts, truth, zeros)
    return best if self.prior is None else (best + self.prior) / 2

  def _best(self, parts, truth, zeros):
    value = lambda w: _ap(parts @ w.astype(np.float32), truth, zeros)
    best = max(_starts(parts.shape[1] // 2), key=value)
    best_ap, improved = value(best), True
    while improved:
      improved = False
      for i in range(len(best)):
        for factor in _FACTORS if best[i] else (0.25, 1.0):
          trial = best.copy()
          trial[i] = best[i] * factor if best[i] else factor
          if not trial.any():
            continue
          trial *= len(trial) / trial.sum()
          ap = value(trial)
          if ap > best_ap * (1 + self._tolerance):
            best, best_ap, improved = trial, ap, True
    return best


def _starts(channels):
  one, none = np.eye(channels), np.zeros(channels)
  starts = [np.ones(2 * channels), np.r_[np.ones(channels), none], np.r_[none, np.ones(channels)]]
  starts += [np.r_[row, none] for row in one] + [np.r_[none, row] for row in one]
  return [s * 2 * channels / s.sum() for s in starts]


def _ap(score, truth, zeros):
  code = detection.code_of(score)
  counts = np.stack([np.bincount(code[truth == y], minlength=detection.CODES) for y in (False, True)])
  counts = counts.astype(np.float64)
  counts[:, 0] += zeros
  return float(detection.average_precision(counts))
