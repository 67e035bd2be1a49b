"""Work on a list that the processes of a run share: each does every P-th piece, and all get every result.

Pieces stay whole: a batch is scored by one process exactly as a single process would score it, so that
nothing depends on how many share the work. What is exchanged travels as bytes, whatever its type.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import json
import math
from typing import Any

import jax
import numpy as np

from medae_jax.core.errors import UserError


def own_pieces(pieces: int) -> list[int]:
  """Numbers of the pieces of this process, one a round.

  In the last round a process that is left without one does the last piece, too: `shared` drops its result.
  """
  processes, own = jax.process_count(), jax.process_index()
  rounds = math.ceil(pieces / processes)
  return [min(r * processes + own, pieces - 1) for r in range(rounds)]


def shared(pieces: int, results: Iterator[Any]) -> Iterator[Any]:
  """The results of all pieces in their order, the same in every process.

  Args:
    pieces: how many there are, of all processes together.
    results: of `own_pieces`, made when asked for: pytrees of arrays of one structure. The next one is asked
      for before those of a round are given out, so that a device works while the host digests.

  Raises:
    UserError: what stopped any of the processes. The others would wait for it for ever.
  """
  if not pieces:
    return
  processes = jax.process_count()
  waiting = _guarded(results)
  mine = next(waiting)
  for r in range(math.ceil(pieces / processes)):
    found = exchange(mine)
    if (r + 1) * processes < pieces:
      mine = next(waiting)
    yield from found[:pieces - r * processes]


def _guarded(results):
  """The results; instead of the one that fails, its exception."""
  try:
    yield from results
  except Exception as error:  # every process must hear of it; `exchange` raises it
    yield error


def exchange(result: Any) -> list[Any]:
  """What every process has given, in their order: pytrees of numpy arrays of one structure.

  Args:
    result: this process's, or an exception, which ends all processes: this one by itself, the others by a
      UserError of the same words.
  """
  failed = isinstance(result, Exception)
  leaves, structure = jax.tree.flatten(None if failed else result)
  try:  # a device may fail only when its result is fetched
    arrays = [np.asarray(leaf) for leaf in leaves]
  except Exception as error:
    result, failed, arrays = error, True, []
  head = {"error": _words(result) if failed else "", "leaves": [(a.dtype.str, a.shape) for a in arrays]}
  parts = gather_bytes(b"".join([json.dumps(head).encode() + b"\n", *(a.tobytes() for a in arrays)]))
  if failed:
    raise result
  heads = [json.loads(part[:part.index(b"\n")]) for part in parts]
  for number, found in enumerate(heads):
    if found["error"]:
      raise UserError(f"process {number} of {len(parts)}: {found['error']}")
  return [jax.tree.unflatten(structure, _arrays(part, found["leaves"])) for part, found in zip(parts, heads)]


@contextlib.contextmanager
def heard() -> Iterator[None]:
  """Around what the first process does alone, such as writing files: what stops it there stops all.

  The others wait here until it is done; without this they would wait for it in their next exchange, for ever.
  """
  if jax.process_count() == 1:
    yield
    return
  try:
    yield
  except Exception as error:
    exchange(error)  # raises it
  exchange(())


def _words(error: Exception) -> str:
  words = " ".join(str(error).split())
  return words if isinstance(error, (UserError, OSError)) else f"{type(error).__name__}: {words}"


def _arrays(part: bytes, leaves) -> list[np.ndarray]:
  found, place = [], part.index(b"\n") + 1
  for dtype, shape in leaves:
    count = math.prod(shape)
    found.append(np.frombuffer(part, np.dtype(dtype), count, place).reshape(shape).copy())
    place += found[-1].nbytes
  return found


def gather_bytes(own: bytes) -> list[bytes]:
  """The bytes of every process, in their order."""
  from jax.experimental import multihost_utils
  sizes = np.ravel(multihost_utils.process_allgather(np.int32(len(own))))
  padded = np.zeros(int(sizes.max()), np.uint8)
  padded[:len(own)] = np.frombuffer(own, np.uint8)
  found = np.reshape(multihost_utils.process_allgather(padded), (len(sizes), -1))
  return [row[:size].tobytes() for row, size in zip(found, sizes)]
