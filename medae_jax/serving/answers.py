"""Results as JSON or as a zip; the schemas that OpenAPI shows."""

from __future__ import annotations

import base64
from collections.abc import Mapping
import dataclasses
import gzip
import io
import mimetypes
import pathlib
from typing import TYPE_CHECKING, Any
import zipfile

import numpy as np
import pydantic

from medae_jax.core import files
from medae_jax.reporting.results import Score

if TYPE_CHECKING:
  from medae_jax.tasks.view import View

_OWN = ("predictions.csv", "predictions.html", "results.csv", "left_out.csv")


@dataclasses.dataclass(frozen=True)
class Scored:
  """What the function that scores returns: `score`, the folder with its files, and `view` where asked."""

  score: Score
  folder: pathlib.Path
  view: View | None = None


class File(pydantic.BaseModel):
  """A file as --mode=predict writes it."""
  name: str
  type: str
  bytes: int
  base64: str


class Result(pydantic.BaseModel):
  """Of POST /api/score."""
  input: str
  score: float | None = pydantic.Field(description="of the whole input: of a scan the highest of its slices")
  p_value: float | None = pydantic.Field(description="share of normal scans of val that score as high")
  verdict: str | None = pydantic.Field(description="abnormal or normal; null: no threshold for whole inputs")
  threshold: float | None = pydantic.Field(description="of the map, for the mask")
  warning: str = pydantic.Field(description="what is unusual about the input")
  row: dict[str, Any] = pydantic.Field(description="the row of predictions.csv")
  seconds: float = pydantic.Field(description="of scoring, without waiting")
  files: list[File] = pydantic.Field(default=[], description="with include=files")
  view: dict[str, Any] | None = pydantic.Field(default=None, description="slices, with include=view")


class Info(pydantic.BaseModel):
  """Of GET /api/info: the run and the limits."""
  version: str
  run: str
  method: str
  task: str
  checkpoint: str
  trained_on: str = pydantic.Field(description='"synthetic", "demo"; empty where neither')
  modalities: list[str] = pydantic.Field(description="of one scan, a file each; empty: single images")
  reads: list[str] = pydantic.Field(description="endings of the files that are read")
  threshold: float | None
  calibration: str
  max_bytes: int
  max_waiting: int
  colours: list[list[int]] = pydantic.Field(description="the heat scale, 256 times red, green, blue")


class Error(pydantic.BaseModel):
  """Of every other answer."""
  status: int
  error: str
  detail: str = pydantic.Field(description="one line: what, where, what to do")


def as_json(found: Scored, seconds: float, with_files: bool) -> bytes:
  """A `Result`."""
  score, row = found.score, dict(found.score.row)
  return files.to_json({
      "input": row.pop("input", ""), "score": score.score, "p_value": score.p_value, "verdict": score.verdict,
      "threshold": score.threshold, "warning": score.warning, "row": row, "seconds": seconds,
      "files": [_file(found.folder, p) for p in _results(found.folder)] if with_files else [],
      "view": _view(found.view) if found.view else None})


def as_zip(found: Scored) -> bytes:
  """The files as predict writes them, and predictions.csv."""
  data, table = io.BytesIO(), found.folder / "predictions.csv"
  with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
    for path in [*_results(found.folder), table]:
      out.write(path, path.relative_to(found.folder).as_posix())
  return data.getvalue()


def _results(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in _OWN)


def _file(folder, path) -> Mapping[str, Any]:
  data = path.read_bytes()
  kind = mimetypes.guess_type(path.name, strict=False)[0] or "application/octet-stream"
  return {"name": path.relative_to(folder).as_posix(), "type": kind, "bytes": len(data),
          "base64": base64.b64encode(data).decode()}


def _view(view: View) -> Mapping[str, Any]:
  """Arrays as base64 of gzip of little-endian bytes, [Z,H,W]."""
  packed = {name: base64.b64encode(gzip.compress(array.tobytes(), 1)).decode() for name, array in (
      ("image", view.image), ("levels", view.levels.astype("<u2")), ("mask", view.mask)) if array is not None}
  plain = {f.name: getattr(view, f.name) for f in dataclasses.fields(view) if f.name not in packed}
  return {**plain, **packed, "shape": list(np.shape(view.image))}
