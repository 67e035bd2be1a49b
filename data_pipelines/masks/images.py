"""Images paired with masks: checking the files, finding the pairs, examples of one size."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
import concurrent.futures
import dataclasses
import functools
import logging
import pathlib
from typing import Any
import zlib

import numpy as np

from data_pipelines.dataset import Source
from data_pipelines.errors import UserError
from data_pipelines.formats import arrays, doubts, images as formats, lossy
from data_pipelines.intake import counts, find, mask_words
from data_pipelines.masks import exchanged
from data_pipelines.ops import resize

_FILLED = 3  # times as much inside a line as the line has
_LABELS = 15  # a largest value of a grey mask that says: these are numbers of labels
_MANY = 4  # masks of which not nearly all mark the same by chance
_FAINT = 127  # below the middle
_CACHE_BYTES = 2 << 30  # resized images of a source that are kept in memory


@dataclasses.dataclass(frozen=True)
class Item:
  """One image: functions that give it at its native size, and what it is called."""
  id: str
  image: Callable[[], np.ndarray]          # -> uint8 [H,W,3]
  mask: Callable[[], np.ndarray]           # -> float32 [H,W] in [0,1]: the mask trained on
  truth: Callable[[], np.ndarray] | None   # the expert mask, None where there is none
  path: str = ""
  group: str = ""


def read_mask(path, soft: bool = False) -> np.ndarray:
  """float32 [H,W]: 0 and 1, or in [0,1] where `soft`.

  0 and 1, 0 and 255 and, in deeper files, 0 and 65535 are masks, in one channel or in three that are equal.

  Raises:
    UserError: colour, other values, or an unreadable file.
  """
  pixels = formats.read_plain(path, "mask")
  values = pixels[..., 0]
  if pixels.shape[-1] > 1 and ((pixels != pixels[..., :1]).any() or len(np.unique(values)) > 2):
    raise UserError(f"mask {path} has colours: a mask has one channel with 0 and 255. Are the "
                    "folders of images and masks swapped? Else convert it to 8-bit grey.")
  found = np.flatnonzero(np.bincount(values.ravel())) if values.dtype == np.uint8 else (
      np.unique(values))
  for top in (1, 255, 65535):
    if set(found.tolist()) <= {0, top}:
      return (values > 0).astype(np.float32)
  if pixels.dtype != np.uint8:
    odd = next((v for v in found if v not in (0, 255, 65535)), found[-1])
    raise UserError(f"mask {path} has more than 8 bits ({pixels.dtype}) and values such as "
                    f"{odd}: convert it to 8-bit grey")
  if soft and found[-1] <= _LABELS:
    raise UserError(f"mask {path} holds no value above {int(found[-1])}: soft masks are grey, 255 = lesion; "
                    "these are labels")
  if not soft:
    other = [int(v) for v in found if v not in (0, 255)]
    raise UserError(f"mask {path} holds values such as {other[0]} besides 0 and 255: write "
                    "these two alone (sets of segmentation take grey ones: config.data.soft_masks=True)")
  return values.astype(np.float32) / 255


def read_marks(path) -> np.ndarray:
  """bool [H,W,1]: marked pixels, any value above 0 in any channel.

  Raises:
    UserError: an unreadable file; NaN; JPEG, whose compression leaves faint values around marks; grey
      values by their hundreds, most of them faint: a map of probabilities.
  """
  pixels = formats.read_plain(path, "mask")
  if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
    raise UserError(f"mask {path} holds NaN or infinite pixels")
  if pixels.dtype.kind != "u" and pixels.min(initial=0) < 0:
    raise UserError(f"mask {path} holds negative values: save it as 8-bit grey, 0 and 255")
  if np.any((pixels > 0) & (pixels <= _FAINT)) and (form := lossy.name_of(path)):
    labels = form != "JPEG" and pixels.max(initial=0) <= _LABELS  # may be stored without loss all the same
    if not labels:
      raise UserError(f"mask {path} is a {form} file with values of 1 to {_FAINT}, which its compression has "
                      "made: any value above 0 is a mark; save it without loss, as PNG")
  marks = pixels.max(-1, keepdims=True)
  _check_hard(path, marks[marks > 0])
  return marks > 0


def _check_hard(path, values):
  """Refuses a soft mask: a network's probabilities are above 0 nearly everywhere. Edges may be smooth."""
  faint = values < values.max() / 2 if values.size else values
  if 2 * np.count_nonzero(faint) > values.size and len(np.unique(values)) > _LABELS:
    raise UserError(f"mask {path} holds {len(np.unique(values))} grey values, most of them below half of the "
                    "largest, as probabilities are: any value above 0 is a mark; cut it at one half")


