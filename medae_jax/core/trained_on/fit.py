"""Whether an input of predict is of the kind that the run was trained on.

`of_form` and `of_picture` are for what cannot be meant: another kind of picture, whatever the network
makes of it.
`warning` is for what may be meant: the right kind with other intensities. Both give a line or "".
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from medae_jax.core.trained_on.record import LEVELS, TrainedOn

COLOURED = 0.1       # share of coloured pixels from which a picture is a colour picture
BACKGROUND = 0.02    # of the unit of intensity: at or below it a pixel of a volume is background
_FAR = 0.25          # of the spread of the training values: distances up to it are no news
_ENLARGED = 4        # times that a picture is enlarged for the network before it is said
_SCALE = 2.0         # ratio of voxel sizes in a slice up to which nothing is said
_LEAST_EMPTY = 0.1   # training slices with less background than this say nothing about a picture
_PIXELS = 1 << 16    # values of an example that are looked at

# DICOM words of pictures that are no slices: projections, photographs, microscopy.
FLAT = ("CR", "DX", "MG", "RG", "RF", "XA", "IO", "PX", "ES", "XC", "GM", "SM", "OP")
# Names of modalities that only magnetic resonance has.
_MR = ("flair", "t1", "t1c", "t1ce", "t1gd", "t1n", "t2", "t2f", "t2w", "t1w", "pd", "dwi", "adc", "swi")
# Words that name the same kind of picture, and those that say nothing.
_SAME = {"DX": "CR", "RG": "CR"}
_SILENT = ("OT", "SC", "")


@dataclasses.dataclass(frozen=True)
class Seen:
  """What an input is, before it is prepared.

  Attributes:
    kind: "volume" or "image".
    planes: channels of the picture's file; 0 of volumes and of files that cannot be read.
    coloured: share of its pixels that are coloured; of volumes 0.
    apart: a picture given as a file for each modality.
    dicom: its words of (0008,0060) Modality, () where there are none.
    spacing: of volumes, mm along the axes as they are prepared; () where it is not known.
    oblong: of pictures, how their pixels are no squares, "" where they are.
    aspect: of pictures, the height of a pixel by its width.
    intent: "raw" or "processed" of radiographs that say it, else "".
    greys: of pictures, 1 or 2 where they have no more values, else 0.
    size: of pictures, (rows, columns); () where it is not known.
  """

  kind: str
  planes: int = 0
  coloured: float = 0.0
  apart: bool = False
  dicom: tuple[str, ...] = ()
  spacing: tuple[float, ...] = ()
  oblong: str = ""
  aspect: float = 1.0
  intent: str = ""
  greys: int = 0
  size: tuple[int, ...] = ()


def colour_share(values: np.ndarray) -> float:
  """Share of the pixels of [H,W,C] whose channels differ by more than 6 % of the picture's range."""
  if values.ndim < 3 or values.shape[-1] != 3:
    return 0.0
  values = np.asarray(values, np.float64)
  span = float(values.max() - values.min())
  return float(np.mean(np.ptp(values, axis=-1) > 0.06 * span)) if span > 0 else 0.0


