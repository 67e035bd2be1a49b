"""Where the files of a volume lie: config.predict.layout.

  files   <name>_anomaly.nii.gz, <name>_mask.nii.gz, <name>_overlay.png in one folder
  bids    a data set of derivatives, see bids.py
"""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

import numpy as np

from data_pipelines.formats import nifti


class Files:
  """The layout "files": results of all scans beside each other.

  Attributes:
    volumes_only: no pictures of single slices, and no DICOM objects beside the NIfTI files.
  """

  volumes_only = False

  def check(self, scans) -> None:
    """Raises UserError where scans cannot lie in it together."""

  def begin(self, output: pathlib.Path, about: Mapping[str, Any]) -> None:
    """Called once before the first scan; see `BasePredictor.begin`."""

  def map(self, scan, out: pathlib.Path, anomaly: np.ndarray, like, top: float) -> None:
    """Writes the anomaly map, float32 [H,W,Z], on the grid of `like` (nibabel).

    Args:
      top: where a viewer's scale ends.
    """
    nifti.write_like(out / f"{scan.name}_anomaly.nii.gz", anomaly, like,
                     "medae_jax anomaly map, higher is more abnormal; no diagnosis", top)

  def mask(self, scan, out: pathlib.Path, mask: np.ndarray, like, threshold: float) -> None:
    """Writes the mask, uint8 [H,W,Z] of 0 and 1."""
    nifti.write_like(out / f"{scan.name}_mask.nii.gz", mask, like,
                     f"medae_jax: 1 where the anomaly map is above {threshold:.6g}", 1.0)

  def overlay(self, scan, out: pathlib.Path) -> pathlib.Path:
    """Where the overlay picture goes; its folder exists."""
    return out / f"{scan.name}_overlay.png"

  def row(self, scan, row: Mapping[str, Any]) -> None:
    """The finished line of predictions.csv of a scan whose files are written."""

  def after(self, scan) -> None:
    """Called when the files of a scan are in their place."""