def check_pairs(pairs: Sequence[tuple[Any, Any]], soft: bool = False, window=(0, 0)) -> list[float]:
  """Reads (image, mask) files and checks them; masks that look inverted, or may be turned, are said.

  Returns:
    The share of each mask that is marked.

  Raises:
    As `formats.images.size` and `read_mask`; UserError: an image and its mask differ in size.
  """
  def look(pair):
    return told_of(check_pair(*pair, soft, window))
  with concurrent.futures.ThreadPoolExecutor(16) as pool:  # Pillow decodes without the GIL
    found = list(pool.map(look, pairs))
  doubts.say_of_masks(pairs)
  say_of_shapes([mask for _, mask in pairs], found)
  exchanged.say(pairs, functools.partial(read_mask, soft=soft), window)
  return [told.share for told in found]


@dataclasses.dataclass(frozen=True)
class Told:
  """What a mask looks like: inverted, which share it marks, a line around what is meant, a frame; a
  checksum of its pixels."""
  inverted: bool
  share: float
  line: bool
  frame: bool
  content: int


def told_of(mask: np.ndarray) -> Told:
  """Of [H,W] in [0, 1]."""
  inverted = bool(mask[np.ix_((0, -1), (0, -1))].min() > 0.5 and mask.mean() > 0.5)
  return Told(inverted, float((mask > 0).mean()), _is_outline(mask > 0), _is_frame(mask > 0.5),
              zlib.crc32((mask > 0.5).tobytes()))


def say_of_shapes(masks: Sequence[Any], found: Sequence[Told]) -> None:
  """Warns of masks that look inverted, empty or like lines; `found`: `told_of` each of the files."""
  odd, lines, frames = ([mask for mask, told in zip(masks, found) if getattr(told, name)]
                        for name in ("inverted", "line", "frame"))
  if len(masks) > 1 and not any(told.share for told in found):
    logging.warning("none of %d masks marks anything, the first %s: are they the right ones?", len(masks),
                    masks[0])
  alike = collections.Counter(told.content for told in found if told.share)
  if len(masks) >= _MANY and alike and max(alike.values()) > 0.9 * len(masks):
    logging.warning("%d of %d masks mark the same pixels, the first %s: are they of the field of view, or "
                    "one mask under many names?", max(alike.values()), len(masks), masks[0])
  if 2 * len(lines) > len(masks):
    logging.warning("%d of %d masks are lines around what is meant, the first %s: the lines alone count as "
                    "marked; fill them where the inside is meant", len(lines), len(masks), lines[0])
  if 2 * len(odd) > len(masks):
    logging.warning("%d of %d masks mark all four corners and more than half of the image, the first %s: are "
                    "they inverted? White is the lesion", len(odd), len(masks), odd[0])
  elif frames:  # one among right ones: of 1,000 masks of skin and ultrasound none is so
    logging.warning("%d of %d masks mark the whole border of their image and leave something out within, the "
                    "first %s: is it inverted? White is the lesion", len(frames), len(masks), frames[0])


def _is_frame(mask) -> bool:
  """Whether [H,W] bool marks all pixels of the border, and not all within."""
  return bool(mask[[0, -1]].all() and mask[:, [0, -1]].all() and not mask.all())


