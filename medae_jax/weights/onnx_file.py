"""The weights inside an .onnx file, read from its bytes: no graph is run, nothing is imported.

ModelProto field 7 is the graph, GraphProto field 5 an initializer; TensorProto 1 dims, 2 data_type
(1 = float32), 8 name, 9 raw_data, 4 float_data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import os

import numpy as np

from medae_jax.core.errors import UserError

_FLOAT32 = 1


def load(path: str | os.PathLike, keep: Callable[[str], bool] | None = None) -> dict[str, np.ndarray]:
  """{name: float32 array} of the initialisers whose names `keep` accepts; other types are left out.

  Raises:
    UserError: no ONNX file, or one cut short. OSError: it cannot be opened.
  """
  with open(path, "rb") as file:
    data = memoryview(file.read())
  try:
    graphs = [value for field, value in _fields(data) if field == 7]
    tensors = [_tensor(value) for graph in graphs for field, value in _fields(graph) if field == 5]
    found = {name: np.frombuffer(raw, "<f4").reshape(dims).copy() for name, dims, kind, raw in tensors
             if kind == _FLOAT32 and (keep is None or keep(name))}
  except (ValueError, IndexError, TypeError, OverflowError, UnicodeDecodeError) as e:
    what = f"{type(e).__name__}: {e}"
    raise UserError(f"{os.fspath(path)} is damaged or no .onnx file ({what}); get it again") from e
  if not graphs:
    raise UserError(f"{os.fspath(path)} is no .onnx file: it holds no graph")
  return found


def _tensor(data):
  """(name, dims, data type, bytes of the values)."""
  name, dims, kind, raw = "", [], 0, b""
  for field, value in _fields(data):
    if field == 1:
      dims += [value] if isinstance(value, int) else _integers(value)
    elif field == 2:
      kind = value
    elif field == 8:
      name = bytes(value).decode()
    elif field in (4, 9) and not isinstance(value, int):
      raw = bytes(raw) + bytes(value) if field == 4 else value
  return name, dims, kind, raw


def _fields(data) -> Iterator[tuple[int, int | memoryview]]:
  """(number, value) of the fields of a message: integers, or bytes."""
  at = 0
  while at < len(data):
    tag, at = _integer(data, at)
    wire = tag & 7
    if wire == 0:
      value, at = _integer(data, at)
      yield tag >> 3, value
      continue
    if wire == 2:
      size, at = _integer(data, at)
    elif wire in (1, 5):
      size = 8 if wire == 1 else 4
    else:
      raise ValueError(f"wire type {wire}")
    if at + size > len(data):
      raise ValueError("cut short")
    yield tag >> 3, data[at:at + size]
    at += size


def _integer(data, at):
  value, shift = 0, 0
  while True:
    byte = data[at]
    value |= (byte & 127) << shift
    at, shift = at + 1, shift + 7
    if byte < 128:
      return value, at
    if shift > 63:
      raise ValueError("an integer without end")


def _integers(data):
  values, at = [], 0
  while at < len(data):
    value, at = _integer(data, at)
    values.append(value)
  return values
