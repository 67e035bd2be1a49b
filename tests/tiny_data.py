"""A synthetic toy data set for the contract tests: smooth blobs, some with a bright square."""

import numpy as np

from data_pipelines.dataset import ArraySource, DataSet
from data_pipelines.ops import coarse_noise


def _images(n, seed, size, anomalous):
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:size, :size] / (size - 1) - 0.5
  centre, width = rng.uniform(-.1, .1, (n, 2, 1, 1)), rng.uniform(.1, .2, (n, 1, 1))
  image = np.exp(-((y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2) / (2 * width**2))
  image[image < 0.05] = 0
  mask = np.zeros_like(image)
  if anomalous:
    for i in range(1, n, 2):
      at = rng.integers(size // 4, size // 2, 2)
      mask[i, at[0]:at[0] + size // 6, at[1]:at[1] + size // 6] = 1
  image = image + 0.7 * mask
  as4 = lambda a: a[..., None].astype(np.float32)
  return {"image": as4(image), "mask": as4(mask), "label": mask.any((1, 2)).astype(np.int32)}


class Tiny(DataSet):
  name = "synthetic_tiny"
  synthetic = True
  splits = ("val", "test")

  def __init__(self, cfg, seed):
    self._cfg, self._seed = cfg, seed

  def _source(self, n, seed, anomalous, noisy=False):
    arrays = _images(n, seed, self._cfg.image_size, anomalous)
    metas = [{"id": str(i), "patient": f"p{i // 4}", "slice": i % 4} for i in range(n)]
    ops = [coarse_noise.coarse_noise(4, 0.2)] if noisy and self._cfg.get("noise", True) else []
    return ArraySource(arrays, metas, batch_ops=ops)

  def train(self):
    if self._cfg.get("streams", False):
      return {"noisy": self._source(20, 1, True), "clean": self._source(9, 2, True)}
    return self._source(20, 1, False, noisy=True)

  def validation(self):
    if self._cfg.get("streams", False):
      return {"noisy": self._source(8, 3, True), "clean": self._source(8, 4, True)}
    return self._source(10, 3, False, noisy=True)

  def split(self, name):
    return self._source(12, {"val": 5, "test": 6}[name], True)


def build(data_cfg, seed):
  return Tiny(data_cfg, seed)
