"""Fields of config.eval and config.predict that belong to segmentation, and their ranges."""

from __future__ import annotations

from medae_jax.core import checks, fields
from medae_jax.tasks.slides import options as slides

EVAL = dict(
    measures=(),              # more of them: surface, lesions, probability (docs/scores.md)
    surface_tolerance=2.0,    # pixels within which surfaces agree
    overlays=16)              # most suspicious noisy masks to draw, and as many trusted ones

PREDICT = dict(
    slide=fields.SLIDE,       # of whole slides
    threshold=0.0)            # probability that makes a pixel lesion; 0 = the one calibrated on
                              # val, else 0.5

RULES = {
    **slides.RULES,
    "eval.measures": checks.several(checks.choice("surface", "lesions", "probability")),
    "eval.surface_tolerance": checks.number(0),
    "eval.overlays": checks.whole(0, 65536),
    "predict.threshold": checks.number(0, 1, below=True),
}


def check(config, channels: int | None) -> None:
  """Nothing depends on several fields."""
  del config, channels
