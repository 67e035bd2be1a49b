"""Stain normalisation of uint8 RGB images: brightness, stain matrix, concentrations, colours of a target.

Vahadane et al., IEEE TMI 35(8), 2016, steps and constants of ninatu/anomaly_detection. `parity` keeps
what the published code does and one would not choose: the stain matrix from all tissue pixels (else from
at most SAMPLES of them, 0.06 degrees off and forty times as fast), the order of the stains by their red
component, and an error for images without tissue (else they come out as they went in).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.slides import stain_matrix

SAMPLES = 20_000  # tissue pixels from which the stain matrix is learned
SPARSITY = 0.01  # lambda of the concentrations
_BRIGHT = 90  # percentile of all values that becomes 255
_WHITE = 0.8  # lightness L / 255 from which a pixel is no tissue
_BLOCK = 1 << 14  # pixels worked on at a time: their arrays stay in the cache
_LEAST = 100  # tissue pixels; of fewer the stains say nothing


class NoStain(UserError):
  """An image has no tissue, no light or one stain only: it cannot be normalised."""


@dataclasses.dataclass(frozen=True)
class Stains:
  """Stains of an image.

  Attributes:
    matrix: float64 [2,3], unit rows, haematoxylin first: optical density of red, green, blue.
  """
  matrix: np.ndarray


def standardize(image: np.ndarray) -> np.ndarray:
  """Brightness: the 90th percentile of all values of all channels becomes 255. uint8 [H,W,3], both.

  Raises:
    NoStain: that percentile is 0.
  """
  return _bright_table(_checked(image))[image]


def _bright_table(image):
  """uint8 [256]: standardised value of a value."""
  flat = np.ascontiguousarray(image).reshape(-1)
  counts = np.bincount(flat[:flat.size // 2 * 2].view(np.uint16), minlength=1 << 16).reshape(256, 256)
  counts = counts.sum(0) + counts.sum(1)  # two values at a time take half as long
  if flat.size % 2:
    counts[flat[-1]] += 1
  place = (flat.size - 1) * (_BRIGHT / 100)
  below = np.searchsorted(np.cumsum(counts), [int(place), min(int(place) + 1, flat.size - 1)], side="right")
  p = below[0] + (below[1] - below[0]) * (place - int(place))
  if p <= 0:
    raise NoStain("the image is black: nine tenths of its values are 0")
  return np.clip(np.arange(256) * 255.0 / p, 0, 255).astype(np.uint8)


def _linear_table():
  """float32 [256]: linear light of an sRGB value (IEC 61966-2-1)."""
  v = np.arange(256) / 255
  return np.where(v > 0.04045, ((v + 0.055) / 1.055) ** 2.4, v / 12.92)


# OpenCV's 8-bit CIELAB, whose rounding decides about single pixels: light in 1/2040, weights in 2^-12,
# cube roots in 2^-15. L / 255 < 0.8 holds up to L = 203.
_LUMINANCE = (np.rint(np.array([[0.212671], [0.715160], [0.072169]]) * 4096)
              * np.rint(2040 * _linear_table())).astype(np.int32)


def _lightness_table():
  """int64 [2041]: 8-bit L of a luminance in 1/2040."""
  y = np.arange(2041) / 2040
  root = np.rint(np.where(y < 0.008856, 7.787 * y + 16 / 116, np.cbrt(y)) * 32768).astype(np.int64)
  return (296 * root - (16 * 255 * 32768 + 50) // 100 + 16384) >> 15


_DARK = np.int32((np.searchsorted(_lightness_table(), _WHITE * 255) << 12) - 2048)  # luminance, rounded
# Optical density -ln(I / 255); zeros count as 1.
_DENSITY = -np.log(np.maximum(np.arange(256), 1) / 255)


def tissue_pixels(image: np.ndarray) -> np.ndarray:
  """bool [H,W]: lightness L of 8-bit CIELAB below 0.8 of its range; of a standardised image [H,W,3]."""
  return (_LUMINANCE[0][image[..., 0]] + _LUMINANCE[1][image[..., 1]]
          + _LUMINANCE[2][image[..., 2]]) < _DARK


def optical_density(image: np.ndarray) -> np.ndarray:
  """-ln(I / 255) of uint8 values, zeros taken as 1; float64 of the same shape."""
  return _DENSITY[image]


def find_stains(image: np.ndarray, parity: bool = False) -> Stains:
  """The stain matrix of an image that `standardize` has not seen yet; uint8 [H,W,3].

  Raises:
    NoStain: no tissue, no light, or one stain only. UserError: not uint8 RGB.
  """
  return _stains_of(standardize(image), parity)


def _stains_of(image, parity):
  """Of a standardised image. The matrix is rounded to 1e-9, far below what changes a pixel."""
  pixels = image.reshape(-1, 3)
  places = np.flatnonzero(tissue_pixels(image))
  if places.size < (1 if parity else _LEAST):
    raise NoStain(f"the image has {places.size} pixels of tissue")
  if not parity and places.size > SAMPLES:
    # Multiples of the golden ratio spread evenly, and on no grid that JPEG blocks or columns could meet.
    spread = (np.arange(SAMPLES, dtype=np.uint64) * np.uint64(2654435769)) & np.uint64(0xFFFFFFFF)
    places = places[np.sort((spread * np.uint64(places.size)) >> np.uint64(32)).astype(np.int64)]
  try:
    atoms = stain_matrix.learn(np.ascontiguousarray(_DENSITY[pixels[places]].T))
  except UserError as error:
    raise NoStain(str(error)) from None
  return Stains(np.round(stain_matrix.ordered(atoms, parity), 9))


def concentrations(image: np.ndarray, stains: Stains) -> np.ndarray:
  """float32 [H,W,2]: concentration of haematoxylin and eosin of a standardised image.

  argmin_{c >= 0} 1/2 |x - W^T c|^2 + 0.01 |c|_1 with the optical density x and W = stains.matrix.
  """
  pixels = image.reshape(-1, 3)
  result = np.empty((len(pixels), 2), np.float32)
  for start in range(0, len(pixels), _BLOCK):
    result[start:start + _BLOCK] = np.stack(_codes(pixels[start:start + _BLOCK], stains), -1)
  return result.reshape(*image.shape[:2], 2)


def _codes(pixels, stains):
  """The two concentrations float32 [n] of standardised pixels uint8 [n,3]."""
  weights, shift, above = stain_matrix.free_solution(stains.matrix, SPARSITY)
  # A channel has 256 densities: products are looked up, rounded once.
  table = _DENSITY[:, None, None] * weights.T
  table[:, 0] -= shift
  table = table.astype(np.float32)  # [256,3,2]
  return stain_matrix.bounded(*(table[:, 0, j][pixels[:, 0]] + table[:, 1, j][pixels[:, 1]]
                                + table[:, 2, j][pixels[:, 2]] for j in (0, 1)), *above)


def recolour(amounts: np.ndarray, target: Stains) -> np.ndarray:
  """uint8 [...,3]: 255 exp(-c W_target), truncated; of concentrations [...,2]."""
  w = target.matrix.astype(np.float32)
  result = np.empty((*amounts.shape[:-1], 3), np.uint8)
  for c in range(3):
    result[..., c] = np.float32(255) * np.exp(-(amounts[..., 0] * w[0, c] + amounts[..., 1] * w[1, c]))
  return result


def haematoxylin(image: np.ndarray, parity: bool = False) -> np.ndarray:
  """float32 [H,W] in (0,1]: transmitted light of haematoxylin alone, exp(-c_1)."""
  bright = standardize(image)
  return np.exp(-concentrations(bright, _stains_of(bright, parity))[..., 0])


def normalize(image: np.ndarray, target: Stains, parity: bool = False) -> np.ndarray:
  """An image in the stains of the target: uint8 [H,W,3], both.

  Raises:
    NoStain: see find_stains. UserError: not uint8 RGB.
  """
  pixels = standardize(image)
  stains = _stains_of(pixels, parity)
  flat, w = pixels.reshape(-1, 3), target.matrix.astype(np.float32)
  result = np.empty_like(flat)
  for start in range(0, len(flat), _BLOCK):
    c1, c2 = _codes(flat[start:start + _BLOCK], stains)
    for c in range(3):
      light = c1 * -w[0, c]
      light -= c2 * w[1, c]
      np.exp(light, out=light)
      light *= np.float32(255)
      result[start:start + _BLOCK, c] = light
  return result.reshape(image.shape)


def _checked(image):
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or not image.size:
    raise UserError(f"stain normalisation takes uint8 [H,W,3], this is {image.dtype} {image.shape}; "
                    "drop the alpha channel, reduce deeper images to 8 bits")
  return image
