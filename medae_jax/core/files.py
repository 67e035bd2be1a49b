"""Files of a workdir: written whole or not at all (a temporary name, then a rename), read with care."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import csv
import io
import json
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines import cells
from medae_jax.core.errors import UserError


def read_json(path: str | os.PathLike, remedy: str) -> dict[str, Any]:
  """The object in a JSON file that this package wrote.

  Args:
    remedy: what to do where it is damaged, the end of the error line.

  Raises:
    UserError: not JSON, not an object, or a folder, a pipe, a device. OSError: it cannot be opened.
  """
  check_file(pathlib.Path(path))
  try:
    value = json.loads(pathlib.Path(path).read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
  except (ValueError, RecursionError) as e:  # no UTF-8, no JSON, or nested without end
    raise UserError(f"{path} is damaged ({e}): {remedy}") from e
  if not isinstance(value, dict):
    raise UserError(f"{path} is damaged (it holds no object): {remedy}")
  return value


def _once(pairs):
  """The object of these; ValueError where a name is there twice: nobody knows which counts."""
  found = dict(pairs)
  if len(found) < len(pairs):
    names = [name for name, _ in pairs]
    raise ValueError(f"it says {next(n for n in names if names.count(n) > 1)!r} twice")
  return found


def read_events(path: str | os.PathLike) -> list[dict[str, Any]]:
  """Lines {"step": n, name: value, ...} of a metrics.jsonl, in order; [] where there is no file.

  What is no such line (a killed run can leave half of one) is left out.

  Raises:
    OSError: it cannot be opened. UserError: it is a folder, a pipe or a device.
  """
  path, events = pathlib.Path(path), []
  if not path.exists():
    return events
  check_file(path)
  for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
    try:
      event = json.loads(line)
    except (ValueError, RecursionError):
      continue
    if isinstance(event, dict) and isinstance(event.get("step"), (int, float)):
      events.append(event)
  return events


def read_csv(path: str | os.PathLike, remedy: str) -> list[dict[str, str]]:
  """The rows of a table that this package wrote, as text; [] where there is no file.

  Raises:
    UserError: no table, or a folder, a pipe, a device. OSError: it cannot be opened.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return []
  check_file(path)
  try:
    with open(path, newline="", encoding="utf-8") as file:
      return [{str(k): v or "" for k, v in row.items() if k is not None} for row in csv.DictReader(file)]
  except (csv.Error, UnicodeDecodeError) as e:
    raise UserError(f"{path} is damaged ({e}): {remedy}") from e


def check_writable(paths: Iterable[pathlib.Path]) -> None:
  """Refuses, before the first of several files is written, what none of them can replace.

  Raises:
    UserError: a folder has the name of one.
  """
  for path in paths:
    if path.is_dir():
      raise UserError(f"{path} is a folder where a file is to be written: take it away")


def check_file(path: str | os.PathLike) -> None:
  """Refuses what is there and is no file: reading a pipe or a device may never end.

  Raises:
    UserError: with its name.
  """
  if os.path.lexists(path) and not os.path.isfile(path):
    raise UserError(f"{path} is no file but a folder, a pipe, a device or a link to nothing: restore it from "
                    "a copy, or take away what it lies in")


def check_files(folder: str | os.PathLike, pattern: str = "**/*") -> None:
  """`check_file` of all that is no folder and lies at a place of a pattern below a folder."""
  for path in pathlib.Path(folder).glob(pattern):
    if not path.is_dir():
      check_file(path)


def write_bytes(path, data: bytes) -> pathlib.Path:
  """Writes a file whole or not at all.

  Raises OSError: the folder cannot be written, the disk is full; what was there before is kept.
  """
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
  out = csv.writer(text, lineterminator="\n")
  out.writerow([cell(c) for c in columns])
  out.writerows([cell(row.get(c)) for c in columns] for row in rows)
  # Names of files that are no UTF-8 are written with \\udc.. in place of their odd bytes.
  return write_bytes(path, text.getvalue().encode("utf-8", "backslashreplace"))


def png(picture: np.ndarray) -> bytes:
  """uint8 [H,W,3] or [H,W] as the bytes of a PNG file."""
  data = io.BytesIO()
  # The smallest files take nine times as long and save a tenth: a third of an evaluation of small images.
  Image.fromarray(picture).save(data, "PNG", compress_level=3)
  return data.getvalue()


def read_png(path) -> np.ndarray:
  """A PNG file of this package as uint8 [H,W,3]."""
  with Image.open(path) as picture:
    return np.array(picture.convert("RGB"))


def write_png(path, picture: np.ndarray) -> pathlib.Path:
  """uint8 [H,W,3] or [H,W] as a PNG file."""
  return write_bytes(path, png(picture))


def cell(value):
  """A value as it stands in a table: 6 digits, "" for None and NaN, no formula of a spreadsheet."""
  if value is None:
    return ""
  if isinstance(value, (float, np.floating)):
    return f"{value:.6g}" if np.isfinite(value) else ""
  return cells.inert(value) if isinstance(value, str) else value


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes JSON whole or not at all; NaN becomes null."""
  write_bytes(path, to_json(value, indent=2) + b"\n")


def to_json(value: Any, indent: int | None = None) -> bytes:
  """JSON of dicts, lists, numbers, arrays and text; NaN becomes null."""
  return json.dumps(_plain(value), indent=indent, allow_nan=False).encode()


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
