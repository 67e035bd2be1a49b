"""What black and white are in an image file: the one rule of depth, for every reader and method.

Black is 0. White is
  up to 8 bits       the largest value of the file's bits (1, 3, 15, 255)
  9 to 15 bits       likewise, where the file itself says that it stores so few (packed TIFF)
  16 bits            65535; 65280 where the low byte of all pixels is empty: 8 bits moved up by 8
  32-bit integers    as 16 bits, where all values fit
  signed 16 bits     open
  floating point     1
and a file that leaves this open is refused by name: negative values, integers beyond 16 bits, floats
beyond 0 ... 1, and 16-bit files that use no more than a quarter of their range: 10-, 12- or 14-bit
pixels look so, and would be read as a nearly black picture. (8 bits widened by 257 or 256 are known
by their values and read, however dark.) config.data.window=(black, white) says it for such files,
and then nothing is refused: 12 bits in 16 are window=(0, 4095).

The rule looks at one file only to refuse it, never to stretch it: equal values are equally bright in
all files. DICOM files say more about themselves: data_pipelines/formats/dicom_scale.py.
"""

from __future__ import annotations

import numpy as np

from data_pipelines.errors import UserError

JPEG2000 = b"\xff\x4f\xff\x51"  # start of a code stream and its SIZ segment
_REMEDY = "say what black and white are by --config.data.window='(0, WHITE)', or save it as 8 bits"

_LEAST, _WHITE = 1 / 16, 0.95  # of the greys that a window uses; of the pixels that it makes white
_COLOURS = 1 << 18  # pixels that are looked at
_FLOATS = (np.float32(1e-6).view(np.uint32), np.float32(1e7).view(np.uint32))  # sizes of grey values


def black_and_white(path, pixels: np.ndarray, bits: int, window=(0, 0)) -> tuple[float, float]:
  """(stored value of black, of white).

  Args:
    pixels: as stored, any shape, uint8, uint16, int16, int32 or float32.
    bits: that the file says it uses of each value.
    window: config.data.window; (0, 0) = by the rule.

  Raises:
    UserError: the file leaves it open, or holds NaN.
  """
  if pixels.dtype == np.uint8:
    return 0, 255
  if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
    raise UserError(f"{path} holds NaN or infinite pixels")
  if tuple(window) != (0, 0):
    return float(window[0]), float(window[1])
  if pixels.dtype == np.int16:
    raise UserError(f"{path} has signed 16-bit pixels; {_REMEDY}")
  least, most = pixels.min(), pixels.max()
  if pixels.dtype.kind == "f":
    if least < -1e-5 or most > 1 + 1e-5:
      raise UserError(f"{path} has floating-point pixels from {least:.4g} to {most:.4g}, beyond "
                      f"0 ... 1; {_REMEDY}")
    return 0, 1
  if least < 0 or most > 65535:
    raise UserError(f"{path} has {pixels.dtype} pixels from {least} to {most}, beyond 0 ... 65535; "
                    f"{_REMEDY}")
  if bits < 16:
    return 0, 2**bits - 1
  moved_up = most > 0 and not np.any(pixels & 255)
  if 0 < most < 16384 and not moved_up and np.any(pixels % 257):
    raise UserError(f"{path} has 16-bit pixels, but no value above {most} of 65535: 10 to 14 bits "
                    f"in 16?; {_REMEDY}")
  return 0, 65280 if moved_up else 65535


def of_jpeg2000(stream: bytes, within: int | None = None) -> tuple[int, bool] | None:
  """(bits, whether they have a sign) of the first channel; None where no code stream begins within so many
  bytes (None = all)."""
  start = stream.find(JPEG2000, 0, within)
  if start < 0 or len(stream) <= start + 42:
    return None
  return (stream[start + 42] & 127) + 1, bool(stream[start + 42] & 128)


def widened(pixels: np.ndarray, bits: int) -> np.ndarray:
  """8-bit pixels of a picture of fewer bits, which a decoder moved up: white is 255, not 240 as of 4 bits."""
  if bits >= 8 or pixels.dtype != np.uint8:
    return pixels
  return np.round((pixels >> (8 - bits)) * (255 / (2**bits - 1))).astype(np.uint8)


