"""Small one-class sets for tests: fields of config.data, and an .npz of images that tell their index."""

import ml_collections
import numpy as np

RNG = np.random.default_rng(0)


def cfg_of(**fields):
  return ml_collections.ConfigDict(fields)


def npz(folder, n=120, size=32):
  y = np.arange(n) % 10
  x = RNG.integers(0, 256, (n, size, size, 3), np.uint8)
  x[:, 0, 0, 0] = np.arange(n)  # an image tells its own index
  np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x[:40], y_test=y[:40])
  return x, y
