"""Tables of colours and of greys: what the pixels of pictures with one look like."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from data_pipelines.errors import UserError


def resolved(path, image):
  """Pillow's image of mode L, LA, RGB or RGBA for one of mode P or PA.

  Grey where all colours of the palette are grey, so that it equals the same grey picture.

  Raises:
    UserError: a pixel is of a colour that the palette lacks; Pillow draws it black.
  """
  table: Any = getattr(image, "tag_v2", {}).get(320)  # of TIFF: red, green, blue of 16 bits
  if table and max(table) < 256:  # of 8 bits, as old programs write it; viewers see to that
    image.putpalette(np.reshape(table, (3, -1)).T.astype(np.uint8).tobytes())
  colours, most = len(image.palette.palette) // len(image.palette.mode), int(np.asarray(image).max())
  if image.mode == "P" and most >= colours:
    raise UserError(f"{path} has pixels of colour {most}, and a palette of {colours} colours: damaged")
  rgba = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
  colours = np.asarray(rgba)
  if np.array_equal(colours[..., 0], colours[..., 1]) and np.array_equal(
      colours[..., 0], colours[..., 2]):
    return Image.fromarray(colours[..., 0] if rgba.mode == "RGB" else colours[..., [0, 3]],
                           "L" if rgba.mode == "RGB" else "LA")
  return rgba


def entries(path, data, table) -> np.ndarray:
  """The entries of a look-up table: numbers, words in the file's order or, of 8 bits, one a byte as well.

  pydicom reads no bytes, and finds entries of 8 bits for the first 256 values alone.

  Raises:
    UserError: there are fewer than the table says.
  """
  count, found = int(table.LUTDescriptor[0]) or 1 << 16, table.LUTData
  if isinstance(found, bytes):
    narrow = int(table.LUTDescriptor[2]) == 8 and len(found) - count in (0, 1)
    order = "<" if data.file_meta.TransferSyntaxUID.is_little_endian else ">"
    found = np.frombuffer(found, np.uint8 if narrow else f"{order}u2")
  found = np.atleast_1d(found)[:count]
  if len(found) < count:
    raise UserError(f"{path}: a look-up table says that it has {count} entries, and has {len(found)}")
  return found


def applied(found, table, values) -> np.ndarray:
  """float64, the entries of whole numbers; the first and the last one of those beyond."""
  place = values.astype(np.int64) - int(table.LUTDescriptor[1])
  return found[np.clip(place, 0, len(found) - 1)].astype(np.float64)
