"""Maps of a whole split, kept until the thresholds are known, and what is counted per scan.

The component filter needs a scan's slices together and, for the labelled optimum, a threshold that
is known only after all scores: the maps wait in memory, or in a scratch file when they are many.
"""

from __future__ import annotations

import concurrent.futures
import os
import tempfile

import numpy as np

from medae_jax.metrics import components

_IN_MEMORY = 512 * 2**20  # bytes of maps


class MapStore:
  """Float32 maps [n,H,W] and masks, by position.

  Args:
    n: images of the split. shape: (H, W).
  """

  def __init__(self, n: int, shape: tuple[int, int]):
    self._shape = shape
    self._file = None
    self._bytes = shape[0] * shape[1] * 4  # of a map
    self._maps = None
    if n * self._bytes <= _IN_MEMORY:
      self._maps = np.zeros((n, *shape), np.float32)
    else:  # read and written, not mapped: mapped pages count as memory of this process
      self._file = tempfile.NamedTemporaryFile(prefix="medae_maps_")  # noqa: SIM115 deleted on close
      self._file.truncate(n * self._bytes)
    self._masks = np.zeros((n, -(-shape[0] * shape[1] // 8)), np.uint8)

  def put(self, rows: np.ndarray, maps: np.ndarray, masks: np.ndarray) -> None:
    """Keeps maps [k,H,W] and masks [k,H,W] of the images `rows`."""
    if self._file is None:
      self._maps[rows] = maps
    else:
      for row, value in zip(rows, np.ascontiguousarray(maps, np.float32)):
        self._whole(os.pwrite(self._file.fileno(), value, int(row) * self._bytes))
    self._masks[rows] = np.packbits(np.asarray(masks, bool).reshape(len(rows), -1), axis=1)

  def get(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(float32 [k,H,W], bool [k,H,W])."""
    bits = np.unpackbits(self._masks[rows], axis=1, count=self._shape[0] * self._shape[1])
    return self._read(rows), bits.reshape(len(rows), *self._shape).astype(bool)

  def _read(self, rows):
    if self._file is None:
      return self._maps[rows]
    maps = np.empty((len(rows), *self._shape), np.float32)
    for row, place in zip(rows, maps):
      self._whole(os.preadv(self._file.fileno(), [place.data], int(row) * self._bytes))
    return maps

  def _whole(self, count):
    if count != self._bytes:
      raise OSError("the scratch file for anomaly maps cannot be written or read whole: is the disk "
                    f"of {tempfile.gettempdir()} full?")

  def close(self) -> None:
    """Frees memory and scratch file."""
    self._maps = self._masks = None
    if self._file is not None:
      self._file.close()


def overlap_counts(store: MapStore, scans: list[list[np.ndarray]], thresholds: dict[str, float],
                   max_voxels: int) -> dict[str, np.ndarray]:
  """Overlap of prediction and mask per patient, without and with the component filter.

  Args:
    store: all maps and masks.
    scans: per patient, its volumes: rows in the order of the slices. An image that is no slice of
      a volume is a volume of its own.
    thresholds: {name: threshold}; prediction = float32 score > threshold.
    max_voxels: of `metrics.remove_small_components`.

  Returns:
    {name, name + "_components": int64 [patients, 3]}: |A&B|, |A|, |B|, A prediction, B mask.
  """
  keys = [key for name in thresholds for key in (name, name + "_components")]
  found = {key: np.zeros((len(scans), 3), np.int64) for key in keys}

  def count(p):
    for rows in scans[p]:
      maps, mask = store.get(rows)
      for name, threshold in thresholds.items():
        above = maps > np.float32(threshold)
        kept = components.remove_small_components(above, max_voxels)
        for key, volume in ((name, above), (name + "_components", kept)):
          found[key][p] += [np.count_nonzero(v) for v in (volume & mask, volume, mask)]
  with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
    list(pool.map(count, range(len(scans))))
  return found


def pooled_dice(counts: np.ndarray, weights: np.ndarray | None = None):
  """Dice 2|A&B|/(|A|+|B|) of summed counts [patients, 3]; with weights [r, patients]: [r]."""
  total = counts.sum(0) if weights is None else weights @ counts
  with np.errstate(invalid="ignore", divide="ignore"):
    return 2 * total[..., 0] / (total[..., 1] + total[..., 2])


def patient_dice(counts: np.ndarray) -> np.ndarray:
  """Dice of each patient's counts [patients, 3]: [patients], NaN where neither marks anything."""
  with np.errstate(invalid="ignore", divide="ignore"):
    return 2 * counts[:, 0] / (counts[:, 1] + counts[:, 2])