def levels(image, rows: str, bits: int) -> int:
  """Greys that a file of 4 bits or fewer tells apart, which Pillow spreads over 0 ... 255; else 256.

  Args:
    image: Pillow's, not loaded yet. rows: its name for the file's rows, as "L;4". bits: of JPEG 2000.
  """
  kind, _, few = rows.partition(";")
  if kind == "L" and few[:1] in ("2", "4"):
    return 2**int(few[0])
  args = image.tile[0].args if image.format == "PPM" else ()
  most = args[1] if isinstance(args, tuple) and len(args) == 2 and args[1] else 255
  most = min(most, 2**bits - 1)
  return most + 1 if most <= 15 else 256  # more are shares of white, such as per cent


def as_stored(pixels: np.ndarray, levels: int) -> np.ndarray:
  """uint8 pixels of a file with so few `levels` as its numbers: 1 of 4 levels is 1, not 85.

  Black and white alone stay 0 and 255.
  """
  if levels >= 256 or pixels.dtype != np.uint8 or not np.any(pixels % 255):
    return pixels
  return np.round(pixels * ((levels - 1) / 255)).astype(np.uint8)


def check_stored(path, array: np.ndarray, proxy) -> None:
  """Refuses a volume whose numbers, as they are stored, tell that its header has a wrong type, byte order or
  axes.

  Args:
    array: float64 [H,W,Z] or more axes, with slope and intercept. proxy: nibabel's ArrayProxy of it.

  Raises:
    UserError: with the file.
  """
  kind, slope, inter = proxy.dtype, proxy.slope, proxy.inter
  if kind.itemsize == 2:
    volume = np.atleast_3d(array)
    volume = volume.reshape(*volume.shape[:3], -1)[..., 0]
    across = int(np.argmin(volume.shape))  # the axis of the slices, wherever the file has it
    middle = np.take(volume, volume.shape[across] // 2, across)
    _check_order(path, np.rint((middle - inter) / slope).astype(kind))
  elif kind.itemsize >= 4:
    scaled = (slope, inter) != (1, 0)  # rounded by that, their bits are read again
    _check_bits(path, np.asarray(proxy.get_unscaled()) if scaled else array.astype(kind))
  check_axes(path, array)


def check_axes(path, array: np.ndarray) -> None:
  """Refuses a volume that is torn with its axes, and whole where two of them are exchanged.

  Args:
    array: float64 [X,Y,Z], as nibabel gives it: x runs fastest in the file.
  """
  if array.ndim != 3:
    return
  x, y, z = array.shape
  middle = array[:, :, z // 2].reshape(-1, order="F")  # one slice
  others = {y: (y, x, z), z: (z, y, x)}
  read = {n: middle[:len(middle) // n * n].reshape(-1, n) for n in others if n != x and len(middle) >= 16 * n}
  smoother = {n: _steps(_middle(rows)) for n, rows in read.items() if torn(middle.reshape(-1, x), rows)}
  if smoother:
    _refuse_axes(path, array.shape, others[min(smoother, key=smoother.__getitem__)])
  plane = array[x // 2].reshape(-1, order="F")
  if y != z and torn(plane.reshape(z, y), plane.reshape(y, z)):
    _refuse_axes(path, array.shape, (x, z, y))


def _refuse_axes(path, shape, other):
  raise UserError(f"{path} is torn with {' x '.join(map(str, shape))} voxels, and whole with "
                  f"{' x '.join(map(str, other))}: its header (dim) is wrong")


def _check_bits(path, stored: np.ndarray) -> None:
  """Refuses 32-bit numbers whose bits are those of the other kind: floats that are kept as whole numbers lie
  near 2^30 then, whole numbers that are kept as floats below 1e-37."""
  found = stored[stored != 0]
  if stored.dtype.kind == "f":
    if found.size and np.abs(found).max() < np.finfo(stored.dtype).tiny * 10:
      raise UserError(f"{path} holds floats up to {np.abs(found).max():.1g} alone, as whole numbers are that "
                      "a wrong type in the header reads as floats: write it again with its type")
  elif stored.dtype.itemsize == 4 and found.size:
    bits = found.astype(found.dtype.newbyteorder("=")).view(np.uint32) & np.uint32(0x7FFFFFFF)
    if bits.min() >= _FLOATS[0] and bits.max() <= _FLOATS[1]:
      raise UserError(f"{path} holds whole numbers from {found.min()} to {found.max()}, which are floats by "
                      "their bits: its header has a wrong type; write it again as floats")


def _check_order(path, stored: np.ndarray) -> None:
  """Refuses a picture of 16-bit numbers whose bytes are exchanged: it is rough, and far smoother in the other
  order.

  Roughness: mean step from row to row over the standard deviation; 1.1 of noise, below 0.1 of scans.
  """
  if min(stored.shape) < 8 or len(np.unique(stored)) < 64:  # labels are smooth either way
    return
  rough, other = (np.abs(np.diff(values, axis=0)).mean() / values.std() for values in (
      stored.astype(np.float64), stored.byteswap().astype(np.float64)))
  if rough > 0.1 and other < 0.25 * rough:
    raise UserError(f"{path} holds 16-bit numbers whose bytes are in the other order than its header says: "
                    "write it again")


def torn(values: np.ndarray, other: np.ndarray) -> bool:
  """Whether [H,W] or [H,W,C] is rough where the same numbers in another order are smooth.

  It was read with another width then, or with its colours apart. Of 199 pictures the ratio of steps was 0.41
  at most as they are, and 1.74 at least of wrong readings.
  """
  if min(values.shape[:2]) < 16 or len(np.unique(values[::4, ::4])) < 32:  # writing, masks
    return False
  return _steps(_middle(values)) > 1.3 * _steps(_middle(other))


def other_colours(stored: np.ndarray, kind: str) -> str:
  """Why 8-bit colours are not what a header calls them, "" where they may be.

  YBR that was made of RGB never leaves it. RGB that is taken for YBR does, where it is dark or bright (92 %
  of 400 pictures of skin, all of 353 of ultrasound). YBR that is taken for RGB has far less contrast in its
  second and third channel, and stays within RGB when it is changed once more.

  Args:
    stored: uint8 [N,3] as they are stored. kind: RGB or YBR_FULL.
  """
  luma, blue, red = stored[::max(1, len(stored) // _COLOURS)].astype(np.float32).T
  blue, red = blue - 128, red - 128
  turned = np.stack([luma + 1.402 * red, luma - 0.344 * blue - 0.714 * red, luma + 1.772 * blue])
  outside = float(((turned < -8) | (turned > 263)).any(0).mean())
  if kind != "RGB":
    return f"of its colours {outside:.0%} are none as {kind}, as if they were RGB" if outside > 0.02 else ""
  flat = max(blue.std(), red.std()) < 0.4 * luma.std()
  return "it has its greys in the first channel alone, as YBR_FULL has" if flat and outside < 5e-4 else ""


def hardly_shown(array: np.ndarray, bounds: tuple[float, float], inverted: bool) -> str:
  """What a window makes of stored values where that is hardly a picture; "" of others.

  Args:
    bounds: stored values of black and of white.
  """
  low, high = min(bounds), max(bounds)
  least, most = float(array.min()), float(array.max())
  if least == most:
    return ""
  if bounds[0] < bounds[1] and not inverted and (white := float((array >= high).mean())) > _WHITE:
    return f"{white:.0%} of its pixels all white"
  used = (min(high, most) - max(low, least)) / (high - low)
  return "" if used >= _LEAST else (
      f"its values, {least:g} ... {most:g} as stored, within {used:.1%} of the greys")


def _middle(values):
  """The rows around the middle, of a million numbers at most (16 rows at least)."""
  rows = max(16, 1_000_000 // values[0].size)
  first = max(0, (len(values) - rows) // 2)
  return values[first:first + rows]


def _steps(values) -> float:
  """Mean step from row to row over that along rows where there is one channel; of colours their sum."""
  wide = values.astype(np.float32)
  down, along = (float(np.abs(np.diff(wide, axis=axis)).mean()) for axis in (0, 1))
  return down + along if values.ndim == 3 else down / max(along, 1e-9)
