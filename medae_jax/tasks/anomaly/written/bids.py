"""Anomaly maps as a BIDS data set of derivatives (config.predict.layout="bids").

  dataset_description.json  README  .bidsignore  scans.json
  sub-01/[ses-1/]sub-01[_ses-1]_scans.tsv                          score, p-value, call of every scan
  sub-01/[ses-1/]anat/<entities>_desc-anomaly_probseg.nii.gz .json   the map divided by AnomalyScale
  sub-01/[ses-1/]anat/<entities>_desc-anomaly_mask.nii.gz .json
  sub-01/[ses-1/]anat/<entities>_desc-anomaly_overlay.png            (and predictions.csv: in .bidsignore)

BIDS has no suffix for a map of scores. Of those that it has, probseg (float, 0 to 1) is the closest; that it
is a score and no probability stands in every sidecar, with the scale that gives the map back.
"""

from __future__ import annotations

from collections.abc import Mapping
import csv
import os
import pathlib
from typing import Any

import numpy as np

from data_pipelines.formats import nifti
from data_pipelines.intake import bids, names
from medae_jax import __version__
from medae_jax.core import files
from medae_jax.core.errors import UserError
from medae_jax.tasks.anomaly.written import layouts

VERSION = "1.10.0"
USE = "Research use only, not a medical device: scores, no diagnosis."
_NAME = "medae_jax"
_COLUMNS: dict[str, dict[str, Any]] = {
    "filename": {"Description": "The anomaly map of the scan."},
    "anomaly_score": {"Units": "arbitrary",
                      "Description": "Score of the scan (of its highest slice), higher = more abnormal."},
    "p_value": {"Description": "Share of the normal scans of validation, and of this one, that score as high "
                "or higher."},
    "called_abnormal": {"Description": "Whether the score is above the threshold of validation.",
                        "Levels": {"0": "called normal", "1": "called abnormal"}},
    "map_max": {"Description": "Highest value of the anomaly map.", "Units": "arbitrary"},
    "mask_volume": {"Description": "Volume of the mask.", "Units": "mL"},
    "threshold": {"Description": "Value of the anomaly map above which the mask is 1.", "Units": "arbitrary"}}
_README = f"""Anomaly maps computed by medae_jax {__version__}.

*_desc-anomaly_probseg.nii.gz: the anomaly map divided by AnomalyScale of its JSON file, 0 to 1, higher = more
abnormal. It is a score: BIDS has no suffix for one, and these values are no probabilities.
*_desc-anomaly_mask.nii.gz: 1 where the map is above the threshold that its JSON file names.
*_scans.tsv: score, p-value and call of every scan; its columns are explained in scans.json.

{USE}
"""


