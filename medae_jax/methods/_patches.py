"""Patch features of a frozen backbone for PaDiM and PatchCore: fitted streamed, scored on the device.

Roth et al. 2022, section 3.1: each position of a tap is averaged with its neighbourhood, the taps are
brought to one grid and concatenated. Each tap is divided by the root of the mean squared length of its
vectors, over the first batch of normal images, and by the root of the number of taps: taps count alike,
vectors are about 1 long, and eq. 7, which takes exponentials of distances, means the same for every
backbone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.losses.box import box_sum
from medae_jax.scores import memory_bank, padim

KINDS = ("padim", "patchcore")


def patches(maps: Mapping[str, jax.Array], taps: Sequence[str], size: int, grid: int) -> jax.Array:
  """One vector a position: [B,h,w,C], C the channels of all taps.

  Args:
    maps: {tap: [B,h,w,c]}.
    size: side of the neighbourhood that is averaged, odd; 1 = none.
    grid: rows and columns of the result at most; 0 = those of the finest tap.
  """
  found = [_averaged(maps[tap], size) for tap in taps]
  h, w = max((f.shape[1:3] for f in found), key=lambda s: s[0] * s[1])
  if grid and max(h, w) > grid:
    h, w = (max(1, round(side * grid / max(h, w))) for side in (h, w))
  return jnp.concatenate([f if f.shape[1:3] == (h, w) else jax.image.resize(
      f, (f.shape[0], h, w, f.shape[3]), "bilinear") for f in found], -1)


def _averaged(x, size):
  """Means over size x size positions, of those inside the map."""
  if size == 1:
    return x
  add = lambda v: box_sum(v, size, size // 2)
  return add(x) / add(jnp.ones((1, *x.shape[1:3], 1), x.dtype))


def scales(rows: np.ndarray, widths: Sequence[int]) -> np.ndarray:
  """What each channel is multiplied by: float32 [C], from patches [B,h,w,C] of normal images."""
  mean = (np.asarray(rows, np.float64)**2).mean((0, 1, 2))
  parts = np.split(mean, np.cumsum(widths)[:-1])
  each = [np.full(len(p), 1 / np.sqrt(max(p.sum(), 1e-12) * len(parts))) for p in parts]
  return np.concatenate(each).astype(np.float32)


class Fit:
  """Takes the patches of normal images batch by batch.

  Memory on the host: 1.5 * 4 `candidates` C bytes; on the device 8 P d^2 for PaDiM and 512 bytes a
  candidate for the coreset.

  Args:
    config: config.method. widths: channels of each tap. seed: of projections, candidates, coreset.
  """

  def __init__(self, config, widths: Sequence[int], seed: int):
    self._config, self._widths, self._seed = config, tuple(widths), seed
    self._scale: np.ndarray | None = None
    self._gaussians = padim.Gaussians()
    self._candidates = memory_bank.Reservoir(config.patchcore.candidates, seed)

  def add(self, rows: np.ndarray, valid: np.ndarray) -> None:
    """Takes patches [B,h,w,C], of which the images where `valid` [B] is True count."""
    c, valid = self._config, np.asarray(valid, bool)
    if not valid.any():
      return
    if self._scale is None:
      self._scale = scales(rows[valid], self._widths)
      self._reduce = padim.reduction(self._seed, len(self._scale), c.padim.dims, c.padim.reduce)
    rows = np.asarray(rows) * self._scale
    if "padim" in c.scores:
      self._gaussians.add(_reduced(jnp.asarray(rows), self._reduce), valid)
    if "patchcore" in c.scores:
      self._candidates.add(rows[valid].reshape(-1, rows.shape[-1]))

  def result(self) -> dict:
    """{"scale" [C], "padim": {"reduce", "mean", "whiten"}, "patchcore": {"bank"}}: arrays for State.extra.

    Raises:
      UserError: too few images.
    """
    c, found = self._config, dict[str, Any](scale=self._scale)
    if "padim" in c.scores:
      found["padim"] = {"reduce": self._reduce, **self._gaussians.fit(c.padim.eps)}
    if "patchcore" in c.scores:
      rows = self._candidates.rows()
      size = min(c.patchcore.most, max(1, round(c.patchcore.share * len(rows))))
      found["patchcore"] = {"bank": memory_bank.build(rows, size, self._seed)[0]}
    return found


@jax.jit
def _reduced(rows, reduce):
  flat = rows.reshape(rows.shape[0], rows.shape[1] * rows.shape[2], rows.shape[3])
  return jnp.matmul(flat, reduce, precision="highest")


def score(kind: str, rows: jax.Array, fitted: Mapping, neighbours: int) -> tuple[jax.Array, jax.Array]:
  """(distances [B,h,w,1], image scores [B]) of patches [B,h,w,C]; higher = more anomalous.

  Args:
    kind: "padim" (the image's score is the largest distance) or "patchcore".
    fitted: what `Fit.result` returned. neighbours: as for memory_bank.score.
  """
  b, h, w, channels = rows.shape
  rows = (rows * fitted["scale"]).reshape(b, h * w, channels)
  if kind == "padim":
    f = fitted["padim"]
    distance = padim.distances(jnp.matmul(rows, f["reduce"], precision="highest"), f["mean"], f["whiten"])
    image = distance.max(-1)
  else:
    distance, image = memory_bank.score(rows, fitted["patchcore"]["bank"], neighbours)
  return distance.reshape(b, h, w, 1), image


def smoothed(x: jax.Array, sigma: float) -> jax.Array:
  """Gaussian filter of maps [B,H,W,1], sigma in pixels, cut at 3 sigma; borders are repeated."""
  if sigma <= 0:
    return x
  reach = max(1, round(3 * sigma))
  weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma)**2)
  weights = jnp.asarray(weights / weights.sum(), x.dtype)
  x = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
  for shape in ((-1, 1, 1, 1), (1, -1, 1, 1)):
    x = jax.lax.conv_general_dilated(x, weights.reshape(shape), (1, 1), "VALID", precision="highest",
                                     dimension_numbers=("NHWC", "HWIO", "NHWC"))
  return x
