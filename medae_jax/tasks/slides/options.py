"""Ranges of the group config.predict.slide (its defaults: core/fields.py), without JAX."""

from __future__ import annotations

from medae_jax.core import checks

RULES = {
    "predict.slide": checks.group,
    **dict.fromkeys(("predict.slide.mpp", "predict.slide.magnification", "predict.slide.own_mpp"),
                    checks.number(0, 1000)),
    **dict.fromkeys(("predict.slide.tile", "predict.slide.margin", "predict.slide.pixel",
                     "predict.slide.fields"), checks.whole(0, 65536)),
    **dict.fromkeys(("predict.slide.tissue", "predict.slide.top"), checks.number(0, 1)),
    "predict.slide.least": checks.whole(1, 2**31 - 1),
    "predict.slide.map": checks.choice("pixels", "tiles"),
}
