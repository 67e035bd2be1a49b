"""Restoration of single images: detected marks are filled, every other pixel stays bit for bit.

For <name>.<ext> below the input folder: <name>.<ext> at the same place below the output folder
(lossless: JPEG becomes PNG, DICOM stays DICOM with only its pixels changed), masks/<name>_mask.png
(0 or 255) and compare/<name>.png (before, after, what was changed); where the input has folders called
masks or compare, these two are masks_2 and compare_2. Size, bit depth and colour are
those of the input; larger inputs than config.predict.tile are cut into overlapping tiles.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np

from data_pipelines.formats import dicom, doubts, images as frames
from data_pipelines.intake import counts, find as finder
from data_pipelines.intake.names import result_names, same
from medae_jax.core import files
from medae_jax.core.errors import UserError
from medae_jax.core.trained_on import fit
from medae_jax.reporting import panels
from medae_jax.scores.marks import find as find_marks
from medae_jax.tasks.base import BasePredictor
from medae_jax.tasks.restoration import inpaint
from medae_jax.tasks.restoration.fields import TILE_MULTIPLE

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class Predictor(BasePredictor):
  """See the module's docstring."""

  def __init__(self, config, calibration, score_fn):
    super().__init__(config, calibration, score_fn)
    self._root, self._names, self._folders = pathlib.Path(), {}, {}

  def find_inputs(self, input_path):
    source = pathlib.Path(input_path)
    output = self.config.predict.output
    if source.is_dir() and output and pathlib.Path(output).resolve().is_relative_to(source.resolve()):
      raise UserError(f"--output={output} lies inside --input={source}: nothing is ever written "
                      "into the input folder; choose another --output")
    self.found = finder.find(source, ("image", "dicom"))
    if not self.found.files and not self.found.broken:
      raise counts.Nothing(source, self.found, ("image", "dicom"))
    self._root = source if source.is_dir() else source.parent
    self._names = result_names(self.found.files, self._root)  # a.jpg and a.png would both be a.png
    taken = {same(pathlib.PurePosixPath(n).parts[0]) for n in self._names.values()}
    self._folders = {kind: next(n for n in (kind, *(f"{kind}_{i}" for i in range(2, 10_000)))
                                if same(n) not in taken) for kind in ("masks", "compare")}
    return self.found.files

  def name_of(self, item):
    return counts.shown(item, self._root)

  def predict_one(self, item, out_dir) -> dict[str, Any]:
    frame = frames.read(item, self.config.data.get("window", (0, 0)))
    if frame.unsaid:
      self.gate.warn(self.name_of(item), frame.unsaid)
    unit = frame.unit()
    # Grey and colour are brought to each other here: only the kind of the picture can be wrong.
    words = tuple(filter(None, [dicom.modality(item)]))
    aspect, oblong = doubts.aspect(item)
    seen = fit.Seen("image", unit.shape[-1], fit.colour_share(unit[0]), dicom=words, oblong=oblong,
                    aspect=aspect, intent=dicom.intent(item), greys=doubts.few_greys(unit))
    self.gate.form(self.name_of(item), dataclasses.replace(seen, coloured=0.0))
    self.gate.content(self.name_of(item), seen, self._fed(unit))
    restored, marks, tiles = self._restore(unit)
    pixels = frame.pixels.copy()
    pixels[marks] = frame.stored(restored)[marks]  # nothing else is written: bit-identical elsewhere
    *folders, stem = self._names[item].split("/")
    folder, out_dir = pathlib.Path(*folders), pathlib.Path(out_dir)
    target = frames.write(frame, pixels, out_dir / folder, stem, self.config.predict.identifiers)
    frame.pixels = pixels
    self._pictures(out_dir, folder, stem, unit, frame.unit(), marks)
    one = self.config.predict.masks and len(unit) == 1
    return {"output": target.relative_to(out_dir).as_posix(),
            "mask": f"{self._folders['masks']}/{self._names[item]}_mask.png" if one else "",
            "frames": len(unit),
            "height": unit.shape[1], "width": unit.shape[2], "channels": unit.shape[3],
            "bits": 8 * pixels.itemsize, "tiles": tiles, "marked_pixels": int(marks.sum()),
            "marked_share": float(marks.mean())}

  def _pictures(self, out_dir, folder, stem, before, after, marks):
    for n, (old, new, mask) in enumerate(zip(before, after, marks)):
      name = stem if len(before) == 1 else f"{stem}_{n:03d}"
      if self.config.predict.masks:
        files.write_png(out_dir / self._folders["masks"] / folder / f"{name}_mask.png",
                          np.where(mask, 255, 0).astype(np.uint8))
      if self.config.predict.compare:
        shown = panels.verdict_overlay(old.mean(-1), mask, None, (0, 1))
        cells = [[panels.colour(old), panels.colour(new), shown]]
        files.write_png(out_dir / self._folders["compare"] / folder / f"{name}.png", panels.grid(
            cells, ("input", "restored", "changed pixels"),
            [f"{mask.mean():.2%} of the pixels changed"], name))

  # ------------------------------------------------------------------------------ the network
  def _fed(self, unit):
    """Frames with as many channels as the network reads: grey is repeated, colour becomes luma."""
    wanted = int(self.config.data.channels)
    if unit.shape[-1] == 1 and wanted == 3:
      return np.repeat(unit, 3, -1)
    return (unit @ _LUMA)[..., None] if unit.shape[-1] == 3 and wanted == 1 else unit

  def _restore(self, unit):
    """(restored float32 [N,H,W,C], marks bool [N,H,W], number of tiles) of frames in [0,1]."""
    channels, wanted = unit.shape[-1], int(self.config.data.channels)
    fed = self._fed(unit)
    recon, evidence, tiles = self._tiled(fed)
    s = self.config.method.score
    found = find_marks(evidence, s.threshold, int(s.dilate))[..., 0]
    if channels == 1 and wanted == 3:
      recon = recon.mean(-1, keepdims=True)
    elif channels == 3 and wanted == 1:
      # The network knows luminance only: the colour under a mark comes from around it.
      tint = np.stack([inpaint.harmonic(u - f, m) for u, f, m in zip(unit, fed, found)])
      recon = np.clip(recon + tint, 0, 1)
    filled = [inpaint.restored(s.fill, u, r, m) for u, r, m in zip(unit, recon, found)]
    return np.stack(filled), found, tiles

  def _tiled(self, images):
    """(recon [N,H,W,C], map [N,H,W,1], tiles): overlapping tiles, blended by distance to their rim."""
    n, height, width, _ = images.shape
    side, overlap = int(self.config.predict.tile), int(self.config.predict.overlap)
    tall, wide = (min(-(-v // TILE_MULTIPLE) * TILE_MULTIPLE, side) for v in (height, width))
    rows, cols = _starts(height, tall, overlap), _starts(width, wide, overlap)
    grow = ((0, 0), (0, max(tall - height, 0)), (0, max(wide - width, 0)), (0, 0))
    padded = np.pad(images, grow, mode="symmetric") if grow[1][1] or grow[2][1] else images
    total = [np.zeros((*padded.shape[:3], c), np.float32) for c in (images.shape[-1], 1)]
    weight = np.zeros(padded.shape[1:3], np.float32)
    places = [(k, r, c) for k in range(n) for r in rows for c in cols]
    chunk = min(int(self.config.eval.batch_size), len(places))
    for begin in range(0, len(places), chunk):
      some = places[begin:begin + chunk]
      full = some + [some[-1]] * (chunk - len(some))  # one shape is compiled
      batch = np.stack([padded[k, r:r + tall, c:c + wide] for k, r, c in full])
      found = self.score_fn({"image": batch})
      parts = [np.asarray(found[key], np.float32) for key in ("recon", "map")]
      for i, (k, r, c) in enumerate(some):
        ramp = np.outer(_ramp(r, tall, padded.shape[1], overlap),
                        _ramp(c, wide, padded.shape[2], overlap)).astype(np.float32)
        for whole, part in zip(total, parts):
          whole[k, r:r + tall, c:c + wide] += ramp[..., None] * part[i]
        if k == 0:
          weight[r:r + tall, c:c + wide] += ramp
    recon, evidence = ((t / weight[..., None])[:, :height, :width] for t in total)
    return recon, evidence, len(rows) * len(cols)


def _starts(length: int, tile: int, overlap: int) -> list[int]:
  """First pixels of tiles that cover `length`; the last one ends at the border."""
  if length <= tile:
    return [0]
  count = -(-(length - overlap) // (tile - overlap))
  return [int(v) for v in np.round(np.linspace(0, length - tile, count))]


def _ramp(start: int, tile: int, length: int, overlap: int) -> np.ndarray:
  """Weights of a tile along one axis: they fall off over the overlap, but not at the image's rim."""
  at = np.arange(tile, dtype=float)
  weight = np.ones(tile)
  if overlap:
    if start > 0:
      weight = np.minimum(weight, (at + 1) / (overlap + 1))
    if start + tile < length:
      weight = np.minimum(weight, (tile - at) / (overlap + 1))
  return weight