def _is_outline(mask) -> bool:
  """Whether [H,W] bool marks far less than what it encloses; looked at on a grid of about 128."""
  step = max(1, max(mask.shape) // 128)
  small = mask[:mask.shape[0] // step * step, :mask.shape[1] // step * step]
  small = small.reshape(small.shape[0] // step, step, -1, step).any((1, 3))
  if not small.any():
    return False
  from scipy import ndimage
  return bool(ndimage.binary_fill_holes(small).sum() > _FILLED * small.sum())


def check_pair(image, mask, soft: bool = False, window=(0, 0)) -> np.ndarray:
  """The mask; raises as `formats.images.size` and `read_mask`, UserError where the two differ in size."""
  values = read_mask(mask, soft)
  sizes = formats.size(image, window), values.shape
  if sizes[0] != sizes[1]:
    text = ["x".join(map(str, s[::-1])) for s in sizes]
    raise UserError(f"image {image} is {text[0]} and its mask {mask} is {text[1]} pixels: bring "
                     "them to the same size first")
  return values


def pair(images, masks) -> list[tuple[str, pathlib.Path, pathlib.Path]]:
  """(name, image, mask) of two folders, sorted; the name is the path below the folder without ending.

  An image belongs to the mask of the same name; a mask's may end in _mask, _seg, _gt ... (intake/mask_words).

  Raises:
    FileNotFoundError: a folder is missing or empty. UserError: a file without partner.
  """
  found: list[dict[str, pathlib.Path]] = []
  for folder, is_mask in ((pathlib.Path(images), False), (pathlib.Path(masks), True)):
    named: dict[str, pathlib.Path] = {}
    for file in counts.files(folder, ("image", "dicom")):
      name = find.without_ending(file.relative_to(folder))
      name = mask_words.image_of(name, found[0]) if is_mask else name
      if name in named:
        raise UserError(f"{named[name]} and {file} differ only in their ending: take one away")
      named[name] = file
    found.append(named)
  mask_words.refuse_several(found[1], found[0])
  for has, lacks, folder in ((found[0], found[1], masks), (found[1], found[0], images)):
    lonely = [f for name, f in has.items() if name not in lacks]
    if lonely:
      raise UserError(f"{len(lonely)} of {len(has)} files have no partner in {folder}, the first: "
                       f"{lonely[0]}; image and mask share their name (a mask may end in "
                       "_mask, _seg, _gt or the like)")
  return [(name, file, found[1][name]) for name, file in found[0].items()]


class Pairs(Source):
  """Items resized to size x size.

  Args:
    items: the list.
    size: side of images and masks. Images bilinear with anti-aliasing; masks by area, cut at one
      half unless `soft`.
    margin: images come larger by so many pixels, for random crops.
    first_sample: "sample" of the first item; None writes -1 for all.
    noisy: how many items count as noisy samples (the rest gets -1); None = all.
    mean_image: float32 [H,W,3] to subtract, or None.
  """

  def __init__(self, items, size, *, margin=0, soft=False, first_sample=None, noisy=None,
               mean_image=None, batch_ops=(), augmented=False):
    self.items, self._side, self._margin, self._soft = items, size + margin, margin, soft
    n = len(items) if noisy is None else noisy
    place = np.arange(len(items), dtype=np.int32)
    self._sample = np.where(place < n, place, -1) if first_sample is not None else 0 * place - 1
    self._mean = mean_image
    self.batch_ops, self._augmented = tuple(batch_ops), augmented
    fits = len(items) * self._side**2 * 7 < _CACHE_BYTES
    self._cache = {} if fits else None

  def __len__(self):
    return len(self.items)

  def read_one(self, i):
    image, mask = self._load(int(i))
    out = {"image": to_network(image, self._side, self._mean),
           "mask": mask[..., None], "sample": self._sample[i]}
    if self._augmented:  # what the ops did to it: filled in by them
      out.update(flip=np.zeros(2, np.int32), crop=np.array([0, 0, self._margin], np.int32))
    return out

  def _load(self, i):
    """(uint8 [S,S,3], float32 [S,S]); what is kept in memory is never written to."""
    if self._cache is not None and i in self._cache:
      return self._cache[i]
    item = self.items[i]
    image = resize.antialiased(item.image(), self._side)
    mask = resize.area(item.mask(), self._side)
    mask = mask if self._soft else (mask >= 0.5).astype(np.float32)
    if self._cache is not None:
      self._cache[i] = (image, mask)
    return image, mask

  def native(self, i) -> dict[str, np.ndarray | None]:
    """{"image" uint8 [H,W,3], "mask" bool [H,W], "truth" bool or None} at the file's own size."""
    item = self.items[int(i)]
    truth = item.truth() > 0.5 if item.truth is not None else None
    return {"image": item.image(), "mask": item.mask() > 0.5, "truth": truth}

  def meta(self, i):
    item = self.items[int(i)]
    return {"id": item.id, "group": item.group or item.id, "path": item.path}


def to_network(image: np.ndarray, side: int, mean_image: np.ndarray | None = None) -> np.ndarray:
  """uint8 [H,W,3] -> float32 [side,side,3] in [0,1], less the mean image [h,w,3] if any."""
  value = resize.antialiased(image, side).astype(np.float32) / 255
  if mean_image is None:
    return value
  return value - resize.antialiased_float(mean_image, (side, side))


def read_mean_image(path) -> np.ndarray:
  """float32 [H,W,3] in [0,1] of a .npy file (`write_mean_image` makes one)."""
  mean = arrays.read(path, "config.data.mean_image")
  if mean.ndim != 3 or mean.shape[-1] != 3 or mean.dtype.kind not in "fiu":
    raise UserError(f"config.data.mean_image={path} holds {mean.dtype} of shape {mean.shape}, not numbers "
                    "[H,W,3]")
  if not (mean.size and mean.min() >= 0 and mean.max() <= 1):  # NaN is neither
    raise UserError(f"config.data.mean_image={path} holds values beyond 0 ... 1, or NaN: divide it by 255 if "
                    "it is of 8-bit images")
  return mean.astype(np.float32)


def write_mean_image(source: Source, path) -> None:
  """Mean over all images of a source, float32 [S,S,3] in [0,1]."""
  total = sum(source.read_one(i)["image"].astype(np.float64) for i in range(len(source)))
  np.save(path, np.asarray(total / len(source), np.float32))
