"""Scores of a denoising autoencoder's residual on brains, and detectors without a network.

A candidate maps `Fold` to the maps [n,h,w] of its test slices, >= 0; what it fits, it fits on val.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import ml_collections
import numpy as np
from scipy import ndimage

from medae_jax.metrics import similarity
from medae_jax.scores import guided, residual as scores
from medae_jax.tasks.anomaly import residual_fit

_EROSION = 5  # published


@dataclasses.dataclass(eq=False)  # hashable: weights are kept
class Fold:
  """Arrays of one trained run.

  Attributes:
    val, drawn, test: {"image", "recon", "mean4", "mirrored2" [n,h,w,C], "mask" [n,h,w], "patient",
      "slice" [n]}; `mean4` is the image minus its mean residual over four draws of noise, `mirrored2`
      the same over two draws, one of them on the image mirrored front to back.
    healthy: float32 [n,h,w,C], training slices.
  """

  val: dict[str, np.ndarray]
  drawn: dict[str, np.ndarray]
  test: dict[str, np.ndarray]
  healthy: np.ndarray

  @functools.cache  # noqa: B019 (a fold lives as long as its study)
  def weights(self, lesions: str, recon: str, patients: int = 0, erosion: int = _EROSION) -> np.ndarray:
    """[2C] of mean 1, fitted to "marked" or "drawn" lesions of val, the first `patients` alone (0 = all)."""
    part = getattr(self, "val" if lesions == "marked" else "drawn")
    kept = np.isin(part["patient"], _names(part)[:patients or None])
    options = ml_collections.ConfigDict({"erosion": erosion, "median": 5})
    fit = residual_fit.ResidualFit(options, part["patient"][kept], pixels=300_000)
    fit.update({"image": part["image"][kept], "mask": part["mask"][kept, ..., None],
                "valid": np.ones(kept.sum(), bool), "position": np.arange(kept.sum())},
               {"recon": part[recon][kept]})
    found = fit.result()
    return np.array([*found["weights_positive"], *found["weights_negative"]])

  @functools.cached_property
  def over_medians(self) -> Fold:
    """The same with image and reconstruction in units of the scan's medians inside the brain."""
    return dataclasses.replace(self, **{k: _over_medians(getattr(self, k)) for k in ("val", "drawn", "test")})


def _over_medians(part):
  medians = _medians(part)
  return {**part, **{k: part[k] / medians for k in ("image", "recon", "mean4", "mirrored2")}}


def _medians(part):
  """[n,1,1,C]: of each slice's scan, inside the brain."""
  found = np.ones((len(part["image"]), 1, 1, part["image"].shape[-1]), np.float32)
  body = np.asarray(scores.foreground(part["image"]))[..., 0]
  for name in np.unique(part["patient"]):
    rows = part["patient"] == name
    found[rows] = np.median(part["image"][rows][body[rows]], 0)
  return found


def _names(part):
  """Patients with lesions, in an order that says nothing of them."""
  names = np.unique(part["patient"][part["mask"].any((1, 2))])
  return np.random.default_rng(0).permutation(names)


def filtered(image: np.ndarray, raw: Any, erosion: int = _EROSION) -> np.ndarray:
  """The published filters: eroded foreground, then a 5x5 median; raw [n,h,w,1]."""
  inside = scores.erode(scores.foreground(image), erosion)
  return np.array(scores.median_filter(jnp.asarray(raw, jnp.float32) * inside, 5))[..., 0]


def weighted(fold: Fold, weights, recon: str = "recon", erosion: int = _EROSION) -> np.ndarray:
  """Map of weighted residuals; () = the published mean absolute one."""
  test, half = fold.test, len(weights) // 2
  raw = scores.residual_map(test["image"] - test[recon], weights[:half], weights[half:])
  return filtered(test["image"], raw, erosion)


def _fit(lesions, recon="recon", patients=0):
  return lambda f: weighted(f, f.weights(lesions, recon, patients), recon)


def both(fold: Fold, recon: str = "recon", patients: int = 0, erosion: int = _EROSION) -> np.ndarray:
  """Mean of the weights of marked and of drawn lesions: config.eval.fit_lesions=both."""
  mean = (fold.weights("marked", recon, patients, erosion) + fold.weights("drawn", recon, 0, erosion)) / 2
  return weighted(fold, mean, recon, erosion)


def _mirrored(fold):
  found = both(fold, "mean4")
  other = ndimage.gaussian_filter(found[:, ::-1], (0, 3, 3))  # left-right is the first axis of a slice
  return np.maximum(found - 0.5 * other, 0)


def _smoothed(fold, recon="mean4", erosion=_EROSION):
  return ndimage.gaussian_filter(both(fold, recon, erosion=erosion), (0, 1.5, 1.5))


def _guided(fold, saturation=0.0, drawn=False):
  """The guided filter along FLAIR's edges in place of the Gaussian; two draws, one mirrored, erosion 3."""
  draws, erosion = "mirrored2", 3
  found = (weighted(fold, fold.weights("drawn", draws, 0, erosion), draws, erosion) if drawn
           else both(fold, draws, erosion=erosion))
  return _along_flair(fold, scores.saturated(jnp.asarray(found), saturation))


