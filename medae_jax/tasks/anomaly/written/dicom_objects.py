"""Results of a DICOM series as DICOM segmentations beside NIfTI; config.predict.dicom_seg says when.

  auto   (default) for every DICOM series, where the optional package highdicom is installed
  True   for every DICOM series; refused before the first result where it is not installed
  False  never
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import pathlib
from typing import Any

from absl import logging
import numpy as np

from data_pipelines.formats import dicom_seg
from medae_jax import __version__
from medae_jax.core.errors import UserError


class DicomResults:
  """Writes <name>_mask.dcm (BINARY) and <name>_anomaly.dcm (FRACTIONAL).

  Args:
    asked: config.predict.dicom_seg.
  """

  def __init__(self, asked, calibration: Mapping[str, Any] | None):
    self._asked = str(asked)
    self._top = float((calibration or {}).get("map_max") or 0)
    if self._asked == "True" and not dicom_seg.available():
      raise UserError(f"config.predict.dicom_seg=True: {dicom_seg.ADVICE}")

  def begin(self, about: Mapping[str, Any]) -> None:
    """Called once before the first scan; see `BasePredictor.begin`."""

  def announce(self, scans: Sequence) -> None:
    """Says before the first result where there will be no segmentations."""
    if self._asked == "auto" and any(s.series for s in scans) and not dicom_seg.available():
      logging.warning("No DICOM SEG is written beside the NIfTI files, %s "
                      "(--config.predict.dicom_seg=False silences this)", dicom_seg.ADVICE)

  def write(self, scan, modality: str, out_dir: pathlib.Path, anomaly: np.ndarray, mask: np.ndarray | None,
            threshold: float | None, warn: Callable[[str, str], None]) -> dict[str, Any]:
    """Column of the row: "seg_scale", the map's value that is 1 in the fractional object; {} without objects.

    Args:
      modality: the first: on its grid results lie. anomaly, mask: [H,W,Z] on it.
      warn: takes (name of the input, line) where "auto" cannot be done.

    Raises:
      UserError: it was asked for and cannot be written.
    """
    files = scan.series.get(scan.files.get(modality), ())
    if not files or self._asked == "False" or not dicom_seg.available():
      return {}
    # One scale for all inputs of a run, but for maps that go beyond it.
    scale = max(self._top, float(anomaly.max())) or 1.0
    targets = [out_dir / f"{scan.name}_{kind}.dcm" for kind in ("mask", "anomaly")]
    try:
      dicom_seg.write(targets, files, mask, anomaly, scale, threshold, __version__)
    except UserError as error:
      if self._asked == "True":
        raise
      for target in targets:
        target.unlink(missing_ok=True)
      warn(scan.title or scan.name, f"{error}; its maps are written as NIfTI")
      return {}
    return {"seg_scale": scale}
