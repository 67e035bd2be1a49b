"""What a data set module may define, and what happens where it leaves something out."""

from __future__ import annotations

from collections.abc import Callable
import logging
import tempfile

import numpy as np
from PIL import Image

from data_pipelines import fields
from data_pipelines.formats import images
from data_pipelines.ops import resize

_WARNED: set[str] = set()  # data sets that were told so already


class Module:
  """A data set module as the modes use it: its own functions, else the defaults below.

  A module has
    defaults() -> ConfigDict          every field with a comment, starting from fields.common(name)
    resolve(data_cfg) -> ConfigDict   defaults and given fields, checked: fields.resolve and ranges
    spec(data_cfg) -> fields.Spec     shape and range of "image" without opening a file
    build(data_cfg, seed) -> DataSet
    read_example(path, data_cfg)      float32 [h,w,C]: a file as scoring sees it (two-dimensional sets)
    place_map(values, shape, data_cfg)  a map [h,w] of read_example on the file's pixels (H, W)
    of_pixels(data_cfg)               the same two as functions of pixels, for many fields of a slide
  Only `build` is needed. Without `defaults`, fields are taken as given and not checked.

  Attributes:
    name: config.data.name.
  """

  def __init__(self, name: str, module, build: Callable | None = None):
    self.name, self._module, self._build = name, module, build

  def defaults(self):
    """ConfigDict of all fields, None where the module declares none."""
    own = getattr(self._module, "defaults", None)
    return own() if own else None

  def resolve(self, data_cfg):
    """All fields, checked.

    Raises:
      UserError: a field that does not exist, or a value out of range.
    """
    own, known = getattr(self._module, "resolve", None), self.defaults()
    if own:
      return own(data_cfg)
    return data_cfg if known is None else fields.resolve(data_cfg, known)

  def spec(self, data_cfg) -> fields.Spec:
    """By default from image_size, channels and modalities, and of unknown range."""
    own = getattr(self._module, "spec", None)
    if own:
      return own(data_cfg)
    size = data_cfg.get("image_size", None) or (None, None)
    size = (size, size) if np.ndim(size) == 0 else tuple(size)
    channels = data_cfg.get("channels", None) or len(data_cfg.get("modalities", ())) or None
    return fields.Spec((*size, channels), None, None)

  def build(self, data_cfg, seed: int):
    """The DataSet, opened."""
    own = self._build or getattr(self._module, "build", None)
    if own is None:
      logging.warning("%s defines `open`: call it `build`, `open` hides Python's own", self.name)
      own = self._module.open
    return own(data_cfg, seed)

  def read_example(self, path, data_cfg, shape=None) -> np.ndarray:
    """float32 [h,w,C] of a file.

    By default grey levels scaled to 0 ... 1 and resized, with a warning.

    Args:
      shape: (h, w, C) that the network wants, for modules without a reader of their own.
    """
    own = getattr(self._module, "read_example", None)
    if own:
      return np.asarray(own(path, data_cfg), np.float32)
    if self.name not in _WARNED:
      _WARNED.add(self.name)
      logging.warning("the data set %s has no read_example: images are scaled to 0 ... 1 and "
                      "resized, whatever training did", self.name)
    height, width, channels = shape or self.spec(data_cfg).shape
    image = images.read_unit(path, channels or 0, data_cfg.get("window", (0, 0)))
    size = (height or image.shape[0], width or image.shape[1])
    return resize.bilinear(image, size).astype(np.float32)

  def of_pixels(self, data_cfg, shape=None) -> tuple[Callable, Callable]:
    """(example, place), for many fields of a slide: what would be done with files of their pixels.

    example(uint8 [H,W,3]) is what `read_example` makes of such a file, place(values, (H, W)) what
    `place_map` does. By default such a file is written and read.

    Args:
      shape: as in `read_example`.
    """
    own = getattr(self._module, "of_pixels", None)
    if own:
      return own(data_cfg)

    def example(pixels):
      with tempfile.NamedTemporaryFile(suffix=".png") as file:
        Image.fromarray(pixels).save(file, "PNG", compress_level=1)
        file.flush()
        return self.read_example(file.name, data_cfg, shape)
    return example, lambda values, size: self.place_map(values, size, data_cfg)

  def place_map(self, values, shape, data_cfg) -> np.ndarray:
    """[H,W] of a map [h,w]; by default the map covers the whole file."""
    own = getattr(self._module, "place_map", None)
    if own:
      return own(values, shape, data_cfg)
    return resize.bilinear(values, shape)
