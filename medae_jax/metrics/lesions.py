"""Lesion-wise detection: which lesions a binary prediction finds, how many false ones it makes (FROC).

A lesion is a component of the expert mask, a candidate one of the prediction, neighbours touching by corners.
A lesion is found where a candidate overlaps it; a candidate that overlaps no lesion is a false positive. Each
candidate carries the highest value of the map in it, by which a threshold thins them out: sensitivity at
given false positives a scan, as LUNA16 has it (Setio et al., MedIA 42, 2017).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.ndimage

RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)  # false positives a scan of LUNA16's mean sensitivity


@dataclasses.dataclass(frozen=True)
class Found:
  """One scan.

  Attributes:
    lesions: for each lesion the highest value of the candidates that overlap it, -inf where none does.
    false: values of the candidates that overlap no lesion.
  """
  lesions: np.ndarray
  false: np.ndarray


def match(scores: np.ndarray, predicted: np.ndarray, mask: np.ndarray) -> Found:
  """Lesions and candidates of one scan.

  Args:
    scores: the map. predicted, mask: bool; all [H,W] or [Z,H,W].
  """
  around = np.ones((3,) * mask.ndim)
  truth, n = scipy.ndimage.label(mask, around)
  candidates, m = scipy.ndimage.label(predicted, around)
  value = np.full(m + 1, -np.inf)
  if m:
    value[1:] = scipy.ndimage.maximum(scores, candidates, np.arange(1, m + 1))
  pairs = np.unique(np.stack([truth.ravel(), candidates.ravel()])[:, (predicted & mask).ravel()], axis=1)
  lesions = np.full(n + 1, -np.inf)
  np.maximum.at(lesions, pairs[0], value[pairs[1]])
  false = np.setdiff1d(np.arange(1, m + 1), pairs[1])
  return Found(lesions[1:], value[false])


def froc(found: list[Found], rates=RATES) -> dict[str, float]:
  """Numbers over scans.

  Returns:
    "lesion_sensitivity" of all candidates and "false_positives_per_scan"; "lesion_precision": lesions found
    over these and the false positives; "froc_mean": mean over `rates` of the sensitivity with at most so many
    false positives a scan; "n_lesions". NaN where undefined.
  """
  lesions = np.concatenate([f.lesions for f in found]) if found else np.zeros(0)
  false = np.concatenate([f.false for f in found]) if found else np.zeros(0)
  hit, called = np.isfinite(lesions), np.isfinite(lesions).sum() + len(false)
  out = {"lesion_sensitivity": float(hit.mean()) if len(lesions) else np.nan,
         "false_positives_per_scan": len(false) / len(found) if found else np.nan,
         "lesion_precision": float(hit.sum() / called) if called else np.nan,
         "froc_mean": np.nan, "n_lesions": len(lesions)}
  if len(lesions):
    out["froc_mean"] = float(np.mean([sensitivity_at(lesions, false, len(found), r) for r in rates]))
  return out


def sensitivity_at(lesions, false, scans: int, rate: float) -> float:
  """Share of lesions found by the lowest threshold that leaves at most `rate` false candidates a scan.

  Args:
    lesions, false: as Found, of all scans together.
  """
  allowed = int(np.floor(rate * scans + 1e-9))
  ordered = np.sort(false)[::-1]
  # Above this value lie at most `allowed` false candidates; all count where there are no more.
  cut = ordered[allowed] if allowed < len(ordered) else -np.inf
  return float((lesions > cut).mean())
