"""Synthetic chest radiographs with findings and masks, for demonstrations and tests: not patients.

Training sees normal radiographs; val and test are half normal, half with one of the findings of
chest/phantom.py in turn. Values are in [0, 1], as those of `chest_xray`.
"""

from __future__ import annotations

import zlib

import ml_collections
import numpy as np

from data_pipelines import fields as data_fields
from data_pipelines.chest import phantom
from data_pipelines.dataset import ArraySource, DataSet
from data_pipelines.errors import UserError
from data_pipelines.formats import images
from data_pipelines.ops import resize


def defaults() -> ml_collections.ConfigDict:
  """Fields of config.data."""
  fields = data_fields.common("synthetic_radiographs")
  fields.image_size = 64           # side of the images, at least 8
  fields.channels = 1              # radiographs are grey
  fields.data_seed = 0             # of the images; not config.seed, so that runs compare
  fields.n_train = 512             # training images, all normal
  fields.n_val = 64                # validation images, half of them with a finding
  fields.n_test = 200              # test images, half of them with a finding
  fields.signed = False            # images in [-1, 1] instead of [0, 1]
  fields.findings = phantom.FINDINGS  # that val and test show, in turn
  fields.window = (0, 0)           # (black, white) of deep image files and DICOM; (0, 0) = by their
                                   # headers and the rule of docs/formats.md
  return fields


def resolve(data_cfg) -> ml_collections.ConfigDict:
  """All fields, checked.

  Raises:
    UserError: an unknown field or finding, channels other than 1, or numbers too small.
  """
  cfg = data_fields.resolve(data_cfg, defaults())
  if cfg.channels != 1 or cfg.image_size < 8:
    raise UserError(f"config.data: channels={cfg.channels} must be 1 and image_size={cfg.image_size} >= 8")
  if not cfg.findings or set(cfg.findings) - set(phantom.FINDINGS):
    raise UserError(f"config.data.findings={tuple(cfg.findings)}: take some of {', '.join(phantom.FINDINGS)}")
  data_fields.at_least(cfg, n_train=1, n_val=2, n_test=2)
  return cfg


def spec(data_cfg) -> data_fields.Spec:
  """Images as they are shown to the network."""
  cfg = resolve(data_cfg)
  return data_fields.Spec((cfg.image_size, cfg.image_size, 1), -1 if cfg.signed else 0, 1)


def build(data_cfg, seed: int) -> DataSet:
  """The data set; drawn from config.data.data_seed, whatever the seed of the run.

  Raises:
    UserError: see `resolve`.
  """
  del seed
  return Radiographs(resolve(data_cfg))


def read_example(path, data_cfg) -> np.ndarray:
  """A radiograph's file as the network wants it: grey, resized, float32 [S,S,1] in [0, 1] or [-1, 1]."""
  cfg = resolve(data_cfg)
  image = resize.antialiased_float(images.read_unit(path, 1, cfg.window), (cfg.image_size,) * 2)
  return 2 * image - 1 if cfg.signed else image


def place_map(values, shape, data_cfg):
  """A map [S,S] of `read_example` on the image's own pixels, float64 [H,W]."""
  del data_cfg
  return resize.bilinear(values, shape)


class Radiographs(DataSet):
  """Everything in memory; `splits` are "val" and "test", half normal, half with a finding.

  meta(i) has "finding", "normal" or one of config.data.findings, beside "id" and "patient"; batches have
  "image", "mask" (the finding), "lungs" (both lung fields, [B,S,S,1], 0 or 1) and "label".
  """

  name, synthetic, splits = "synthetic radiographs", True, ("val", "test")

  def __init__(self, cfg):
    self._cfg = cfg
    self._scored = {name: self._draw(name, ["normal"] * (n // 2) + [
        cfg.findings[i % len(cfg.findings)] for i in range(n - n // 2)])
        for name, n in (("val", cfg.n_val), ("test", cfg.n_test))}
    self._train = self._draw("train", ["normal"] * cfg.n_train)

  def _draw(self, split, findings):
    """Radiograph i is the same however many there are."""
    drawn = [phantom.radiograph(np.random.default_rng([self._cfg.data_seed, zlib.crc32(split.encode()), i]),
                                self._cfg.image_size, "" if finding == "normal" else finding)
             for i, finding in enumerate(findings)]
    arrays = {key: np.stack([d[key] for d in drawn])[..., None].astype(np.float32)
              for key in ("image", "mask", "lungs")}
    if self._cfg.signed:
      arrays["image"] = 2 * arrays["image"] - 1
    arrays["label"] = np.array([finding != "normal" for finding in findings], np.int32)
    metas = [{"id": f"synthetic_{split}_{i:04d}", "patient": f"{split}_{i:04d}", "finding": finding}
             for i, finding in enumerate(findings)]
    return ArraySource(arrays, metas)

  def train(self):
    return ArraySource({"image": self._train.arrays["image"]}, self._train.metas)

  def validation(self):
    val = self._scored["val"]
    normal = np.flatnonzero(val.arrays["label"] == 0)
    return ArraySource({"image": val.arrays["image"][normal]}, [val.metas[i] for i in normal])

  def split(self, name):
    if name not in self._scored:
      raise UserError(f"{self.name} has no split {name!r}; it has val and test")
    return self._scored[name]
