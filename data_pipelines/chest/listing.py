"""What the lists of chest data sets come to: one `Radiograph` an image, and marks on the network's grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import logging
import pathlib

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.formats import images
from data_pipelines.intake import tables

NORMAL = "normal"
_LEAST = 5  # images with boxes that say something together
Box = tuple[float, float, float, float]  # x, y of the upper left corner, width, height; pixels of the file


@dataclasses.dataclass(frozen=True)
class Radiograph:
  """One image of a data set.

  Attributes:
    name: unique, below the data folder. path: its file.
    finding: "normal", or what is seen, several joined by "|".
    patient: "" where the data set does not say.
    boxes: of the finding. mask, lungs: files of masks, "" = none.
    bits: that a table says the pixels have, 0 = it says nothing. inverted: white is 0 (MONOCHROME1).
  """
  name: str
  path: str
  finding: str = NORMAL
  patient: str = ""
  boxes: tuple[Box, ...] = ()
  mask: str = ""
  lungs: str = ""
  bits: int = 0
  inverted: bool = False


def rasterise(boxes: Iterable[Box], shape: tuple[int, int], size: int) -> np.ndarray:
  """float32 [S,S,1]: 1 where the centre of a pixel lies in a box of an image [H,W] that becomes [S,S].

  A box smaller than a pixel marks the one that holds its centre: it never vanishes.
  """
  mask = np.zeros((size, size, 1), np.float32)
  for x, y, width, height in boxes:
    rows, columns = (_covered(low, extent, n, size) for low, extent, n in
                     ((y, height, shape[0]), (x, width, shape[1])))
    mask[rows, columns] = 1
  return mask


def _covered(low, extent, n, size):
  """Pixels of one axis whose centres lie in [low, low + extent) of n, as a slice of `size`."""
  first, last = (np.ceil(v * size / n - 0.5) for v in (low, low + extent))
  if last <= first:
    first = np.floor((low + extent / 2) * size / n)
    last = first + 1
  return slice(int(np.clip(first, 0, size - 1)), int(np.clip(last, 1, size)))


def read_boxes(path, names: Sequence[str] = ("x", "y", "width", "height"), key: str = "file"
               ) -> dict[str, tuple[Box, ...]]:
  """{file: its boxes} of a table with a row a box; rows without numbers have none.

  Args:
    names: columns of a box. key: column that names the image.

  Raises:
    FileNotFoundError, UserError: as `tables.read_table`; a number that is none, a box without extent.
  """
  found: dict[str, tuple[Box, ...]] = {}
  for row in tables.read_table(path, (key, *names)).rows:
    found.setdefault(row.file(key), ())
    if any(row.get(n) for n in names):
      found[row.file(key)] += (box_of(row, names),)
  return found


def box_of(row: tables.Row, names: Sequence[str] = ("x", "y", "width", "height")) -> Box:
  """The box of a table's row.

  Raises:
    UserError: a number that is none or below 0, a box without extent, or smaller than a pixel.
  """
  try:
    x, y, width, height = (float(row.need(n)) for n in names)
  except ValueError as error:
    if isinstance(error, UserError):
      raise
    raise UserError(f"{row.where}: a box is four numbers in pixels ({', '.join(names)}): {error}") from None
  if 0 < width < 1 and 0 < height < 1:
    raise UserError(f"{row.where}: the box ({x:g}, {y:g}, {width:g}, {height:g}) is smaller than a pixel: "
                    "give pixels of the file, not shares of the image")
  if not (x >= 0 and y >= 0 and 0 < width < 1e6 and 0 < height < 1e6):
    raise UserError(f"{row.where}: the box ({x:g}, {y:g}, {width:g}, {height:g}) has no place or no extent "
                    f"({', '.join(names)} in pixels)")
  return x, y, width, height


def check_inside(radiograph: Radiograph, shape: tuple[int, int]) -> None:
  """Refuses a box that goes beyond its image [H,W] by more than rounding.

  Raises:
    UserError: two corners were given for a corner and an extent, or boxes of another size of the image.
  """
  for x, y, width, height in radiograph.boxes:
    if x + width > shape[1] * 1.02 + 1 or y + height > shape[0] * 1.02 + 1:
      raise UserError(f"{radiograph.path} has {shape[1]}x{shape[0]} pixels, its box ({x:g}, {y:g}, "
                      f"{width:g}, {height:g}) goes beyond them: give x, y, width, height in its pixels")


def say_of_boxes(boxed: Sequence[tuple[Radiograph, tuple[int, int]]], where: str) -> None:
  """Checks boxes, and warns of those that all lie in a corner of their images, or may be pairs of corners.

  Args:
    boxed: (radiograph, (H, W) of its image). where: their table, for the line.

  Raises:
    UserError: as `check_inside`.
  """
  for radiograph, shape in boxed:
    check_inside(radiograph, shape)
  boxes = [(box, shape) for radiograph, shape in boxed for box in radiograph.boxes]
  if len(boxed) < _LEAST:
    return
  if all(x + w <= shape[1] / 2 and y + h <= shape[0] / 2 for (x, y, w, h), shape in boxes):
    logging.warning("%s: all %d boxes lie in the upper left quarter of their images, the first %s: are they "
                    "in pixels of a smaller copy, or in percent? They are taken for pixels of the file",
                    where, len(boxes), boxed[0][0].name)
  elif all(w > x and h > y for (x, y, w, h), _ in boxes):
    logging.warning("%s: of all %d boxes width is above x and height above y, the first %s: are they "
                    "two corners (x2, y2)? They are taken for a corner and an extent", where, len(boxes),
                    boxed[0][0].name)


def read_unit(radiograph: Radiograph, window=(0, 0)) -> np.ndarray:
  """The image as float32 [H,W,1] in [0, 1], bright = dense.

  Depth is that of the one reader (formats/depth.py). Where a table says that 16-bit pixels hold fewer
  bits, and none is larger than these allow, white is the largest of these; a table's MONOCHROME1 turns
  files that cannot say so themselves (PNG).
  """
  if 8 < radiograph.bits < 16 and tuple(window) == (0, 0):
    largest = 2 ** radiograph.bits - 1
    if images.read_values(radiograph.path, 1).max() <= largest:
      window = (0, largest)
  image = images.read_unit(radiograph.path, 1, window)
  return 1 - image if radiograph.inverted else image


def unlisted_folders(radiographs: Iterable[Radiograph], what: str) -> list[Radiograph]:
  """The radiographs whose folder is there; the log counts the others (archives that are not unpacked)."""
  there: dict[pathlib.PurePath, bool] = {}
  kept, gone = [], 0
  for r in radiographs:
    folder = pathlib.Path(r.path).parent
    if folder not in there:
      there[folder] = folder.is_dir()
    if there[folder]:
      kept.append(r)
    else:
      gone += 1
  if gone:
    missing = sorted(str(f) for f, exists in there.items() if not exists)
    logging.warning("%s: %d images are left out, their folders are not there: %s%s", what, gone,
                    ", ".join(missing[:3]), " ..." if missing[3:] else "")
  return kept


def counts(radiographs: Iterable[Radiograph]) -> Mapping[str, int]:
  """{finding: images}, the most frequent first."""
  found: dict[str, int] = {}
  for r in radiographs:
    found[r.finding] = found.get(r.finding, 0) + 1
  return dict(sorted(found.items(), key=lambda pair: -pair[1]))