def _along_flair(fold, found):
  image = jnp.asarray(fold.test["image"])
  own = jnp.asarray(found)[..., None]
  return np.array(guided.guided_filter(own, image[..., :1], scores.foreground(image), 5, 1e-3))[..., 0]


def _neighbours(fold):
  """1-2-1 over the slices of a scan."""
  found = both(fold, "mean4")
  for name in np.unique(fold.test["patient"]):
    rows = np.flatnonzero(fold.test["patient"] == name)
    rows = rows[np.argsort(fold.test["slice"][rows])]
    found[rows] = ndimage.convolve1d(found[rows], [0.25, 0.5, 0.25], axis=0, mode="nearest")
  return found


def _opened(fold):
  """Grey-value opening of 5 pixels: what is smaller goes."""
  return ndimage.grey_opening(both(fold, "mean4"), (1, 5, 5))


def _ssim(fold):
  alike = similarity.ssim_map(fold.test["image"], fold.test["recon"], 7, 1.0).mean(-1, keepdims=True)
  return filtered(fold.test["image"], np.maximum(1 - np.asarray(alike), 0))


# ------------------------------------------------------------------------------- without a network
def _flair(fold, median=0):
  return np.array(scores.intensity_map(fold.test["image"], 0, median))[..., 0]  # a copy that can be written


def _over_median(fold):
  """FLAIR after the median filter, in units of the scan's median inside the brain."""
  return _flair(fold, 5) / _medians(fold.test)[..., 0]


def _equalised(fold):
  """Rank of FLAIR (after the median filter) in the brain of its scan: Meissen 2021."""
  found, body = _flair(fold, 5), np.asarray(scores.foreground(fold.test["image"]))[..., 0]
  for name in np.unique(fold.test["patient"]):
    rows = fold.test["patient"] == name
    ranks = np.sort(found[rows][body[rows]])
    found[rows] = body[rows] * np.searchsorted(ranks, found[rows]) / len(ranks)
  return found


def _components(fold, count=16):
  """Mean absolute residual of the projection on `count` principal components of healthy slices."""
  flat = fold.healthy.reshape(len(fold.healthy), -1)
  mean = flat.mean(0)
  centred = flat - mean
  _, vectors = np.linalg.eigh(centred @ centred.T)
  axes = vectors[:, -count:].T @ centred
  axes /= np.linalg.norm(axes, axis=1, keepdims=True)
  rest = fold.test["image"].reshape(len(fold.test["image"]), -1) - mean
  rest = (rest - (rest @ axes.T) @ axes).reshape(fold.test["image"].shape)
  return filtered(fold.test["image"], np.abs(rest).mean(-1, keepdims=True))


CANDIDATES: dict[str, Callable[[Fold], Any]] = {
    "FLAIR": _flair,
    "FLAIR, 5x5 median": lambda f: _flair(f, 5),
    "FLAIR, 5x5 median, along its own edges": lambda f: _along_flair(f, _flair(f, 5)),
    "FLAIR, 5x5 median, equalised in the scan": _equalised,
    "FLAIR, 5x5 median, over the scan's median": _over_median,
    "16 principal components": _components,
    "published": lambda f: weighted(f, ()),
    "SSIM residual": _ssim,
    "published, 4 draws": lambda f: weighted(f, (), "mean4"),
    "FLAIR brighter alone": lambda f: weighted(f, (3, 0, 0, 0, 0, 0)),
    "weights, drawn": _fit("drawn"),
    "weights, 1 marked patient": _fit("marked", patients=1),
    "weights, 2 marked patients": _fit("marked", patients=2),
    "weights, 4 marked patients": _fit("marked", patients=4),
    "weights, 7 marked patients": _fit("marked", patients=7),
    "weights, all of val marked": _fit("marked"),
    "weights, both, 1 marked patient": lambda f: both(f, patients=1),
    "weights, both, 4 marked patients": lambda f: both(f, patients=4),
    "weights, both": both,
    "weights, drawn, 4 draws": _fit("drawn", "mean4"),
    "weights, all of val marked, 4 draws": _fit("marked", "mean4"),
    "weights, both, 4 draws": lambda f: both(f, "mean4"),
    "..., Gaussian 1.5 px": _smoothed,
    "..., Gaussian 1.5 px, two draws, front-back": lambda f: _smoothed(f, "mirrored2"),
    "..., Gaussian 1.5 px, erosion 3": lambda f: _smoothed(f, erosion=3),
    "..., Gaussian 1.5 px, two draws, front-back, erosion 3": lambda f: _smoothed(f, "mirrored2", 3),
    "..., Gaussian 1.5 px, two draws, front-back, no erosion": lambda f: _smoothed(f, "mirrored2", 0),
    "..., two draws, front-back, erosion 3, along FLAIR's edges": _guided,
    "..., the same, saturated": lambda f: _guided(f, saturation=0.4),
    "..., the same, saturated, drawn lesions alone": lambda f: _guided(f, saturation=0.4, drawn=True),
    "..., residual over the scan's median": lambda f: both(f.over_medians, "mean4"),
    "..., residual over the scan's median, Gaussian 1.5 px": lambda f: _smoothed(f.over_medians),
    "..., opening of 5 px": _opened,
    "..., 1-2-1 over slices": _neighbours,
    "..., minus half of the other side": _mirrored,
}
