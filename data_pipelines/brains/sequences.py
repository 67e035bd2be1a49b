"""Which modality the name of a file, a folder or a DICOM series tells."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import re

from data_pipelines.intake import find as finder

# The newer BraTS releases' names of the modalities, after a "-" instead of a "_".
NEW_NAMES = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w", "seg": "seg"}
ANY = "image"  # the modality of one's own volumes whose names tell none
KNOWN = tuple(k for k in NEW_NAMES if k != "seg")
LABEL_ENDINGS = ("seg", "mask", "label")
UNUSED = "is of a sequence that the model does not use"
# Endings of truth and of our own results.
_NOT_INPUT = (*LABEL_ENDINGS, "anomaly", "overlay", "labels")

# What scanners and hospitals call them besides.
_ALIASES = {"t1w": "t1", "t1gd": "t1ce", "t1post": "t1ce", "tirm": "flair", "darkfluid": "flair"}
_CONTRAST = {"post", "gd", "gad", "gado", "gadolinium", "contrast", "ce", "c", "km", "enhanced"}
_NO_CONTRAST = {"pre", "without", "wo", "non", "no", "native", "nativ", "ohne"}
# Words of pictures that are none of KNOWN, though their descriptions may name one: "T2 star", "T1 map".
_OTHER = {"star", "swi", "swan", "gre", "hemo", "dwi", "adc", "trace", "dti", "perf", "perfusion", "pwi",
          "dsc", "dce", "asl", "bold", "tof", "mra", "mrv", "mip", "map", "mapping", "loc", "localizer",
          "localiser", "scout", "survey", "sub", "subtraction", "screenshot", "phase"}


def split_name(path: pathlib.Path, modalities: Sequence[str]) -> tuple[str, str]:
  """("BraTS2021_00000", "flair") of BraTS2021_00000_flair.nii.gz; (stem, "") where nothing fits."""
  name = finder.stem_of(path)
  for separator in ("_", "-"):
    prefix, found, ending = name.rpartition(separator)
    if found:
      for modality in modalities:
        if ending.lower() in (modality.lower(), NEW_NAMES.get(modality.lower())):
          return prefix, modality
  return name, ""


def other_kind(stem: str) -> str:
  """Why a file or folder of that name, whose ending is no modality of the model, is no input; or ""."""
  ending = re.split(r"[-_ ]", stem.lower())[-1]
  if ending in _NOT_INPUT:
    return "is named as a label or a result"
  others = (*NEW_NAMES, *NEW_NAMES.values())
  return UNUSED if ending in others else ""


def described(texts: Sequence[str], modalities: Sequence[str]) -> tuple[str, str]:
  """(modality, "") that the first text with such a word names; ("", reason) where it is none of the model's;
  ("", "") where no text says anything.

  Words in any capitals, with the newer BraTS names and those of scanners: "t2_tirm_tra_dark-fluid" and
  "AX T2 FLAIR" are flair, "T1 post GD" is t1ce, "T1 pre GD" t1. "T1 FLAIR" names two, "T2*" something else.

  Args:
    texts: SeriesDescription, ProtocolName.
  """
  own = {n: m for m in modalities for n in (m.lower(), NEW_NAMES.get(m.lower(), m.lower()))}
  brain = any(m.lower() in KNOWN for m in modalities)
  known = {**{n: k for k in KNOWN for n in (k, NEW_NAMES[k])}, **_ALIASES} if brain else {}
  for text in texts:
    words = _words(text)
    said = {own.get(w) or known[w] for w in words if w in own or w in known}
    if not said:
      continue
    other = sorted(words & (_OTHER - set(own))) if brain else []
    found = _one(said, words)
    if not found or other:
      several = " and ".join([*sorted(said), *other])
      return "", f"is of a series whose description names {several}: not one sequence"
    if found.lower() in own:
      return own[found.lower()], ""
    return "", UNUSED
  return "", ""


def _words(text):
  text = text.lower().replace("t2*", "t2 star").replace("w/o", "without").replace("dark-fluid", "darkfluid")
  words = re.split(r"[^a-z0-9]+", text.replace("dark fluid", "darkfluid").replace("dark_fluid", "darkfluid"))
  return set(filter(None, words))


def _one(said, words):
  """The one sequence among the modalities said, "" where they are several."""
  if "flair" in said:
    said = said - {"t2"}  # T2 FLAIR
  if "t1" in said and words & _CONTRAST and not words & _NO_CONTRAST:
    said = said - {"t1"} | {"t1ce"}
  elif "t1ce" in said:
    said = said - {"t1"}
  return next(iter(said)) if len(said) == 1 else ""
