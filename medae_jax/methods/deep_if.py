"""Deep isolation forest (Ouardini et al., MIL3ID 2019): an isolation forest on ImageNet features.

Nothing is trained. Images are resized to 299x299, run through a frozen network (InceptionResNetV2
in the paper; any backbone here), and one map or several are averaged over rows and columns and
concatenated. `finalize` fits an isolation forest to these rows of normal images (scores/forest.py),
and the forest's score of an image's row is its anomaly score.

Fields of `config.method` besides those of _features.py:
  forest.trees, forest.samples   of scikit-learn's IsolationForest: 100 trees of 256 images
`taps` is what the public code calls feature_extraction_type: "default" = conv2d_7b, one of the
eleven layers, or "concat". The forest's random state is config.seed.

Deviations from the public code, all on purpose: higher = more anomalous (the public score is the
negative); the seed is the forest's own, not NumPy's global one; features stay in one file on disk
instead of a list of rows; any device. There is no map: the method says nothing about places.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medae_jax.core import checks
from medae_jax.core.method import BaseMethod, State
from medae_jax.methods import _features
from medae_jax.scores import forest

_RULES = {"method.forest.trees": checks.whole(1, 100_000), "method.forest.samples": checks.whole(2, 2**24)}


class Method(BaseMethod):
  needs = {"image": _features.NEED}
  fits = True
  frozen = (_features.NET,)

  def __init__(self, config):
    super().__init__(config)
    checks.apply(config, _RULES)
    self.features = _features.Features(config)

  def stages(self):
    return ()

  def pretrained(self):
    return self.features.pretrained()

  def init(self, rng, batch):
    del rng
    self.features.check_shape(batch["image"].shape)
    f = self.config.method.forest
    forest.check_options(f)
    unfitted = forest.unfitted(f.trees)
    return State.create(self.features.init_params(), extra={"forest": jax.tree.map(jnp.asarray, unfitted)})

  def finalize(self, state, batches):
    """The state with a forest grown on the features of all images, in float32."""
    f = self.config.method.forest
    grown = forest.fit(self.features.rows(state, batches), trees=f.trees, samples=f.samples,
                       seed=self.config.seed)
    return state.replace(extra={"forest": jax.tree.map(jnp.asarray, grown)})

  def prepare(self, state, batch):
    return self.features.prepare(state, batch)

  def score(self, state, batch):
    """{"score" [B]} in (0, 1): typical images are near 0.5, anomalous ones towards 1.

    "features" [B,D], where the batch has them, stand for its images.
    """
    rows = (batch["features"] if "features" in batch
            else self.features.pooled(state.params, batch["image"]))
    return {"score": forest.score(state.extra["forest"], rows)}
