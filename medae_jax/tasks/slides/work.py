"""The unfinished map of a slide: files in a hidden folder of --output, from which a killed run goes on.

Batches are written where they belong, so that one that is scored twice changes nothing; progress.json
says how many are done. All space is taken before the first tile: a full disk is said then.
"""

from __future__ import annotations

from collections.abc import Sequence
import json
import os
import pathlib
import shutil
import time

import numpy as np

from data_pipelines.slides import writer
from medae_jax.core import files
from medae_jax.core.errors import UserError

_EVERY = 2.0      # seconds between two notes of progress
_PROGRESS = "progress.json"
_SMALLEST = 256   # longest side of the coarsest level of a map, at most


class Work:
  """Map, scores and progress of one slide.

  Args:
    folder: of this slide alone. key: of all that the numbers depend on; another key's files are not
      gone on with.
    shape: (rows, columns) of the map. tiles: n.

  Attributes:
    map: float32 memmap [rows,columns], 0 where nothing was looked at.
    scores, peaks: float32 memmaps [n], of the tiles.
    done: batches that are written.

  Raises:
    UserError: the disk has no room for it.
  """

  def __init__(self, folder: pathlib.Path, key: str, shape: tuple[int, int], tiles: int):
    self._folder, self._key = folder, key
    self.done = self._read()
    if not self.done:
      shutil.rmtree(folder, ignore_errors=True)
      folder.mkdir(parents=True)
    self.map = self._array("map", shape)
    self.scores, self.peaks = self._array("scores", (tiles,)), self._array("peaks", (tiles,))
    self._said = time.monotonic()

  def put(self, batch: int, first: int, places: np.ndarray, cores: np.ndarray, scores: np.ndarray) -> None:
    """Writes a batch.

    Args:
      batch: its number. first: number of its first tile.
      places: [b,2] (row, column) of the cores. cores: float32 [b,c,c]. scores: [b].
    """
    side, (rows, columns) = cores.shape[1], self.map.shape
    for (row, column), core in zip(places, cores):
      top, left = row * side, column * side
      self.map[top:top + side, left:left + side] = core[:rows - top, :columns - left]
    self.scores[first:first + len(scores)] = scores
    self.peaks[first:first + len(scores)] = cores.max((1, 2))
    self.done = batch + 1
    if time.monotonic() - self._said > _EVERY:
      self.note()

  def note(self) -> None:
    """What is done so far is on the disk."""
    for array in (self.map, self.scores, self.peaks):
      array.flush()
    files.write_json(self._folder / _PROGRESS, {"key": self._key, "batches": self.done})
    self._said = time.monotonic()

  def pyramid(self) -> list[np.ndarray]:
    """The map and its halves, down to 256 pixels; memmaps in the folder."""
    levels: list[np.ndarray] = [self.map]
    while max(levels[-1].shape) > _SMALLEST:
      size = tuple(-(-n // 2) for n in levels[-1].shape)
      levels.append(writer.halved(levels[-1], self._array(f"level_{len(levels)}", size)))
    return levels

  def _read(self) -> int:
    try:
      found = json.loads((self._folder / _PROGRESS).read_text(encoding="utf-8"))
      return int(found["batches"]) if found["key"] == self._key else 0
    except (OSError, ValueError, KeyError, TypeError):
      return 0

  def _array(self, name: str, shape: Sequence[int]) -> np.memmap:
    path, size = self._folder / f"{name}.f32", 4 * int(np.prod(shape))
    with open(path, "ab") as file:
      if file.tell() != size:
        file.truncate(0)
        try:  # a memory-mapped file that meets a full disk later would end the process
          os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
          raise UserError(f"{self._folder.parent} has no room for {size / 1e6:.1f} MB of a slide's map "
                          f"({error.strerror}): choose another --output, or a larger "
                          "--config.predict.slide.pixel") from None
    return np.memmap(path, np.float32, "r+", shape=tuple(shape))
