"""Single images in and out for prediction: PNG, TIFF, JPEG, BMP; 8 and 16 bits, grey and colour."""

from __future__ import annotations

import pathlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from data_pipelines.errors import UserError

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
_GREY, _COLOUR = ("L", "1", "I;16", "I;16B", "I;16L", "I", "F", "LA"), ("RGB", "RGBA", "P", "CMYK")


def is_image(path: pathlib.Path) -> bool:
  """True for image names; hidden files are left out."""
  return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def read(path, channels: int = 0) -> tuple[np.ndarray, float]:
  """(float64 [H,W,C] in the file's own units, the largest value of its type: 255, 65535 or 1).

  Args:
    channels: 1 = grey (colour becomes luma, ITU-R 601), 3 = colour (grey is repeated), 0 = as in
      the file. Transparency is dropped.

  Raises:
    FileNotFoundError, ValueError: no such file; damaged; several pages; other channel counts.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"{path} does not exist")
  try:
    with Image.open(path) as image:
      if getattr(image, "n_frames", 1) > 1:
        raise UserError(f"{path} has {image.n_frames} pages; give one image a file")
      array, top = _array(image, path)
  except (OSError, SyntaxError, UnidentifiedImageError) as error:
    raise UserError(f"{path} is not a readable image ({type(error).__name__})") from error
  if not np.isfinite(array).all():
    raise UserError(f"{path} holds NaN or infinite pixels")
  if channels == 1 and array.shape[-1] == 3:
    array = array @ np.array([[0.299], [0.587], [0.114]])
  elif channels == 3 and array.shape[-1] == 1:
    array = np.repeat(array, 3, -1)
  elif channels and array.shape[-1] != channels:
    raise UserError(f"{path} has {array.shape[-1]} channel(s), the model needs {channels}")
  return array, top


def _array(image, path):
  if image.mode in _COLOUR:
    return np.asarray(image.convert("RGB"), np.float64), 255.0
  if image.mode not in _GREY:
    raise UserError(f"{path}: pixel type {image.mode} is not supported; save it as 8- or 16-bit")
  if image.mode in ("1", "LA"):
    image = image.convert("L")
  array = np.asarray(image)
  top = {"L": 255.0, "F": 1.0}.get(image.mode, 65535.0)
  return array.astype(np.float64)[..., None], top


def write(path, array: np.ndarray) -> None:
  """Writes float32 [H,W] (TIFF, exact), uint8 [H,W] or [H,W,3], or uint16 [H,W]."""
  Image.fromarray(np.ascontiguousarray(array)).save(path)
