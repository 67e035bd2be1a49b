"""The libraries that open slides, each in one form: OpenSlide, and tiffslide where that cannot.

An engine has `name`, `vendor`, `sizes` [(width, height)], `downsamples`, `properties` (strings under
OpenSlide's names), `read(x, y, level, width, height)` and `close()`. What a library raises over a file
or a region becomes `Broken`.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.slides import forms

INSTALL = "pip install 'medae-jax[slides]'"
_WHITE_IS_ZERO, _CMYK, _YCBCR = 0, 5, 6  # TIFF's photometric interpretations
_MANY = 2048  # a slide with a longer side that has one level alone: another engine may see more of it


class Broken(Exception):
  """A file or a region that an engine cannot read; the text is the library's, one line."""


def open_engine(path: pathlib.Path):
  """The engine for a file: OpenSlide, tiffslide for what that does not know, or sees one level of.

  OME-TIFF keeps its levels in sub-directories, where OpenSlide does not look.

  Raises:
    UserError: neither library is installed, or none knows the file.
  """
  found, reasons = None, []
  for engine in (OpenSlide, TiffSlide):
    if found and (len(found.sizes) > 1 or max(found.sizes[0]) <= _MANY):
      break
    try:
      other = engine(path)
    except ModuleNotFoundError:
      continue
    except Broken as reason:
      reasons.append(f"{engine.name}: {reason}")
      continue
    if found and len(other.sizes) <= len(found.sizes):
      other.close()
      continue
    if found:
      found.close()
    found = other
  if found:
    return found
  if reasons:
    raise UserError(f"{path} is no slide that can be read ({'; '.join(reasons)}); export it as a tiled "
                    "pyramidal TIFF, for example with vips tiffsave --tile --pyramid")
  raise UserError(f"{path}: slides need openslide-python and openslide-bin, or tiffslide: {INSTALL}")


class OpenSlide:
  """SVS, NDPI, MRXS, Philips, generic tiled TIFF and whatever else OpenSlide knows."""

  name = "openslide"

  def __init__(self, path: pathlib.Path):
    import openslide
    if form := forms.beyond_libtiff(path):
      raise Broken(f"{form} pixels")
    self._path, self._library = path, openslide
    self._slide = self._open()
    self.sizes = [tuple(s) for s in self._slide.level_dimensions]
    self.downsamples = [float(d) for d in self._slide.level_downsamples]
    self.properties = {k: str(v) for k, v in self._slide.properties.items()}
    self.vendor = self.properties.get("openslide.vendor", "unknown")

  def _open(self):
    try:
      return self._library.OpenSlide(str(self._path))
    except self._library.OpenSlideUnsupportedFormatError:
      raise Broken("unknown vendor or format") from None
    except (self._library.OpenSlideError, OSError) as error:
      raise Broken(_line(error)) from None

  def read(self, x: int, y: int, level: int, width: int, height: int) -> np.ndarray:
    """uint8 [height,width,4], RGBA as Pillow's (colours not multiplied with alpha)."""
    region = (x, y), level, (width, height)
    try:
      return np.asarray(self._slide.read_region(*region))
    except (self._library.OpenSlideError, OSError):
      # OpenSlide refuses everything once something went wrong, in whatever thread: what is wrong
      # with this region, a handle of its own says. The old one is closed when no thread reads it.
      self._slide = self._open()
    with self._open() as own:
      try:
        return np.asarray(own.read_region(*region))
      except (self._library.OpenSlideError, OSError) as error:
        raise Broken(_line(error)) from None

  def close(self) -> None:
    """Closes the file."""
    self._slide.close()


class TiffSlide:
  """TIFF, SVS, OME-TIFF and the like by tifffile; slower than OpenSlide by far."""

  name = "tiffslide"

  def __init__(self, path: pathlib.Path):
    import tiffslide
    try:
      with forms.quiet_tifffile():
        self._slide = tiffslide.TiffSlide(str(path))
        self.sizes = [tuple(s) for s in self._slide.level_dimensions]
        self.downsamples = [float(d) for d in self._slide.level_downsamples]
        found: dict[str, Any] = dict(self._slide.properties)
        page: Any = self._slide.ts_tifffile.pages[0]
        self._kind = int(page.photometric), int(page.compression)
        self._multiplied = forms.is_multiplied(page)
    except Exception as error:  # tifffile, zarr and tiffslide have a dozen kinds between them
      raise Broken(_line(error)) from None
    _check_colours(*self._kind)
    self.properties = {k.replace("tiffslide.", "openslide."): str(v) for k, v in found.items()
                       if v is not None}
    self.vendor = self.properties.get("openslide.vendor", "generic-tiff")

  def read(self, x: int, y: int, level: int, width: int, height: int) -> np.ndarray:
    """[height,width,1, 3 or 4]: grey, RGB or RGBA of the file's depth."""
    try:
      pixels = self._slide.read_region((x, y), level, (width, height), as_array=True)
    except Exception as error:
      raise Broken(_line(error)) from None
    if pixels.shape[:2] != (height, width):
      raise Broken(f"{width}x{height} pixels asked, {pixels.shape[1]}x{pixels.shape[0]} came")
    pixels = _as_shown(pixels, self._kind[0])
    return _divided(pixels) if self._multiplied else pixels

  def close(self) -> None:
    """Closes the file."""
    self._slide.close()


def _check_colours(kind: int, compression: int) -> None:
  """Refuses colours that tifffile gives as stored, as if they were RGB: OpenSlide converts them.

  Args:
    kind, compression: TIFF's tags 262 and 259.
  """
  if kind not in (_WHITE_IS_ZERO, 1, 2, _CMYK) and not (kind == _YCBCR and compression in forms.COLOURED):
    raise Broken(f"{forms.colours(kind)} pixels")


def _as_shown(pixels: np.ndarray, kind: int) -> np.ndarray:
  """White-is-zero turned round, and CMYK as RGB by libtiff's rule."""
  if kind == _WHITE_IS_ZERO:
    return np.iinfo(pixels.dtype).max - pixels
  if kind != _CMYK:
    return pixels
  top = np.iinfo(pixels.dtype).max
  paper = top - pixels.astype(np.uint64)
  return (paper[..., :3] * paper[..., 3:] // top).astype(pixels.dtype)


def _divided(pixels: np.ndarray) -> np.ndarray:
  """Colours that are multiplied with their alpha, without it: as Pillow has them."""
  top, alpha = np.iinfo(pixels.dtype).max, np.maximum(pixels[..., -1:].astype(np.uint64), 1)
  colour = np.minimum((pixels[..., :-1] * np.uint64(top) + alpha // 2) // alpha, top)
  return np.concatenate([colour.astype(pixels.dtype), pixels[..., -1:]], -1)


def _line(error: Exception) -> str:
  return " ".join(str(error).split())[:200] or type(error).__name__
