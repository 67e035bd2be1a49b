"""Synthetic textures with foreign patches, for demonstrations and tests: not patients.

A normal image is stripes of one scale and direction (filtered noise) under smooth shading. An
anomalous one has an ellipse in which the texture has another scale, another direction, or a dark
blob on top; mean and contrast of the ellipse are those of its surroundings except for the blob, so
that pixel values alone say little. The split "val" has anomalies of one kind only (confined
variability), "test" has all three; masks show the ellipses.
"""

from __future__ import annotations

import ml_collections
import numpy as np
from scipy import ndimage

from data_pipelines import fields as data_fields
from data_pipelines.dataset import ArraySource, DataSet
from data_pipelines.errors import UserError
from data_pipelines.formats import images
from data_pipelines.one_class import transforms
from data_pipelines.ops import resize

KINDS = ("scale", "direction", "blob")


def defaults() -> ml_collections.ConfigDict:
  """Fields of config.data."""
  fields = data_fields.common("synthetic_textures")
  fields.image_size = 32           # side of the images, at least 8
  fields.channels = 1              # 1 or 3
  fields.data_seed = 0             # of the images; not config.seed, so that runs compare
  fields.signed = True             # images in [-1, 1]; False: in [0, 1]
  fields.n_train = 512             # training images
  fields.n_val = 64                # validation images, half of them anomalous
  fields.n_test = 200              # test images, half of them anomalous
  fields.window = (0, 0)           # (black, white) of deep image files and DICOM; (0, 0) = by their
                                   # headers and the rule of docs/formats.md
  return fields


def resolve(data_cfg) -> ml_collections.ConfigDict:
  """All fields, checked.

  Raises:
    UserError: an unknown field, channels other than 1 and 3, or sizes too small.
  """
  cfg = data_fields.resolve(data_cfg, defaults())
  if cfg.channels not in (1, 3) or cfg.image_size < 8:
    raise UserError(f"config.data: channels={cfg.channels} must be 1 or 3, image_size="
                    f"{cfg.image_size} >= 8")
  data_fields.at_least(cfg, n_train=1, n_val=2, n_test=2)
  return cfg


def spec(data_cfg) -> data_fields.Spec:
  """Images as they are shown to the network."""
  cfg = resolve(data_cfg)
  return data_fields.Spec((cfg.image_size, cfg.image_size, cfg.channels), -1 if cfg.signed else 0, 1)


def build(data_cfg, seed: int) -> DataSet:
  """The data set; drawn from config.data.data_seed, whatever the seed of the run.

  Raises:
    UserError: see `resolve`.
  """
  del seed
  cfg = resolve(data_cfg)
  return Textures(cfg.image_size, cfg.channels,
                  {k: cfg[f"n_{k}"] for k in ("train", "val", "test")}, cfg.data_seed, cfg.signed)


def read_example(path, data_cfg) -> np.ndarray:
  """An image file as the network wants it: grey or colour, resized, in [-1,1] (or [0,1]) [S,S,C]."""
  cfg = resolve(data_cfg)
  image = resize.antialiased(images.read_8bit(path, cfg.channels, cfg.window), cfg.image_size)
  return transforms.normalize(image) if cfg.signed else image.astype(np.float32) / 255


class Textures(DataSet):
  """Everything in memory; `splits` are "val" and "test", half normal, half anomalous."""

  name, synthetic, splits = "synthetic textures", True, ("val", "test")

  def __init__(self, size, channels, counts, seed, signed=True):
    rngs = np.random.default_rng(seed).spawn(4)

    def make(rng, n, kinds):
      image, mask, kind = _images(rng, n, size, channels, kinds)
      return image if signed else (image + 1) / 2, mask, kind
    self._train = make(rngs[0], counts["train"], (None,))
    self._healthy = make(rngs[1], max(counts["val"] // 2, 1), (None,))
    self._eval = {}
    for name, rng, kinds in (("val", rngs[2], KINDS[:1]), ("test", rngs[3], KINDS)):
      half = counts[name] // 2
      normal = self._healthy if name == "val" else make(rng, half, (None,))
      odd = make(rng, half, kinds)
      self._eval[name] = tuple(np.concatenate(pair) for pair in zip(normal, odd))

  def train(self):
    return ArraySource({"image": self._train[0]})

  def validation(self):
    return ArraySource({"image": self._healthy[0]})

  def split(self, name):
    if name not in self._eval:
      raise UserError(f"{self.name} has no split {name!r}; it has val and test")
    image, mask, kind = self._eval[name]
    label = (kind >= 0).astype(np.int32)
    metas = [{"id": f"synthetic_{name}_{i:04d}", "group": f"{name}_{i:04d}",
              "kind": "normal" if k < 0 else KINDS[k]} for i, k in enumerate(kind)]
    return ArraySource({"image": image, "mask": mask, "label": label}, metas)


def _images(rng, n, size, channels, kinds):
  """image float32 [n,S,S,C] in [-1,1], mask float32 [n,S,S,1], kind int [n] (-1 = normal)."""
  images, masks, found = [], [], []
  for child in rng.spawn(n):
    kind = kinds[int(child.integers(len(kinds)))]
    image, mask = _one(child, size, kind)
    tint = child.uniform(0.8, 1.0, channels) if channels == 3 else np.ones(1)
    images.append(np.clip(image[..., None] * tint, -1, 1))
    masks.append(mask[..., None])
    found.append(-1 if kind is None else KINDS.index(kind))
  stack = lambda arrays: np.stack(arrays).astype(np.float32)
  return stack(images), stack(masks), np.array(found)


def _one(rng, size, kind):
  texture = _stripes(rng, size, 0.055, np.deg2rad(rng.normal(30, 6)))
  shading = 0.35 * _smooth(rng, size, 0.25)
  mask = np.zeros((size, size))
  if kind is not None:
    mask = _ellipse(rng, size)
    if kind == "scale":
      other = _stripes(rng, size, 0.11, np.deg2rad(30))
    elif kind == "direction":
      other = _stripes(rng, size, 0.055, np.deg2rad(120))
    else:
      other = 0.4 * texture - 1.2
    soft = ndimage.gaussian_filter(mask, 0.015 * size)
    texture = (1 - soft) * texture + soft * other
  return 0.3 * texture + shading + 0.02 * rng.standard_normal((size, size)), mask


def _stripes(rng, size, width, angle):
  """Noise smoothed along one direction: mean 0, deviation 1; `width` in shares of the side."""
  noise = rng.standard_normal((2 * size, 2 * size))
  noise = ndimage.gaussian_filter(noise, (4 * width * size, width * size * 0.5))
  noise = ndimage.rotate(noise, np.rad2deg(angle), reshape=False, order=1, mode="wrap")
  crop = noise[size // 2:size // 2 + size, size // 2:size // 2 + size]
  return (crop - crop.mean()) / (crop.std() + 1e-9)


def _smooth(rng, size, width):
  field = ndimage.gaussian_filter(rng.standard_normal((size, size)), width * size, mode="wrap")
  return field / (np.abs(field).max() + 1e-9)


def _ellipse(rng, size):
  v, u = np.mgrid[:size, :size] / size
  a, b = rng.uniform(0.12, 0.22, 2)
  cy, cx = rng.uniform(0.28, 0.72, 2)
  return (((v - cy) / a)**2 + ((u - cx) / b)**2 <= 1).astype(np.float64)
