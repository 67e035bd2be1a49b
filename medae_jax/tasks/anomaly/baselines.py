"""Detectors without a network, that a model is shown beside: a threshold on the intensity of one channel.

As it is inside the foreground, after a 5x5 median, and, where the model's own map is smoothed along edges
(config.method.score.guided), smoothed along them as well: what a filter adds is not the network's merit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from medae_jax.scores import guided, residual

PLAIN = "intensity"


def names(config) -> tuple[str, ...]:
  """"intensity", and with a suffix of metrics.dictionary.BASELINES the same after filters."""
  return (PLAIN, f"{PLAIN}_median5", *([f"{PLAIN}_guided"] if _score(config).get("guided", 0) else []))


def maps_and_scores(config) -> Callable[[Any], tuple[dict[str, jax.Array], dict[str, jax.Array]]]:
  """Jitted: image [B,H,W,C] -> ({name: map [B,H,W,1]}, {name: image score [B]}), for each of `names`."""
  score, channel = _score(config), config.eval.baseline_channel
  how = score.get("image_score", "mean")
  how = how if how in residual.IMAGE_SCORES else "mean"

  def found(image):
    body = residual.foreground(image)
    plain = residual.intensity_map(image, channel)
    maps = {PLAIN: plain, f"{PLAIN}_median5": residual.median_filter(plain, 5)}
    if score.get("guided", 0):
      edges = guided.guide_of(image, score.guide_channel)
      maps[f"{PLAIN}_guided"] = guided.guided_filter(maps[f"{PLAIN}_median5"], edges, body, score.guided,
                                                     score.guided_eps)
    return maps, {name: residual.image_score(value, how, body) for name, value in maps.items()}
  return jax.jit(found)


def _score(config):
  return config.method.get("score", {})
