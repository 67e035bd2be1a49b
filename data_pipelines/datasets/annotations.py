"""Pairs out of clean frames alone: annotations are drawn on the fly, anew for every example.

Training: the marks of place p in the stream are a function of (seed, p), drawn inside tf.data.
Evaluation: those of a frame are a function of (eval_seed, file name), the same in every run.
The marks of style=reference are drawn on frames of their own size, which come to config.data.resize after it,
as its files of pairs do; those of the catalogue on frames of that size.
With an empty config.data.dir the frames themselves are synthetic (data_pipelines/pairs/ultrasound.py).
`python -m data_pipelines.prepare pairs` stores such pairs on disk for other programs.
"""

from __future__ import annotations

import concurrent.futures
import pathlib
import zlib

import ml_collections
import numpy as np

from data_pipelines.dataset import DataSet
from data_pipelines.errors import UserError
from data_pipelines.formats import images
from data_pipelines.intake import counts
from data_pipelines.marks import catalogue, layers, options, reference
from data_pipelines.ops import resize
from data_pipelines.pairs import frames, ultrasound
from data_pipelines.pairs.splits import groups_of, split_names


def defaults() -> ml_collections.ConfigDict:
  """Fields of config.data: those of `frames.defaults`, and `marks`."""
  fields = frames.defaults("annotations")
  fields.frames = (96, 16, 24)     # synthetic frames of train, val, test, where dir is empty
  fields.frame_size = (128, 128)   # (height, width) of these
  fields.eval_seed = 7             # of the marks on validation and test frames
  fields.marks = marks = ml_collections.ConfigDict()  # what is drawn
  marks.style = "catalogue"        # catalogue, or reference = the original's generator, no other field
  marks.unmarked = 0.1             # share of frames that stay as they are
  marks.count = (1, 5)             # marks a frame, (low, high)
  marks.kinds = ("calipers:4", "label:3", "trace", "box", "arrow", "table", "header", "ruler", "bar",
                 "body_mark", "sign")  # "name" or "name:weight"
  marks.colours = ("white:6", "yellow:2", "cyan", "green", "red", "orange", "light_grey:2",
                   "grey")  # likewise
  marks.opacity = (0.5, 1.0)       # of a mark, (low, high)
  marks.size = 1.0                 # factor on all lengths; 1 suits a frame that fills the file
  marks.blur = (0.0, 1.0)          # standard deviation of the marks' blur in pixels, (low, high)
  marks.jpeg = 0.0                 # share of pairs whose two images go through JPEG
  marks.jpeg_quality = (60, 95)    # of these, (low, high)
  marks.fonts = ()                 # TrueType files besides the built-in fonts
  return fields


def resolve(data_cfg) -> ml_collections.ConfigDict:
  """All fields, checked.

  Raises:
    UserError: an unknown field or kind of mark, or a value out of range.
  """
  cfg = frames.resolve(data_cfg, defaults())
  if cfg.marks.style not in ("catalogue", "reference"):
    raise UserError(f"config.data.marks.style={cfg.marks.style!r}: use catalogue or reference")
  options.check(cfg.marks)
  return cfg


def spec(data_cfg):
  """See fields.Spec."""
  return frames.spec_of(resolve(data_cfg))


def read_example(path, data_cfg) -> np.ndarray:
  """A frame as scoring sees it: float32 [H,W,C] in [0,1]."""
  return frames.read_resized(path, resolve(data_cfg))


class CleanFrame(frames.Item):
  """A clean frame, on which `pair` draws."""

  def load(self):
    clean = images.read_unit(self.path, self.cfg.channels, self.cfg.window)
    self.size = tuple(self.cfg.resize) if any(self.cfg.resize) else clean.shape[:2]
    return (clean if self.cfg.marks.style == "reference" else resize.unit_image(clean, self.size),)

  def pair(self, rng=None):
    clean, = self.arrays()
    return annotate_and_resize(clean, rng, self.cfg.marks, self.cfg.resize)


class SyntheticFrame(CleanFrame):
  """A synthetic ultrasound-like frame."""

  def __init__(self, name, number, cfg):
    super().__init__(name, pathlib.Path(name), name, cfg)
    self._number = number

  def load(self):
    frame = ultrasound.frame(np.random.default_rng([20240, self._number]), self.cfg.frame_size)
    clean = np.repeat(frame[..., None], self.cfg.channels, -1)
    self.size = tuple(self.cfg.resize) if any(self.cfg.resize) else clean.shape[:2]
    return (clean,)


