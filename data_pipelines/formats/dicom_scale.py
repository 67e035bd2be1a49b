"""What black and white are in a DICOM image.

Grey images, the first that applies:
  config.data.window          (black, white) in the units after rescaling, e.g. Hounsfield units
  the window of the file      the first one; LINEAR, LINEAR_EXACT and SIGMOID as in PS3.3 C.11.2.1
  its VOI look-up table       PS3.3 C.11.1
  CT                          -1024 ... 3071 Hounsfield units
  Bits Stored                 the whole range that these bits can hold, with sign or without; files
                              of more than 12 bits that use no more than a quarter of it leave open
                              what is shown (`unsaid`): restoration, which changes nothing beyond
                              its marks, says so and goes on, all others refuse them
A file's own window or table that lies beside all of its values, so that unequal ones are all black or
all white, leaves it open as well.
MONOCHROME1, and Presentation LUT Shape INVERSE, turn black and white round; other shapes than IDENTITY, and a
Presentation LUT, which would change greys once more, leave it open. Values of modality
look-up tables (PS3.3 C.11.1) are looked up first. Nothing depends on which values a file happens to
hold: equal values are equally bright in all files of the same header. Colour: 0 to the largest value
of Bits Stored.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.formats import depth, palette

CT_UNITS = (-1024, 3071)  # 12 bits of Hounsfield units
_SAY = "say what black and white are by --config.data.window='(BLACK, WHITE)'"
_BESIDE = ("{}: its window lies beside all of its values, {:g} ... {:g} as stored: all would be black, or "
           f"all white; {_SAY}")
_DARK = ("{}: its colours go to {} by its header, and none is above {}: 8 to 14 bits in 16? Save it "
         "with 8 bits a colour")
_NARROW = "{}: its window is {:g} wide, which the standard's linear one cannot be (it is 1 at least): " + _SAY
_NEGATIVE = ("{}: its window is {:g} wide; some viewers turn black and white round then: say what they are "
             "by --config.data.window='(BLACK, WHITE)'")


@dataclasses.dataclass(frozen=True)
class Scale:
  """Fields of frame.Frame of the same names."""
  low: float
  high: float
  inverted: bool = False
  curve: np.ndarray | None = None
  least: int | None = None
  most: int | None = None
  unsaid: str = ""


def of_file(path, data, array: np.ndarray, window=(0, 0)) -> Scale:
  """The scale of one file.

  Args:
    data: pydicom's data set. array: its pixels, [N,H,W,1 or 3].

  Raises:
    UserError: 32-bit or floating-point pixels without a window.
  """
  bits = int(data.BitsStored) if "BitsStored" in data else 8 * array.dtype.itemsize
  if array.shape[-1] == 3:
    # Colours of a palette have the depth of its tables, not that of the pixels, which are their numbers.
    own = 8 * array.dtype.itemsize
    if data.PhotometricInterpretation == "PALETTE COLOR":  # entries of 8 bits may lie in words of 16
      bits = 8 if array.max() <= 255 and int(data.RedPaletteColorLookupTableDescriptor[2]) == 8 else own
    top = 2 ** min(bits, own) - 1
    dark = bits > 12 and own > 8 and 0 < array.max() < (top + 1) // 4 and np.any(array % 257)
    return Scale(0, top, most=top, unsaid=_DARK.format(path, top, array.max()) if dark else "")
  _check_frames_alike(path, data, said=tuple(window) != (0, 0))
  inverted = data.PhotometricInterpretation == "MONOCHROME1" or _shape(data) == "INVERSE"
  signed = array.dtype.kind == "i"
  least, most = (-2 ** (bits - 1), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
  if array.dtype.kind == "f":
    limits: tuple[int | None, int | None] = (None, None)
  else:
    limits = (least, most)
  curve = _curve(path, data, least, most, window)
  values = array.min(), array.max()
  def whole(unsaid):
    low, high = (least, most) if rescale(path, data)[0] > 0 else (most, least)
    return Scale(low, high, inverted, None, *limits, unsaid)
  own = tuple(window) == (0, 0)
  narrow = _narrow(path, data) or _printed(path, data) or _misfit(path, data) if own else ""
  if curve is not None:
    place = np.clip(np.subtract(values, least, dtype=np.int64), 0, len(curve) - 1)
    flat = own and values[0] < values[1] and not np.ptp(curve[place[0]:place[1] + 1])
    return whole(_BESIDE.format(path, *values)) if flat else Scale(
        least, most, inverted, curve, least, most, narrow)
  bounds = _bounds(path, data, array, window, bits)
  if bounds is None:
    return whole(narrow or _own_slope(path, data) or _flat(path, values, bits))
  beside = values[1] <= min(bounds) or values[0] >= max(bounds)
  if own and _window_of(data) and values[0] < values[1] and beside:
    return whole(_BESIDE.format(path, *values))
  shown = depth.hardly_shown(array, bounds, inverted) if own and bits > 8 and _window_of(data) else ""
  if shown and not narrow:
    narrow = f"{path}: its window shows {shown}, as one in other units than its rescaled values does: {_SAY}"
  return Scale(bounds[0], bounds[1], inverted, None, *limits, narrow)


def rescale(path, data) -> tuple[float, float]:
  """(slope, intercept) from stored values to units; also of enhanced multi-frame files.

  Raises:
    UserError: a slope of 0.
  """
  found = _group(data, "PixelValueTransformationSequence") or data
  slope, intercept = _number(found.get("RescaleSlope"), 1.0), _number(found.get("RescaleIntercept"), 0.0)
  if slope == 0 or not np.isfinite([slope, intercept]).all():
    raise UserError(f"{path}: its Rescale Slope is {slope:g}, its Rescale Intercept {intercept:g}")
  return slope, intercept


def in_units(path, data, stored: np.ndarray) -> np.ndarray:
  """float64, stored values after rescaling, or looked up in the modality table where the file has one."""
  if not data.get("ModalityLUTSequence"):
    slope, intercept = rescale(path, data)
    return stored.astype(np.float64) * slope + intercept
  return _looked_up(path, data, stored)


def _looked_up(path, data, stored: np.ndarray) -> np.ndarray:
  """float64 by the modality table.

  Raises:
    UserError: entries of other depths; pixels that are no whole numbers.
  """
  table = data.ModalityLUTSequence[0]
  bits = int(table.LUTDescriptor[2])
  if not 8 <= bits <= 16 or stored.dtype.kind == "f":
    raise UserError(f"{path} has a modality look-up table with entries of {bits} bits for {stored.dtype} "
                    "pixels: entries of 8 to 16 bits for whole numbers are read")
  return palette.applied(palette.entries(path, data, table), table, stored)


def _check_frames_alike(path, data, said: bool) -> None:
  """Refuses several frames of which each has units, or (where nobody has `said` them) black and white, of its
  own."""
  groups = [("PixelValueTransformationSequence", ("RescaleSlope", "RescaleIntercept")),
            ("FrameVOILUTSequence", ("WindowCenter", "WindowWidth"))]
  for place, names in groups[:1] if said else groups:
    own = [(g.get(place) or [{}])[0] for g in data.get("PerFrameFunctionalGroupsSequence") or ()]
    if len({tuple(str(group.get(n)) for n in names) for group in own}) > 1:  # one may have none
      raise UserError(f"{path}: its frames differ in {' and '.join(names)}, so that equal pixels are not "
                      "equally bright; give one frame a file, or say black and white by config.data.window")


def _bounds(path, data, array, window, bits):
  """(stored value of black, of white) that somebody says, or None."""
  slope, intercept = rescale(path, data)
  stored = lambda low, high: ((low - intercept) / slope, (high - intercept) / slope)
  if tuple(window) != (0, 0):
    return stored(*window)
  if (own := _window_of(data)) is not None:
    return stored(*own)
  if array.dtype.kind == "f" or bits > 16:
    raise UserError(f"{path} has {array.dtype} pixels and no window: {_SAY}")
  if data.get("Modality") == "CT" and "RescaleIntercept" in (
      _group(data, "PixelValueTransformationSequence") or data):
    return stored(*CT_UNITS)
  return None


def _window_of(data):
  """(black, white) of the file's first window in units, or None."""
  found = _group(data, "FrameVOILUTSequence") or data
  centre, width = _first(found.get("WindowCenter")), _first(found.get("WindowWidth"))
  if centre is None or width is None or not width > 0:
    return None
  if _function(found) == "LINEAR_EXACT" or width < 1:
    return centre - width / 2, centre + width / 2
  half = max(width - 1, 1) / 2
  return centre - 0.5 - half, centre - 0.5 + half


