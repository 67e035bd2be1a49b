"""Fields of config.eval and config.predict that belong to restoration, and their ranges."""

from __future__ import annotations

from medae_jax.core import checks
from medae_jax.core.errors import UserError

EVAL = dict(
    fit_threshold=True,       # choose method.score.threshold on val
    threshold_beta=2.0,       # by the best F-beta of marked pixels; 2 = missing one costs more
    residual_level=10.0,      # grey levels of 255: a mark pixel nearer to the truth is removed
    panels=6,                 # frames in the picture
    inpaint="auto")           # baselines that know the true mask: auto (OpenCV too, where it is
                              # installed), harmonic, opencv, none

PREDICT = dict(
    tile=512,                 # larger inputs are cut into tiles of this side
    overlap=64,               # pixels that neighbouring tiles share
    compare=True,             # write side-by-side pictures
    masks=True,               # write masks
    identifiers="derived")    # what of a header travels, docs/formats.md: derived (a changed DICOM
                              # image is a new object), same (all of it), none (nothing personal)

TILE_MULTIPLE = 32  # sides are padded to multiples of it, so that few shapes are compiled

RULES = {
    "eval.fit_threshold": checks.flag,
    "eval.threshold_beta": checks.number(0, 1000, above=True),
    "eval.residual_level": checks.number(0),
    "eval.panels": checks.whole(0, 65536),
    "eval.inpaint": checks.choice("auto", "harmonic", "opencv", "none"),
    "predict.tile": checks.whole(TILE_MULTIPLE, 65536),
    "predict.overlap": checks.whole(0, 32768),
    "predict.compare": checks.flag,
    "predict.masks": checks.flag,
    "predict.identifiers": checks.choice("derived", "same", "none"),
    "method.score.threshold": checks.number(0),  # above 1 nothing is a mark
    "method.score.dilate": checks.whole(0, 65536),
    "method.score.fill": checks.choice("network", "harmonic"),
}


def check(config, channels: int | None) -> None:
  """What depends on more than one field; `channels` of the images does not matter here.

  Raises:
    UserError: the field, and what is allowed.
  """
  del channels
  p = config.predict
  if 2 * p.overlap > p.tile or p.tile % TILE_MULTIPLE:
    raise UserError(f"config.predict.tile={p.tile} must be a multiple of {TILE_MULTIPLE} and at "
                    f"least twice config.predict.overlap={p.overlap}")