def annotate(clean: np.ndarray, rng: np.random.Generator, marks
             ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Draws on a frame: (annotated, clean, mask), float32 [H,W,C], [H,W,C], [H,W,1].

  `clean` comes back as it was, but for the share `jpeg`, where both images carry its traces.
  """
  if marks["style"] == "reference":
    found, blur, jpeg = reference.draw(rng, clean), 0.0, 0.0
  else:
    found = catalogue.draw(rng, clean, marks)
    blur, jpeg = rng.uniform(*marks["blur"]), marks["jpeg"]
  annotated, mask = layers.compose(clean, found, blur)
  if rng.random() < jpeg:
    quality = rng.integers(marks["jpeg_quality"][0], marks["jpeg_quality"][1] + 1)
    annotated, clean = layers.jpeg(annotated, quality), layers.jpeg(clean, quality)
  return annotated, clean, mask


def annotate_and_resize(clean: np.ndarray, rng: np.random.Generator, marks, size: tuple[int, int]):
  """`annotate`, then all three at `size` (height, width), as files of pairs are read; (0, 0): as they are."""
  annotated, clean, mask = annotate(clean, rng, marks)
  if not any(size):
    return annotated, clean, mask
  return resize.unit_image(annotated, size), resize.unit_image(clean, size), resize.any_mark(mask, size)


def draw_op(marks, size=(0, 0)):
  """Example op: {"clean"} -> {"image", "clean", "mask"}; numpy and Pillow inside tf.data."""
  from data_pipelines.tf import tf
  marks = marks.to_dict()

  def call(clean, seed):
    rng = np.random.default_rng([int(s) & 0x7FFFFFFF for s in seed])
    return annotate_and_resize(clean, rng, marks, size)

  def op(example, seed):
    shape = example["clean"].shape
    shape = [*size, shape[-1]] if any(size) else shape
    image, clean, mask = tf.numpy_function(call, [example["clean"], seed], [tf.float32] * 3,
                                           stateful=False)
    image.set_shape(shape)
    clean.set_shape(shape)
    mask.set_shape([*shape[:2], 1])
    return {**example, "image": image, "clean": clean, "mask": mask}
  return op


class DrawnWindows(frames.Windows):
  """Training windows of frames that are drawn on inside the stream."""

  def __init__(self, items, cfg):
    super().__init__(items, cfg, draw_op(cfg.marks, tuple(cfg.resize)))

  def read_one(self, i):
    return {"clean": self.items[int(i)].arrays()[0]}


class AnnotationDataSet(frames.PairDataSet):
  """Clean frames with drawn annotations."""

  def train(self):
    return DrawnWindows(self._items["train"], self.cfg)

  def split(self, name):
    super().split(name)  # checks the name
    seed = int(self.cfg.eval_seed)
    draw = lambda item: np.random.default_rng([seed, zlib.crc32(item.name.encode())])
    return frames.WholeFrames(self._items[name], draw)


def build(data_cfg, seed: int) -> DataSet:
  """Clean frames of config.data.dir (or synthetic ones) with drawn annotations.

  Raises:
    FileNotFoundError, ValueError: one line; see `paired.build`.
  """
  cfg = resolve(data_cfg)
  options.check_fonts(cfg.marks.fonts)
  if not cfg.dir:
    return _synthetic(cfg, seed)
  root = pathlib.Path(cfg.dir)
  if not root.is_dir():
    raise FileNotFoundError(f"folder {root} does not exist; see config.data.dir")
  folder = counts.subfolder(root, cfg.clean_dir)
  folder = folder if folder.is_dir() else root
  files = frames.list_frames(folder, cfg.strict)
  names = [p.relative_to(folder).as_posix() for p in files]
  items = [CleanFrame(n, p, g, cfg) for n, p, g in zip(names, files, groups_of(names, folder, cfg))]
  usable, problems = frames.load_all(items, [], cfg.strict)
  name = f"{root.name} (real frames, synthetic annotations)"
  return AnnotationDataSet(name, cfg, usable, split_names(usable, root, cfg), problems, seed)


def _synthetic(cfg, seed):
  numbers = np.cumsum([0, *cfg.frames])
  items, split_of = [], {}
  for split, low, high in zip(("train", "val", "test"), numbers, numbers[1:]):
    for i in range(low, high):
      items.append(SyntheticFrame(f"synthetic_{i:05d}", i, cfg))
      split_of[items[-1].name] = split
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    for item, arrays in zip(items, pool.map(lambda i: i.load(), items)):
      item.cache = arrays
  found = AnnotationDataSet("synthetic_ultrasound", cfg, items, split_of, [], seed)
  found.synthetic = True
  return found