def _narrow(path, data) -> str:
  """A line where the first window is of an unknown function, or linear and narrower than 1 (viewers take it
  for an exact one, or for one of 1); "" of others and of a width of 0, which programs write for none."""
  found = _group(data, "FrameVOILUTSequence") or data
  width = _first(found.get("WindowWidth")) or 0.0
  if width < 0:
    return _NEGATIVE.format(path, width)
  function = _function(found)
  if width > 0 and function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
    return f"{path}: its VOI LUT Function is {function[:20]!r}, which is none that is known: {_SAY}"
  return _NARROW.format(path, width) if 0 < width < 1 and function == "LINEAR" else ""


def _own_slope(path, data) -> str:
  """A line where a file of emission tomography has a slope, which is its own, and no window."""
  slope = rescale(path, data)[0]
  if data.get("Modality") not in ("PT", "NM") or slope == 1:
    return ""
  return (f"{path} names no window, and its Rescale Slope ({slope:g}) is of this file alone: equal greys are "
          f"other values in each; {_SAY}")


def _misfit(path, data) -> str:
  """A line where the entries of the VOI look-up table that applies are of another depth than it says."""
  table = _voi_table(_group(data, "FrameVOILUTSequence") or data)
  if table is None:
    return ""
  bits, most = int(table.LUTDescriptor[2]), int(np.max(palette.entries(path, data, table)))
  return "" if bits <= 8 or 2 ** (bits - 2) <= most < 2**bits else (
      f"{path}: its VOI look-up table says entries of {bits} bits, and the largest is {most}: {_SAY}")


