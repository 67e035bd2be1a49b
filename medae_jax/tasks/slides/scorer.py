"""Tiles of a slide through a run: what the network is shown, and where its map belongs on the tile."""

from __future__ import annotations

from typing import Any

import numpy as np

from data_pipelines import dataset as datasets
from medae_jax.core.errors import UserError
from medae_jax.core.trained_on import changed
from medae_jax.tasks import admit

_PIXELS = 8  # tile pixels a pixel of the map, at most


class Scorer:
  """How a run sees tiles.

  Attributes:
    tile, margin, pixel: as in config.predict.slide, decided.
    has_map: False where the map is the score of the tile: by config.predict.slide.map, or because the
      method gives nothing else; known once something is scored.
  """

  def __init__(self, config, image_shape, score_fn):
    module = datasets.module(config.data.name)
    self._example, self._place = module.of_pixels(config.data, image_shape)
    self._score_fn, self._logit = score_fn, config.eval.kind == "segmentation"
    slide = config.predict.slide
    self.tile = slide.tile or _tile(config.data)
    example = self.example(np.full((self.tile, self.tile, 3), 255, np.uint8))
    # Pixels of the tile that the network does not see (a centre crop) can only be context.
    seen = self._place(np.ones(example.shape[:2]), (self.tile, self.tile)) > 0.99
    middle = np.flatnonzero(seen[self.tile // 2])
    unseen = max(middle[0], self.tile - 1 - middle[-1]) if len(middle) else self.tile
    self.margin = max(slide.margin, int(unseen))
    core = self.tile - 2 * self.margin
    if core < 1:
      raise UserError(f"config.predict.slide.margin={slide.margin}: nothing is left of a tile of {self.tile}")
    self._of_tiles = slide.map == "tiles"
    usual = max(p for p in range(1, _PIXELS + 1) if core % p == 0)
    self.pixel = slide.pixel or (core if self._of_tiles else usual)
    if core % self.pixel:
      raise UserError(f"config.predict.slide.pixel={self.pixel} does not divide the {core} pixels of a tile "
                      "without its margin")
    self.has_map = True

  def example(self, pixels: np.ndarray) -> np.ndarray:
    """float32 [h,w,C] of uint8 [tile,tile,3]."""
    return np.asarray(self._example(pixels), np.float32)

  def start(self, batch: np.ndarray) -> dict[str, Any]:
    """Scoring begins; the device works while the host does something else."""
    return self._score_fn({"image": batch})

  def finish(self, found: dict[str, Any], n: int) -> tuple[np.ndarray, np.ndarray]:
    """(cores float32 [n,c,c], scores [n]) of the first n images of a batch.

    Segmentation: probabilities, and their mean over the core.

    Raises:
      UserError: the score is not finite.
    """
    key = "logit" if self._logit else "map"
    self.has_map = key in found and not self._of_tiles
    if self.has_map or self._logit:
      cores = np.stack([self._core(m[..., 0]) for m in np.asarray(found[key], np.float32)[:n]])
    scores = cores.mean((1, 2)) if self._logit else np.asarray(found["score"], np.float32)[:n]
    if not self.has_map:
      side = (self.tile - 2 * self.margin) // self.pixel
      cores = np.broadcast_to(scores[:, None, None], (n, side, side)).astype(np.float32)
    admit.check_finite(scores, cores)
    return cores, scores

  def _core(self, values):
    placed = self._place(values, (self.tile, self.tile))
    if self._logit:  # logits are resized, not probabilities
      placed = 1 / (1 + np.exp(-np.clip(placed, -80, 80)))
    inside = placed[self.margin:self.tile - self.margin, self.margin:self.tile - self.margin]
    side = inside.shape[0] // self.pixel
    return inside.reshape(side, self.pixel, side, self.pixel).mean((1, 3)).astype(np.float32)


def _tile(data) -> int:
  """Side of a tile where config.predict.slide.tile leaves it open."""
  if data.get("crop_size", 0) and not data.get("resize", 0):
    return int(data.crop_size)
  raise UserError("config.predict.slide.tile=0: the images of this run were resized; give the side in pixels "
                  "of the patches that it was trained on, --config.predict.slide.tile=224, say")


def resolution(config, slide) -> float:
  """Level-0 pixels of a slide a tile pixel.

  Raises:
    UserError: nothing says the resolution of the training; the slide's is unknown, or coarser.
  """
  mpp, power = changed.slide_scale(config)
  if not mpp and not power:
    raise UserError("nothing says at which resolution this run's patches were taken: give "
                    "--config.predict.slide.mpp=0.5 (micrometres a pixel) or "
                    "--config.predict.slide.magnification=20")
  return slide.downsample_of(mpp=mpp) if mpp else slide.downsample_of(magnification=power)