class Derivatives(layouts.Files):
  """The layout "bids".

  Args:
    calibration: of the run; its "map_max" is the scale of maps, so that scans compare.
    apart: every volume of a session is a scan of its own: desc- takes the suffix of the source.
  """

  volumes_only = True

  def __init__(self, calibration: Mapping[str, Any] | None, apart: bool = False):
    found = calibration or {}
    self._top, self._rule = float(found.get("map_max") or 0), found.get("threshold_rule", "")
    self._apart, self._output, self._about = apart, pathlib.Path(), dict[str, Any]()
    self._scale, self._rows, self._links = 1.0, dict[str, dict[str, Any]](), dict[str, str]()

  def check(self, scans):
    """Refuses scans without BIDS names that would be one subject.

    Raises:
      UserError: two scans whose names have the same letters and digits.
    """
    taken: dict[str, str] = {}
    for scan in scans:
      if bids.parse(f"{scan.name}_x")[0]:
        continue
      subject = names.same(bids.label(scan.name))
      if subject in taken:
        raise UserError(f"{taken[subject]} and {scan.name} would both be sub-{bids.label(scan.name)}: rename "
                        "one, or use --config.predict.layout=files")
      taken[subject] = scan.name

  def begin(self, output, about):
    """Writes what describes the data set.

    Raises:
      UserError: the folder is a BIDS data set of something else.
    """
    known = bids.describe(output)
    made = known.get("GeneratedBy")
    if (output / bids.DESCRIPTION).exists() and not (
        isinstance(made, list) and any(isinstance(m, dict) and m.get("Name") == _NAME for m in made)):
      raise UserError(f"{output} is a BIDS data set that medae_jax has not made: choose another --output, "
                      f"such as {output / 'derivatives/medae_jax'}")
    self._output, self._about = output, dict(about)
    root, sources = bids.root_of(pathlib.Path(about.get("input", ""))), {}
    if root is not None:
      self._links = {"raw": pathlib.PurePath(os.path.relpath(root, output.absolute())).as_posix()}
      raw = bids.describe(root)
      doi = {"DOI": raw["DatasetDOI"]} if raw.get("DatasetDOI") else {}
      sources = {"SourceDatasets": [{"URL": "bids:raw:", **doi}], "DatasetLinks": self._links}
    files.write_json(output / bids.DESCRIPTION, {
        "Name": f"Anomaly maps of {about.get('run') or _NAME}", "BIDSVersion": VERSION,
        "DatasetType": "derivative", "GeneratedBy": [{
            "Name": _NAME, "Version": __version__,
            "Description": f"{about.get('method')}, {about.get('checkpoint')}. {USE}"}], **sources})
    files.write_json(output / "scans.json", _COLUMNS)
    (output / "README").write_text(_README, encoding="utf-8")
    (output / ".bidsignore").write_text("*_overlay.png\n*.csv\n*.html\n*.log\n", encoding="utf-8")

  def map(self, scan, out, anomaly, like, top):
    self._scale = max(self._top, float(anomaly.max())) or 1.0
    shares = np.clip(anomaly / np.float32(self._scale), 0, 1).astype(np.float32)
    path = self._anat(scan, out, "probseg.nii.gz")
    nifti.write_like(path, shares, like, "medae_jax anomaly score / AnomalyScale; no probability", 1.0)
    self._sidecar(path, scan, "Anomaly map: score of every voxel divided by AnomalyScale, higher = more "
                  f"abnormal. A score, no probability. {USE}",
                  {"Units": "arbitrary", "AnomalyScale": self._scale})

  def mask(self, scan, out, mask, like, threshold):
    path = self._anat(scan, out, "mask.nii.gz")
    nifti.write_like(path, mask, like, f"medae_jax: 1 where the anomaly map is above {threshold:.6g}", 1.0)
    self._sidecar(path, scan, f"1 where the anomaly map is above Threshold. {USE}", {
        "Type": "Lesion", "Threshold": float(threshold), "ThresholdOfProbseg": float(threshold) / self._scale,
        **({"ThresholdRule": self._rule} if self._rule else {})})

  def overlay(self, scan, out):
    return self._anat(scan, out, "overlay.png")

  def row(self, scan, row):
    self._rows[scan.name] = {
        "filename": f"anat/{self._stem(scan)}_probseg.nii.gz", "anomaly_score": row["score"],
        "mask_volume": row.get("mask_ml"),
        **{k: row.get(k) for k in ("p_value", "called_abnormal", "map_max", "threshold")}}

  def after(self, scan):
    """Puts the scan's line into the table of its session; lines of other scans stay."""
    place, session = self._session(scan)
    path = self._output / place / f"{session}_scans.tsv"
    lines = {}
    if path.is_file():
      with open(path, encoding="utf-8", newline="") as file:
        lines = {r["filename"]: r for r in csv.DictReader(file, delimiter="\t") if r.get("filename")}
    line = self._rows.pop(scan.name)
    lines[line["filename"]] = line
    rows = [[_text(lines[k].get(c)) for c in _COLUMNS] for k in sorted(lines)]
    text = ["\t".join(cells) for cells in (_COLUMNS, *rows)]
    files.write_bytes(path, ("\n".join(text) + "\n").encode())

  # ------------------------------------------------------------------------------------- names
  def _entities(self, scan) -> dict[str, str]:
    """Of the scan's name where it is one of BIDS, else that name as the subject."""
    return bids.parse(scan.name if self._apart else f"{scan.name}_x")[0] or {"sub": bids.label(scan.name)}

  def _stem(self, scan) -> str:
    entities = {k: v for k, v in self._entities(scan).items() if k != "desc"}
    suffix = bids.parse(scan.name)[1] if self._apart else ""
    return f"{bids.name(entities)}_desc-anomaly{suffix}"

  def _session(self, scan) -> tuple[str, str]:
    """("sub-01/ses-1", "sub-01_ses-1")."""
    own = {k: v for k, v in self._entities(scan).items() if k in ("sub", "ses")}
    return "/".join(f"{k}-{v}" for k, v in own.items()), bids.name(own)

  def _anat(self, scan, out, ending) -> pathlib.Path:
    path = out / self._session(scan)[0] / "anat" / f"{self._stem(scan)}_{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path

  def _sidecar(self, path, scan, text, more) -> None:
    root = bids.root_of(next(iter(scan.files.values())))
    sources = [f"bids:raw:{p.absolute().relative_to(root).as_posix()}" for p in scan.all_files
               ] if root is not None and self._links else []
    about = {k: self._about[k] for k in ("method", "run", "checkpoint", "trained_on") if self._about.get(k)}
    files.write_json(path.with_name(path.name.removesuffix(".nii.gz") + ".json"), {
        "Description": text, "SpatialReference": "orig", **({"Sources": sources} if sources else {}), **more,
        "Model": {"software": f"{_NAME} {__version__}", **about}})


def _text(value) -> str:
  """A cell of a table of BIDS: n/a where nothing is known."""
  shown = files.cell(value)
  return "n/a" if shown == "" else str(shown)
