"""A tiny DAE for tests of export, convert and bench: config, reference-named tensors, a workdir."""

import ml_collections
import numpy as np

from configs import common


def config(depth=2, wf=2, channels=2, size=16, score=(), **train):
  """Locked config of a DAE that needs no data set; `score`: fields of config.method.score."""
  c = common.base()
  c.method = ml_collections.ConfigDict(dict(
      name="dae", loss_over="all",
      score=dict(weights_positive=(), weights_negative=(), erosion=5, median=5, image_score="mean",
                 test_noise_draws=0, test_noise_res=4, test_noise_std=0.2, test_noise_mirror=0)))
  c.method.score.update(dict(score))
  c.model = ml_collections.ConfigDict(dict(depth=depth, wf=wf, dtype="float32", precision="",
                                           remat=False))
  c.optim = ml_collections.ConfigDict(dict(
      lr=1e-3, schedule="constant", b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-5, clip=0.5,
      amsgrad=True))
  c.data = ml_collections.ConfigDict(dict(
      name="none", image_size=size, channels=channels, noise_res=4, noise_std=0.2,
      noise_roll="batch"))
  c.train.update(dict(batch_size=4, steps=4, **train))
  return c.lock()


def torch_tensors(depth=2, wf=2, channels=2, seed=0):
  """A state dict of the public code: its names, its layouts, random values."""
  rng, out = np.random.default_rng(seed), {}
  put = lambda name, *shape: out.__setitem__(
      name, (0.3 * rng.normal(size=shape) + (len(shape) == 1)).astype(np.float32))

  def block(prefix, a, b):
    for conv, norm, width in ((1, 3, a), (5, 7, b)):
      put(f"{prefix}.{conv}.weight", b, width, 3, 3)
      for i in (conv, norm):
        if i == norm:
          put(f"{prefix}.{i}.weight", b)
        put(f"{prefix}.{i}.bias", b)

  widths = [2 ** (wf + i) for i in range(depth)]
  for i, w in enumerate(widths):
    block(f"down_path.{i}.block", channels if i == 0 else widths[i - 1], w)
  for j in range(depth - 1):
    w = widths[depth - 2 - j]
    put(f"up_path.{j}.up.weight", 2 * w, w, 2, 2)
    put(f"up_path.{j}.up.bias", w)
    block(f"up_path.{j}.conv_block.block", 2 * w, w)
  put("last.weight", channels, widths[0], 1, 1)
  put("last.bias", channels)
  return out