def _voi_table(found) -> Any:
  """The VOI look-up table that applies, before which a window goes; or None."""
  tables = found.get("VOILUTSequence")
  return tables[0] if tables and found.get("WindowWidth") is None else None


def _shape(data) -> str:
  return " ".join(str(data.get("PresentationLUTShape") or "").upper().split())


def _printed(path, data) -> str:
  """A line where a Presentation LUT changes greys after the window; "" of others."""
  if not data.get("PresentationLUTSequence") and _shape(data) in ("", "IDENTITY", "INVERSE"):
    return ""
  return (f"{path}: a Presentation LUT ({_shape(data) or 'a table'}) changes its greys after the window, and "
          f"is not applied: {_SAY}")


def _function(found) -> str:
  """The word of VOI LUT Function in capitals, LINEAR where there is none."""
  return " ".join(str(found.get("VOILUTFunction") or "LINEAR").upper().split())


def _curve(path, data, least, most, window):
  """Grey in [0,1] of the stored values least ... most where a table or a sigmoid says it, or None.

  Args:
    window: config.data.window, which goes before the file's own window or table.
  """
  if tuple(window) != (0, 0):
    if not data.get("ModalityLUTSequence") or most - least > 65535:
      return None
    return _between(in_units(path, data, np.arange(least, most + 1)), window)
  found = _group(data, "FrameVOILUTSequence") or data
  sigmoid = _function(found) == "SIGMOID" and (_first(found.get("WindowWidth")) or 0) > 0
  table = _voi_table(found)
  if not (sigmoid or table is not None or data.get("ModalityLUTSequence")) or most - least > 65535:
    return None
  units = in_units(path, data, np.arange(least, most + 1))
  if sigmoid:
    centre, width = _first(found.WindowCenter), _first(found.WindowWidth)
    return 1 / (1 + np.exp(np.clip(-4 * (units - centre) / width, -80, 80)))
  if table is not None:
    shown = palette.applied(palette.entries(path, data, table), table, units)
    return np.clip(shown / (2 ** int(table.LUTDescriptor[2]) - 1), 0, 1)
  return _between(units, _window_of(data) or (0, 2 ** int(data.ModalityLUTSequence[0].LUTDescriptor[2]) - 1))


def _between(units, bounds):
  return np.clip((units - bounds[0]) / (bounds[1] - bounds[0]), 0, 1)


def _group(data, name) -> Any:
  """A functional group of an enhanced multi-frame file: the shared one, else that of frame 1."""
  for place in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
    groups = data.get(place)
    if groups and groups[0].get(name):
      return groups[0][name][0]
  return None


def _first(value):
  """The first of one or several numbers, None where there is none."""
  if value is None or value == "":
    return None
  several = hasattr(value, "__len__") and not isinstance(value, str)
  number = float(value[0]) if several and len(value) else None if several else float(value)
  return number if number is not None and np.isfinite(number) else None  # as where there is none


def _number(value, default):
  return default if value is None or value == "" else float(value)


def _flat(path, values, bits) -> str:
  """A line where a picture uses little of the range of its bits and no header says more, else ""."""
  least, most = map(int, values)
  if bits <= 8 or least == most or most - least >= 2 ** (bits - (2 if bits > 12 else 4)):
    return ""
  return (f"{path} names no window, and of the {bits} bits that it stores it uses {least} ... {most} only: "
          f"{_SAY}")
