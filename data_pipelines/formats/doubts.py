"""What an image file leaves open, and is taken in one of two ways: said in the log.

A picture turned by EXIF beside a mask that is not; pixels that are not square, which every reader of images
takes for squares (volumes are resampled by their spacing); masks that are given as images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import concurrent.futures
import functools
import logging
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines.formats import dicom, dicom_head, header, images

_ALIKE, _MEDIAN, _NEGATIVE = 16, 0.8, -0.3  # images; their correlation with the others; of a negative
_FORMS, _LEAST = 32, 3  # files whose form is looked at; fewer say nothing
_SQUARE = 1.05  # ratio of a pixel's sides up to which nothing is said
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
_NEEDED = (*_SPACINGS, "SequenceOfUltrasoundRegions", "SharedFunctionalGroupsSequence")
_PALETTES = (".png", ".bmp", ".tif", ".tiff")
_CM = 3  # code of a unit in ultrasound


def say_turned(pairs: Iterable[tuple[Any, Any]], what: str = "masks") -> None:
  """Warns of images that EXIF turns beside masks that it does not, and that fit either way.

  Args:
    pairs: (image, its mask, None of numbers such as boxes); what cannot be read is left to its reader.
    what: the second ones are called.
  """
  pairs = list(pairs)
  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    odd = [pair for pair, doubt in zip(pairs, pool.map(lambda p: _either_way(*p), pairs)) if doubt]
  if odd:
    logging.warning("%d of %d images are turned or mirrored by their EXIF orientation, and their %s, "
                    "which fit either way, are not, the first %s: they are taken as drawn on what "
                    "viewers show; if a program drew them that ignores EXIF, save the images upright first",
                    len(odd), len(pairs), what, " and ".join(str(f) for f in odd[0] if f is not None))


def say_of_masks(pairs: Iterable[tuple[Any, Any]]) -> None:
  """`say_turned` of (image, mask); warns of masks whose white is zero, which not all programs mind: of TIFF,
  and of pictures with a palette that begins with white."""
  pairs = list(pairs)
  say_turned(pairs)
  tiffs = [mask for _, mask in pairs if str(mask).lower().endswith((".tif", ".tiff"))]
  if odd := [mask for mask in tiffs if _white_is_zero(mask)]:
    logging.warning("%d of %d masks are TIFF files whose white is zero, the first %s: they are taken as "
                    "viewers show them, white for the lesion; tifffile writes arrays of bool so, and True is "
                    "black then: save such masks as uint8, 0 and 255", len(odd), len(pairs), odd[0])
  if odd := [mask for _, mask in pairs if str(mask).lower().endswith(_PALETTES) and _begins_white(mask)]:
    logging.warning("%d of %d masks have a palette whose colour 0 is brighter than colour 1, the first %s: "
                    "they are taken as viewers show them, white for the lesion; programs that read numbers "
                    "take 0 for the background: save such masks as 8-bit grey, 0 and 255", len(odd),
                    len(pairs), odd[0])


def _begins_white(path):
  try:
    with Image.open(pathlib.Path(path)) as image:
      found = image.getpalette() if image.mode == "P" else []
      return len(found) >= 6 and sum(found[:3]) > sum(found[3:6])
  except Exception:  # as below
    return False


def _white_is_zero(path):
  try:
    with Image.open(pathlib.Path(path)) as image:
      return image.tag_v2.get(262) == 0
  except Exception:  # as below
    return False


def _either_way(image, mask):
  try:
    turn = images.turn(image)
    if turn == 1 or mask is None:
      return turn != 1
    if images.turn(mask) != 1:
      return False
    height, width = images.size(image) if turn > 4 else (1, 1)
    return height == width
  except Exception:  # Pillow raises a dozen types for damaged files
    return False


def form(path) -> tuple[str, tuple[int, int], str] | None:
  """(kind of file, (columns, rows), kind of pixels) by a header; None of what Pillow cannot open."""
  try:
    with Image.open(path) as image:
      return str(image.format), image.size, image.mode
  except Exception:  # as above
    return None


def say_told_by_form(normal: Sequence[str], ill: Sequence[str], train: Sequence[str] = ()) -> None:
  """Warns where the kind, size or colours of the files alone tell normal images from others, or those that
  are trained on from all that are scored.

  Args:
    normal, ill: paths of scored images; train: of training images; up to _FORMS of each are opened.
  """
  read_once = functools.cache(form)
  forms = lambda paths: [f for f in map(read_once, paths[::max(1, len(paths) // _FORMS)][:_FORMS]) if f]
  _say_apart(forms(normal), forms(ill), "normal images", "others", "what tells them apart may be that")
  _say_apart(forms(train), forms([*normal, *ill]), "training images", "scored ones", "scores may say that")


def _say_apart(one, others, what, rest, why):
  """Warns where all forms of one side are alike, and all of the other, but not those of both."""
  if min(len(one), len(others)) < _LEAST:
    return
  for at, kind in enumerate(("kinds of file", "sizes", "kinds of pixels")):
    own, other = ({found[at] for found in side} for side in (one, others))
    if len(own) == len(other) == 1 and own != other:
      shown = [" x ".join(map(str, v)) if at == 1 else v for v in (own.pop(), other.pop())]
      logging.warning("all %s looked at have other %s than all %s (%s and %s): %s; bring all to one form",
                      what, kind, rest, *shown, why)


def small(image: np.ndarray) -> np.ndarray:
  """[256] of [H,W,C]: its mean grey on 16 x 16 places, for `say_negatives`."""
  rows, columns = (np.linspace(0, n, 17).astype(int)[:-1] for n in image.shape[:2])
  grey = np.asarray(image, np.float64).mean(-1)
  total = lambda values: np.add.reduceat(np.add.reduceat(values, rows, 0), columns, 1)
  return (total(grey) / total(np.ones_like(grey))).ravel()  # places of 20 pixels have one or two of them


def say_negatives(paths: Sequence[str], shown: Sequence[np.ndarray]) -> None:
  """Warns of images that are negatives of the others, where these are alike: radiographs exported without
  MONOCHROME1, say. Of 256 of the chest each correlates with the mean of the others by 0.37 or more.

  Args:
    shown: `small` of each.
  """
  _, alike = _alike(shown)
  odd = [path for path, r in zip(paths, alike) if r < _NEGATIVE]
  if odd and np.median(alike) > _MEDIAN:
    logging.warning("%d of %d images are dark where the others are bright, the first %s: are black and white "
                    "turned round in them (MONOCHROME1)? Invert them first", len(odd), len(paths), odd[0])


def _alike(shown) -> tuple[np.ndarray, np.ndarray]:
  """(`small` of each, centred, of length 1; its correlation with the mean of the others); of few nothing."""
  values = np.stack(shown) if len(shown) >= _ALIKE else np.zeros((0, 1))
  values = values - values.mean(1, keepdims=True)
  values /= np.maximum(np.sqrt((values**2).sum(1, keepdims=True)), 1e-12)
  others = values.sum(0) - values
  return values, (values * others).sum(1) / np.maximum(np.sqrt((others**2).sum(1)), 1e-12)


def middle(shown: Sequence[np.ndarray]) -> np.ndarray:
  """[256]: the mean of `small` of images that are alike, as radiographs of the chest are; [0] of others.

  Images whose negatives could not be told from them, by `is_negative`, are not alike.
  """
  values, alike = _alike(shown)
  return values.mean(0) if len(values) and np.median(alike) > _MEDIAN and alike.min() > 0 else np.zeros(0)


def is_negative(image: np.ndarray, usual: Sequence[float]) -> bool:
  """Whether [H,W,C] is dark where images of this `middle` are bright; False where there is none."""
  if not len(usual):
    return False
  own = small(image)
  own = own - own.mean()
  lengths = np.linalg.norm(own) * np.linalg.norm(usual)
  return bool(lengths > 1e-9 and own @ np.asarray(usual, np.float64) < _NEGATIVE * lengths)


def say_flat(odd: Sequence[str], many: int, what: str) -> None:
  """Warns of images of one grey all over: black exports, empty fields.

  Args:
    odd: their files. many: images looked at. what: they are called, "test".
  """
  if odd:
    logging.warning("%d of the %d images of %s looked at are of one grey all over, the first %s: are they "
                    "pictures?", len(odd), many, what, odd[0])


def few_greys(values: np.ndarray) -> int:
  """1 or 2 where [H,W,C] has no more values, as empty pictures and masks have; else 0."""
  low, high = values.min(), values.max()
  if low == high:
    return 1
  return 2 if ((values == low) | (values == high)).all() else 0


def same_aspect(first: float, second: float) -> bool:
  """Whether pixels of these ratios of their sides (rows' distance by columns') show shapes alike."""
  return max(first / second, second / first) <= _SQUARE


def aspect(path) -> tuple[float, str]:
  """(distance of rows by that of columns, how they are no squares); (1, "") where they are, or nothing is
  said."""
  try:
    if dicom.is_dicom(path):
      rows, columns, unit = _of_dicom(dicom_head.read(path, _NEEDED))
      said = f"{rows:.4g} x {columns:.4g}{unit} from row to row and from column to column"
    else:
      rows, columns = _dots(path)
      said = f"{rows:.4g} x {columns:.4g} dpi along a row and along a column"  # more dots: closer columns
    return (rows / columns, said) if rows and columns and not same_aspect(rows, columns) else (1.0, "")
  except Exception:  # headers hold anything; who reads the pixels says what is damaged
    return 1.0, ""


def _of_dicom(data) -> tuple[float, float, str]:
  """(distance of rows, of columns, unit); 0 where nothing is said."""
  for region in data.get("SequenceOfUltrasoundRegions", None) or ():
    units = {int(region.get(f"PhysicalUnits{axis}Direction", 0)) for axis in "XY"}
    if int(region.get("RegionSpatialFormat", 0)) == 1 and units == {_CM}:  # a picture, no curve over time
      return abs(float(region.PhysicalDeltaY)), abs(float(region.PhysicalDeltaX)), " cm"
  for shared in data.get("SharedFunctionalGroupsSequence", None) or ():  # of multi-frame files
    data = next(iter(shared.get("PixelMeasuresSequence", None) or ()), data)
  for name in _SPACINGS:
    found = data.get(name, None)
    if found:
      return float(found[0]), float(found[1]), "" if name == "PixelAspectRatio" else " mm"
  return 0.0, 0.0, ""


def _dots(path) -> tuple[float, float]:
  """Dots along a row and along a column in any unit; 0 where nothing is said."""
  with Image.open(pathlib.Path(path)) as image:
    text = getattr(image, "tag_v2", {}).get(270, "")
    if ome := header.ome_pixel(path, text if isinstance(text, str) else ""):  # before TIFF's own words
      return 25400 / ome[0], 25400 / ome[1]
    known = ("dpi", "aspect", "resolution", "jfif_density")
    found = next((image.info[k] for k in known if k in image.info), (0, 0))
  return float(found[0]), float(found[1])
