"""What the Python API returns: of one input, of a folder, of an evaluation; with tables and rich display."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

import numpy as np

from medae_jax.core import files
from medae_jax.core.errors import UserError
from medae_jax.reporting import display, gallery, result_table


@dataclasses.dataclass(frozen=True)
class Score:
  """What the model says about one image or scan; of a batch every entry has a leading axis.

  Attributes:
    map: float32, higher = more anomalous (of segmentation: the probability), on the grid of the file
      ([H,W] or [H,W,Z]) or array ([H,W]); None where the method gives no map.
    mask: bool, map above `threshold` without small components; None without a threshold.
    score: float, of the whole input: of a scan the highest of its slices; None where the task has none.
    p_value: share of normal scans of val that score as high; None where val had none.
    verdict: "abnormal" or "normal"; None without a threshold for whole inputs.
    threshold: of the map.
    outputs: the arrays themselves: of method.score [B,...] ("recon", "map", ...), or of the files that
      predict writes ("anomaly", "mask", "prob", "restored"). found["recon"] is short for it.
    row: of predictions.csv, {} for arrays; "warning" says what is unusual about the input.
    affine: [4,4] of a volume, None for images. picture: PNG bytes of the overlay, None for arrays.
  """

  map: np.ndarray | None
  mask: np.ndarray | None
  score: Any
  p_value: Any = None
  verdict: Any = None
  threshold: float | None = None
  outputs: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  row: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  affine: np.ndarray | None = None
  picture: bytes | None = None

  @property
  def warning(self) -> str:
    """What is unusual about the input, "" where nothing is."""
    return self.row.get("warning") or ""

  def __getitem__(self, name: str) -> np.ndarray:
    return self.outputs[name]

  def __repr__(self):
    shape = None if self.map is None else self.map.shape
    return f"Score(score={self.score}, p_value={self.p_value}, verdict={self.verdict}, map={shape})"

  def _repr_html_(self):
    return display.score(self)


class Predictions(list):
  """Rows of predictions.csv, a dict an input; `folder` holds the files."""

  def __init__(self, rows, folder: pathlib.Path):
    super().__init__(rows)
    self.folder = folder

  def table(self):
    """The rows as a pandas DataFrame."""
    return _pandas().DataFrame(list(self))

  def _repr_html_(self):
    return display.rows(self, f"{len(self)} inputs, files in {self.folder}")


class Evaluation(Mapping):
  """The numbers of one split: evaluation["pixel_ap"]; a mapping of evaluation/<split>.json.

  Attributes:
    folder: holds evaluation/<split>.csv, pictures and report.html.
  """

  def __init__(self, result: Mapping[str, Any], folder: pathlib.Path):
    self._result, self.folder = dict(result), pathlib.Path(folder)

  def __getitem__(self, name):
    return self._result[name]

  def __iter__(self):
    return iter(self._result)

  def __len__(self):
    return len(self._result)

  @property
  def split(self) -> str:
    """Name of the split."""
    return self._result["split"]

  @property
  def report(self) -> pathlib.Path:
    """The page."""
    return self.folder / "report.html"

  def table(self):
    """A pandas DataFrame, a row a number: metric, value, low and high of its 95 % interval, baseline,
    unit, better (higher or lower), threshold (its rule), meaning; indexed by the key in the JSON file."""
    rows = result_table.rows(self._result)
    return _pandas().DataFrame(rows).set_index("key")

  def cases(self, table: str = "") -> list[dict[str, str]]:
    """Rows of evaluation/<split>.csv (a patient or an image each), or of <split>_<table>.csv."""
    path = self.folder / "evaluation" / f"{self.split}{'_' if table else ''}{table}.csv"
    return files.read_csv(path, gallery.REMEDY)

  def plot(self):
    """A matplotlib Figure: every measure with its 95 % interval and the baseline; where images have
    labels, the scores of normal and abnormal ones."""
    return display.figure(self._result, self.cases("images"))

  def picture(self) -> bytes | None:
    """PNG bytes of evaluation/<split>_panel.png; None where there is none."""
    path = self.folder / "evaluation" / f"{self.split}_panel.png"
    return path.read_bytes() if path.is_file() else None

  def __str__(self):
    return result_table.text({self.split: self._result})

  __repr__ = __str__

  def _repr_html_(self):
    return display.evaluation(self._result, self.picture())


def _pandas():
  try:
    import pandas
  except ImportError as e:
    raise UserError("tables need pandas: pip install pandas (or the extra: medae-jax[notebook])") from e
  return pandas
