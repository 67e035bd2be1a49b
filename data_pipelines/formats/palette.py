"""Pictures with a table of colours: what their pixels look like."""

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
