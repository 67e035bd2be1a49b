"""A picture of what was cut from a slide: its thumbnail with tissue, lesion and patches drawn in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
import scipy.ndimage

from data_pipelines.slides import tissue
from data_pipelines.slides.cells import Patch

TISSUE, LESION, PATCH = (0, 150, 60), (220, 0, 0), (0, 60, 255)
_LARGER = 2  # pixels of the picture along one of the thumbnail


def draw(thumbnail: np.ndarray, dark: np.ndarray, lesion: np.ndarray | None,
         patches: Sequence[Patch]) -> np.ndarray:
  """uint8 [2H,2W,3]: the border of the tissue green, of the lesion red, patches blue.

  Args:
    thumbnail: uint8 [H,W,3] at 1/256. dark: bool [H,W]. lesion: share of lesion [H,W], None = unknown.
  """
  image = thumbnail.repeat(_LARGER, 0).repeat(_LARGER, 1)
  for mask, colour in ((dark, TISSUE), (None if lesion is None else lesion > 0.5, LESION)):
    if mask is not None:
      large = mask.repeat(_LARGER, 0).repeat(_LARGER, 1)
      image[large & ~scipy.ndimage.binary_erosion(large, border_value=1)] = colour
  picture = Image.fromarray(image)
  pen = ImageDraw.Draw(picture)
  scale = _LARGER / tissue.DOWNSAMPLE
  for patch in patches:
    left, top = patch.left * scale, patch.top * scale
    pen.rectangle((left, top, left + patch.width * scale - 1, top + patch.height * scale - 1), outline=PATCH)
  return np.asarray(picture)
