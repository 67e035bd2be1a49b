"""trained_on.json: what the images of a run's training were, measured on them when the run began.

training/measure.py makes it, `read` is its only reader; fit.py compares inputs of predict with it.
Runs of before this file, and converted ones, have none: nothing is compared there.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from medae_jax.core import checks, files
from medae_jax.core.errors import UserError

FILE = "trained_on.json"
LEVELS = (0.01, *(k / 20 for k in range(1, 20)), 0.99)  # of the quantiles
_REMEDY = "restore it from a copy, or delete it to predict without comparing inputs with it"


@dataclasses.dataclass(frozen=True)
class TrainedOn:
  """The content of trained_on.json.

  Attributes:
    dataset: its name. synthetic: computer-generated. variant: "demo" where the program chose it.
    kind: "volume" (slices of scans) or "image".
    modalities: channels of volumes by name, () of images.
    size, channels: (rows, columns) and number of channels as the network is shown them.
    low, high: range of the measured values, in the units of the network.
    quantiles: [C][len(LEVELS)] of the measured values; of volumes of those that are not background.
    usual: distance (fit.distance) to them that 95 % of the measured scans or images keep.
    background: share of background that 95 % of the measured slices exceed; 0 of images.
    coloured: share of the training files that are colour pictures; None = no file was seen.
    dicom: words of (0008,0060) Modality of the training files, () where none has one.
    orientation, placement, field_mm: of volumes, as in config.data.
    spacing: of volumes, median mm along the axes so turned; () where no header says.
    examples: how many were measured.
    intents: words of dicom.intent of the training files, "raw" and "processed"; () where none has one.
    aspect: of images, the height of a pixel by its width where all of them share it, else 1.
    middle: of images that are alike, what they look like on 16 x 16 places (formats/doubts.py); else ().
  """

  dataset: str
  synthetic: bool
  variant: str
  kind: str
  modalities: tuple[str, ...]
  size: tuple[int, int]
  channels: int
  low: float
  high: float
  quantiles: tuple[tuple[float, ...], ...]
  usual: float
  background: float
  coloured: float | None
  dicom: tuple[str, ...]
  orientation: str
  placement: str
  field_mm: float
  spacing: tuple[float, ...]
  examples: int
  aspect: float = 1.0
  intents: tuple[str, ...] = ()
  middle: tuple[float, ...] = ()

  @property
  def mark(self) -> str:
    """What every result has to say of the training: "synthetic, demo", or ""."""
    return ", ".join(filter(None, ["synthetic" if self.synthetic else "", self.variant]))


def _quantiles(value) -> str:
  fits = isinstance(value, list) and value and all(
      isinstance(q, list) and len(q) == len(LEVELS) and not any(map(checks.number(), q))
      and q == sorted(q) for q in value)
  return "" if fits else f"{len(LEVELS)} rising numbers a channel"


def _size(value) -> str:
  fits = isinstance(value, list) and len(value) == 2 and not any(map(checks.whole(1), value))
  return "" if fits else "two whole numbers from 1"


def _spacing(value) -> str:
  fits = isinstance(value, list) and len(value) in (0, 3) and not any(
      map(checks.number(0, above=True), value))
  return "" if fits else "three positive numbers, or none"


def _middle(value) -> str:
  fits = isinstance(value, list) and len(value) in (0, 256) and not any(map(checks.number(), value))
  return "" if fits else "256 numbers, or none"


def _words(value) -> str:
  fits = isinstance(value, list) and all(isinstance(v, str) for v in value)
  return "" if fits else "a list of words"


_RULES: dict[str, checks.Rule] = {
    "dataset": checks.text, "synthetic": checks.flag, "variant": checks.text,
    "kind": checks.choice("volume", "image"), "modalities": _words, "size": _size,
    "channels": checks.whole(1), "low": checks.number(), "high": checks.number(),
    "quantiles": _quantiles, "usual": checks.number(0), "background": checks.number(0, 1),
    "coloured": checks.optional(checks.number(0, 1)), "dicom": _words, "orientation": checks.text,
    "placement": checks.text, "field_mm": checks.number(0), "spacing": _spacing,
    "examples": checks.whole(1), "aspect": checks.number(0, above=True), "intents": _words, "middle": _middle}
_LATER: dict[str, Any] = {"aspect": 1.0, "intents": [], "middle": []}  # fields that files of before them lack


def write(workdir, found: TrainedOn) -> None:
  """Writes <workdir>/trained_on.json, whole or not at all."""
  files.write_json(pathlib.Path(workdir) / FILE, dataclasses.asdict(found))


def read(workdir) -> TrainedOn | None:
  """The record of a workdir; None where the run has none.

  Raises:
    UserError: the file is damaged; the line names it and the field.
  """
  path = pathlib.Path(workdir) / FILE
  if not path.exists():
    return None
  found = {**_LATER, **files.read_json(path, _REMEDY)}
  for key, rule in _RULES.items():
    wrong = f"no {key}" if key not in found else (
        f"{key} is not {rule(found[key])}" if rule(found[key]) else "")
    if wrong:
      raise UserError(f"{path} is damaged ({wrong}): {_REMEDY}")
  if len(found["quantiles"]) != found["channels"] or (
      found["kind"] == "volume" and len(found["modalities"]) != found["channels"]):
    raise UserError(f"{path} is damaged (channels={found['channels']} fits neither quantiles nor "
                    f"modalities): {_REMEDY}")
  return TrainedOn(**{key: _tupled(found[key]) for key in _RULES})  # newer fields are left alone


def _tupled(value: Any) -> Any:
  return tuple(map(_tupled, value)) if isinstance(value, list) else value
