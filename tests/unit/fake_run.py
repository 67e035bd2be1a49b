"""A workdir with a known detector and known data, for tests of evaluate, predict and report.

The detector's reconstruction is the image with everything above 0.6 cut off: its map is known in
closed form. The data: patients of 16x20 slices with a bright square in some of them.
"""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from configs import common
from data_pipelines.dataset import ArraySource, DataSet
from medae_jax.core import checkpoint, files
from medae_jax.core.method import BaseMethod, State
from medae_jax.scores import residual

SHAPE = (16, 20)


class Method(BaseMethod):
  """recon = min(image, level)."""

  def init(self, rng, batch):
    return State.create({"net": {"level": jnp.float32(0.6)}})

  def score(self, state, batch):
    s, image = self.config.method.score, batch["image"]
    recon = jnp.minimum(image, state.params["net"]["level"])
    raw = residual.residual_map(image - recon, s.weights_positive, s.weights_negative)
    anomaly = residual.median_filter(raw * residual.erode(residual.foreground(image), s.erosion), s.median)
    return {"recon": recon, "map": anomaly, "score": residual.image_score(anomaly, s.image_score)}

  def pictures(self, state, batch, rng):
    return {"noised": batch["image"] + 0.1, "recon": batch["image"]}


class Brains(DataSet):
  """Two-channel slices; `lesions`, `masks`, `labels` say what the splits have."""
  name, synthetic = "synthetic_squares", True

  def __init__(self, cfg, seed):
    self._cfg, self._seed = cfg, seed
    self.splits = tuple(cfg.splits)

  def split(self, name):
    rng = np.random.default_rng(self._seed + len(name))
    n, image, mask = 11, rng.uniform(0.2, 0.5, (11, *SHAPE, 2)), np.zeros((11, *SHAPE, 1))
    image[:, :, :2] = 0  # background
    for i in range(n):
      bright = slice(4 + i % 3, 11)
      if self._cfg.lesions and i % 2:
        mask[i, bright, 8:16] = 1
        image[i, bright, 8:16] = [0.8, 0.9]
      image[i, 1:3, 4:18, 0] = 0.95  # a rim that the erosion of the map removes, not the threshold
    arrays = {"image": image.astype(np.float32)}
    if self._cfg.masks:
      arrays["mask"] = mask.astype(np.float32)
    if self._cfg.labels:
      arrays["label"] = mask.any((1, 2, 3)).astype(np.int32)
    metas = [{"id": f"p{i // 3}/{i}", "patient": f"p{i // 3}", "slice": i} for i in range(n)]
    return ArraySource(arrays, metas)


def open(data_cfg, seed):
  return Brains(data_cfg, seed)


def config(**data):
  """The run's config, not locked."""
  c = common.base()
  c.method = ml_collections.ConfigDict({
      "name": "tests.unit.fake_run:Method",
      "score": {"weights_positive": (), "weights_negative": (), "erosion": 3, "median": 3,
                "image_score": "mean"}})
  c.model = ml_collections.ConfigDict()
  c.data = ml_collections.ConfigDict({
      "name": "tests.unit.fake_run", "splits": ("val", "test"), "lesions": True, "masks": True,
      "labels": True, "modalities": ("flair", "t1"), "image_size": SHAPE})
  c.data.update(data)
  c.eval.update(batch_size=4, bootstrap=50, panel_images=5, components=3)
  return c


def make(workdir, put=None, **data):
  """Writes config.json and a checkpoint into `workdir`; returns it."""
  return write(workdir, config(**data), put)


def write(workdir, c, put=None, noted=None):
  """As `make`, with a config of one's own; `put`: sharding of the saved parameters; `noted`: the
  batch of the stage, {"image": [shape, dtype]}."""
  files.write_json(workdir / "config.json", c.to_dict())
  state = jax.device_put(Method(c).init(None, None), put)
  saver = checkpoint.Checkpoints(workdir)
  saver.save("last", state, {"stage": "main", "best": None, "batches": {"main": noted} if noted else {},
                             "checksum": checkpoint.checksum(state.params)})
  saver.close()
  return workdir


class ScoreOnly(Method):
  """A method without maps and reconstructions, with negative scores."""

  def score(self, state, batch):
    return {"score": batch["image"].mean((1, 2, 3)) - 5.0}
