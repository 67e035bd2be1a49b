"""What a preparation of Camelyon16 may be asked for."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from data_pipelines.errors import UserError

STEPS = ("annotations", "masks", "normal", "tumor", "target", "stain", "lists", "merge", "resize")
SCALES = {"x40": 1, "x20": 2, "x10": 4}
# Tiny tissue, black, black background, blurred; not annotated exhaustively (the published preparation).
LEFT_OUT = ("normal_027", "normal_045", "normal_108", "normal_144", "normal_150", "normal_158", "test_114")


@dataclasses.dataclass(frozen=True)
class Settings:
  """A preparation.

  Attributes:
    source, target: folders.
    parity: as published: masks of Pillow, the label collision, NumPy's legacy shuffle, the stain matrix from
      all pixels with the stains ordered by red, JPEG three times.
    format: "png" (lossless) or "jpeg" (quality 75).
    seed: of the drawing of cells; per_slide: at most so many patches a slide.
    names: folder of published lists: exactly their patches are cut; "" = cells are drawn.
    border: pixels of the thumbnail cleared on all sides; -1 = as published.
    mask: "area" (share of every pixel), "nearest" or "bicubic" (as published); "" = area, parity: nearest.
    least_lesion: share of lesion from which a cell of a tumour slide is taken (area masks).
    left_out: slides that are not used.
    target_slide, target_left, target_top, target_side: region whose stains all patches get.
    stain: patches are normalised.
    pyramid: x20 and x10 are read from the slide's own levels where it has them.
    scales: of SCALES.
  """
  source: str
  target: str
  parity: bool = False
  format: str = ""
  seed: int = 0
  per_slide: int = 50
  names: str = ""
  border: int = -1
  mask: str = ""
  least_lesion: float = 1.0
  left_out: tuple[str, ...] = LEFT_OUT
  target_slide: str = "normal_056"
  target_left: int = 23808
  target_top: int = 120832
  target_side: int = 2816
  stain: bool = True
  pyramid: bool = False
  scales: tuple[str, ...] = tuple(SCALES)

  @property
  def ending(self) -> str:
    """Of the images that are written."""
    return {"png": ".png", "jpeg": ".jpg"}[self.format]

  def as_json(self) -> dict[str, Any]:
    """A dict that JSON can hold; `from_json` reads it."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

  def matters(self) -> dict[str, Any]:
    """What a target folder has one of: all but where the folders lie today, and the scales."""
    return {k: v for k, v in self.as_json().items() if k not in ("source", "target", "names", "scales")}


def from_json(content: Mapping[str, Any]) -> Settings:
  """The settings that `as_json` has written."""
  fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
  return Settings(**fields)


def resolve(settings: Settings) -> Settings:
  """With what is left open filled in.

  Raises:
    UserError: a value out of range.
  """
  settings = dataclasses.replace(
      settings, format=settings.format or ("jpeg" if settings.parity else "png"),
      mask=settings.mask or ("nearest" if settings.parity else "area"))
  for name, known in (("format", ("png", "jpeg")), ("mask", ("area", "nearest", "bicubic"))):
    if getattr(settings, name) not in known:
      raise UserError(f"--{name}={getattr(settings, name)}: it is one of {', '.join(known)}")
  bad = sorted(set(settings.scales) - set(SCALES))
  if bad or "x40" not in settings.scales:
    raise UserError(f"--scales={','.join(settings.scales)}: x40 and any of {', '.join(SCALES)}")
  for name, low, high in (("per_slide", 1, 10**9), ("least_lesion", 0, 1), ("target_side", 64, 1 << 14),
                          ("border", -1, 10**6), ("seed", 0, 2**32 - 1)):
    if not low <= getattr(settings, name) <= high:
      raise UserError(f"--{name}={getattr(settings, name)}: it lies between {low} and {high}")
  return settings
