"""Results of a DICOM series as DICOM segmentations and a structured report beside NIfTI, in the cases of
config.predict.dicom_seg:

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

from data_pipelines.formats import dicom_seg, dicom_sr
from medae_jax import __version__
from medae_jax.core.errors import UserError


class DicomResults:
  """Writes <name>_mask.dcm (BINARY), <name>_anomaly.dcm (FRACTIONAL) and <name>_report.dcm (SR, TID 1500).

  Args:
    asked: config.predict.dicom_seg.
  """

  def __init__(self, asked, calibration: Mapping[str, Any] | None):
    self._asked, self._about = str(asked), dict[str, Any]()
    self._top = float((calibration or {}).get("map_max") or 0)
    if self._asked == "True" and not dicom_seg.available():
      raise UserError(f"config.predict.dicom_seg=True: {dicom_seg.ADVICE}")

  def begin(self, about: Mapping[str, Any]) -> None:
    """Called once before the first scan; see `BasePredictor.begin`."""
    self._about = dict(about)

  def announce(self, scans: Sequence) -> None:
    """Says before the first result where there will be no segmentations."""
    if self._asked == "auto" and any(s.series for s in scans) and not dicom_seg.available():
      logging.warning("No DICOM SEG is written beside the NIfTI files, %s "
                      "(--config.predict.dicom_seg=False silences this)", dicom_seg.ADVICE)

  def write(self, scan, modality: str, out_dir: pathlib.Path, anomaly: np.ndarray, mask: np.ndarray | None,
            row: Mapping[str, Any], warn: Callable[[str, str], None]) -> dict[str, Any]:
    """Column of the row: "seg_scale", the map's value that is 1 in the fractional object; {} without objects.

    Args:
      modality: the first: on its grid results lie. anomaly, mask: [H,W,Z] on it.
      row: of predictions.csv, for the report.
      warn: takes (name of the input, line) where "auto" cannot be done.

    Raises:
      UserError: it was asked for and cannot be written.
    """
    files = scan.series.get(scan.files.get(modality), ())
    if not files or self._asked == "False" or not dicom_seg.available():
      return {}
    # One scale for all inputs of a run, but for maps that go beyond it.
    scale = max(self._top, float(anomaly.max())) or 1.0
    *segs, report = targets = [out_dir / f"{scan.name}_{kind}.dcm" for kind in ("mask", "anomaly", "report")]
    try:
      with dicom_seg.explained(files):
        heads = dicom_seg.sources(files)
        made = dicom_seg.write(segs, heads, mask, anomaly, scale, row.get("threshold"), __version__)
        dicom_sr.write(report, heads, made, self._found(row), __version__)
    except UserError as error:
      if self._asked == "True":
        raise
      for target in targets:
        target.unlink(missing_ok=True)
      warn(scan.title or scan.name, f"{error}; its maps are written as NIfTI")
      return {}
    return {"seg_scale": scale}

  def _found(self, row) -> dicom_sr.Found:
    call = row.get("called_abnormal")
    return dicom_sr.Found(
        None if row.get("mask_ml") is None else 1000 * row["mask_ml"], row["score"], row.get("p_value"),
        row.get("threshold"), None if call is None else bool(call),
        {k: str(self._about.get(k) or "") for k in ("method", "checkpoint", "trained_on", "calibration")})