def quantiles(example: np.ndarray, kind: str) -> np.ndarray:
  """[C, len(LEVELS)] of [..., C]; of volumes without the background, zeros where there is nothing else."""
  flat = np.asarray(example, np.float64).reshape(-1, example.shape[-1])
  if kind == "volume":
    flat = flat[(flat > BACKGROUND).any(-1)]
  if not len(flat):
    return np.zeros((example.shape[-1], len(LEVELS)))
  return np.quantile(flat[::-(-len(flat) // _PIXELS)], LEVELS, axis=0).T


def background(example: np.ndarray) -> float:
  """Share of the pixels of [..., C] that are background in every channel."""
  return float(np.mean((np.asarray(example) <= BACKGROUND).all(-1)))


def distance(own: np.ndarray, usual) -> float:
  """Mean distance of two sets of quantiles [C, L] in the worst channel, as a share of the spread
  (1 to 99 %) of `usual`: a first Wasserstein distance."""
  own, usual = np.asarray(own, np.float64), np.asarray(usual, np.float64)
  spread = np.maximum(usual[:, -1] - usual[:, 0], 1e-3 * max(1.0, float(np.abs(usual).max())))
  return float(np.max(np.abs(own - usual).mean(-1) / spread))


def of_form(trained: TrainedOn, seen: Seen) -> str:
  """Why an input of this form cannot be read by the model; "" where it can. Nothing is prepared yet."""
  what = _what(trained)
  if seen.kind == "volume" and trained.kind == "image":
    return f"it is a volume, and the model was trained on {what}"
  foreign = _foreign(trained, seen.dicom)
  if foreign:
    return f"its DICOM header says {foreign}, and the model was trained on {what}"
  if seen.kind == "volume" or not seen.planes:
    return ""
  if trained.kind == "image":
    if seen.coloured >= COLOURED and trained.coloured == 0 and trained.channels == 1:
      return f"it is a colour picture, and the model was trained on {what}, all grey"
    return ""
  if trained.channels > 1 and not seen.apart:
    # Colours that are modalities look like a photograph's: whoever has packed them so insists.
    return (f"it is a {'colour' if seen.coloured else 'grey'} picture, and the model reads "
            f"{trained.channels} modalities ({', '.join(trained.modalities)})")
  if seen.coloured >= COLOURED:
    return f"it is a colour picture, and the model was trained on {what}"
  return ""


def of_picture(trained: TrainedOn, example: np.ndarray) -> str:
  """Why a picture, prepared as [n,h,w,C], is no slice of the training's scans; "" where it may be one."""
  empty = background(example)
  if trained.kind == "volume" and trained.background >= _LEAST_EMPTY and empty < 0.3 * trained.background:
    return (f"it has {empty:.0%} of empty background, slices of the training at least "
            f"{trained.background:.0%}: it is none of {_what(trained)}")
  return ""


def warning(trained: TrainedOn, seen: Seen, example: np.ndarray) -> str:
  """What is unusual about an input that can be read, prepared as [..., C]; "" where nothing is."""
  if example.shape[-1] != trained.channels:
    return ""  # the network says so
  if seen.size and all(n >= _ENLARGED * own for n, own in zip(example.shape[-3:-1], seen.size)):
    return (f"it has {seen.size[0]} x {seen.size[1]} pixels, and the network is shown {example.shape[-3]} x "
            f"{example.shape[-2]}: most of what it sees is made up by enlarging")
  if trained.kind == "image" and trained.channels == 3 and trained.coloured == 1 and not seen.coloured:
    return "it is grey, and every picture of the training was in colour"
  if trained.placement == "scan" and len(trained.spacing) == len(seen.spacing) == 3:
    # The whole slice is resized: what has another size in mm is shown to the network in another scale.
    ratio = max(max(a / b, b / a) for a, b in zip(seen.spacing[:2], trained.spacing[:2]))
    if ratio > _SCALE:
      mm = lambda values: " x ".join(f"{v:.3g}" for v in values[:2])
      return (f"its voxels are {mm(seen.spacing)} mm in a slice, those of the training "
              f"{mm(trained.spacing)} mm")
  far = distance(quantiles(example, trained.kind), trained.quantiles)
  if far > max(_FAR, 2 * trained.usual):
    return (f"its intensities are far from those of the training ({far:.2f} of their spread, usual are up "
            f"to {trained.usual:.2f}): what is found may be the scanner")
  return ""


def _foreign(trained: TrainedOn, words: Sequence[str]) -> str:
  """The DICOM word that no training image can have had, "" where there is none."""
  known = tuple(w for w in trained.dicom if w not in _SILENT)
  if not known and trained.kind == "volume":
    names = [m.lower() for m in trained.modalities]
    known = ("MR",) if all(n in _MR for n in names) else ()
  same = lambda w: _SAME.get(w, w)
  for word in (w for w in words if w not in _SILENT):
    if (known and same(word) not in map(same, known)) or (trained.kind == "volume" and word in FLAT):
      return word
  return ""


def _what(trained: TrainedOn) -> str:
  if trained.kind == "volume":
    return f"slices of volumes ({', '.join(trained.modalities)})"
  return "single images" + (f" ({', '.join(trained.dicom)})" if trained.dicom else "")
