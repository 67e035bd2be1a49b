"""Result files, written whole or not at all: a temporary name in the same folder, then a rename."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import csv
import io
import json
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image


def write_bytes(path, data: bytes) -> pathlib.Path:
  """Writes a file whole or not at all."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(path.name + ".tmp")
  try:
    temporary.write_bytes(data)
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)
  return path


def write_csv(path, rows: Sequence[Mapping[str, Any]]) -> pathlib.Path | None:
  """Rows as CSV; columns = all keys in order of first appearance; None and NaN are left empty."""
  if not rows:
    return None
  columns = list(dict.fromkeys(k for row in rows for k in row))
  text = io.StringIO()
  out = csv.DictWriter(text, columns, restval="", lineterminator="\n")
  out.writeheader()
  out.writerows({k: _cell(v) for k, v in row.items()} for row in rows)
  return write_bytes(path, text.getvalue().encode())


def png(picture: np.ndarray) -> bytes:
  """uint8 [H,W,3] or [H,W] as the bytes of a PNG file."""
  data = io.BytesIO()
  Image.fromarray(picture).save(data, "PNG", optimize=True)
  return data.getvalue()


def write_png(path, picture: np.ndarray) -> pathlib.Path:
  """uint8 [H,W,3] or [H,W] as a PNG file."""
  return write_bytes(path, png(picture))


def _cell(value):
  if value is None:
    return ""
  if isinstance(value, (float, np.floating)):
    return f"{value:.6g}" if np.isfinite(value) else ""
  return value


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes JSON whole or not at all (temporary file, then rename); NaN becomes null."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(path.name + ".tmp")
  temporary.write_text(json.dumps(_plain(value), indent=2, allow_nan=False) + "\n", encoding="utf-8")
  temporary.replace(path)


def _plain(value):
  if isinstance(value, dict):
    return {str(k): _plain(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(v) for v in value]
  if isinstance(value, (np.generic, np.ndarray)):
    return _plain(value.tolist())
  if isinstance(value, float) and not np.isfinite(value):
    return None
  return value
