"""Detectors without a network, that a model is shown beside: a threshold on the intensity of one channel.

As it is inside the foreground, after a 5x5 median, and, where the model's own map is smoothed along edges
(config.method.score.guided), smoothed along them as well: what a filter adds is not the network's merit.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any

import jax

from medae_jax.scores import guided, residual

PLAIN = "intensity"


def names(config) -> tuple[str, ...]:
  """"intensity", and with a suffix of metrics.dictionary.BASELINES the same after filters."""
  return (PLAIN, f"{PLAIN}_median5", *([f"{PLAIN}_guided"] if _score(config).get("guided", 0) else []))


def maps_and_scores(config) -> Callable[[Any], tuple[dict[str, jax.Array], dict[str, jax.Array]]]:
  """Jitted: image [B,H,W,C] -> ({name: map [B,H,W,1]}, {name: image score [B]}), for each of `names`."""
  score = _score(config)
  how = score.get("image_score", "mean")
  edges = (score.guided, score.guided_eps, score.guide_channel) if score.get("guided", 0) else None
  return _program(config.eval.baseline_channel, how if how in residual.IMAGE_SCORES else "mean", edges)


@functools.lru_cache(maxsize=4)
def _program(channel: int, how: str, edges: tuple[int, float, int] | None):
  """One for all splits of a process; `edges`: radius, eps and channel of the guided filter, or none."""
  def found(image):
    body = residual.foreground(image)
    plain = residual.intensity_map(image, channel)
    maps = {PLAIN: plain, f"{PLAIN}_median5": residual.median_filter(plain, 5)}
    if edges:
      radius, eps, guide = edges
      maps[f"{PLAIN}_guided"] = guided.guided_filter(maps[f"{PLAIN}_median5"], guided.guide_of(image, guide),
                                                     body, radius, eps)
    return maps, {name: residual.image_score(value, how, body) for name, value in maps.items()}
  return jax.jit(found)


def _score(config):
  return config.method.get("score", {})
