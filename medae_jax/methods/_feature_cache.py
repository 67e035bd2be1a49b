"""Pooled features kept in a folder: several seeds, layers and evaluations cost one pass of the backbone.

A file <folder>/<tap>/<key>.npy holds one tap of one batch, float32 [B,C]. The key is a digest of all
that decides the numbers: the pixels of the batch, the backbone's parameters up to that tap, and the
options of `Features`. Another file, split, transform or weight is another key: nothing can be stale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import hashlib
import os
import pathlib
import tempfile

from absl import logging
import jax
import numpy as np

_VERSION = "1"  # of the numbers: to be raised with a change of the preparation or of a network


class FeatureCache:
  """Looks features up, and computes and keeps what is missing.

  Args:
    folder: made where it is missing.
    options: what decides the numbers beside pixels and parameters.
    used: tap -> names of the parameters that it depends on.
  """

  def __init__(self, folder: str, options: str, used: Callable[[str], list[str]]):
    self._folder, self._options, self._used = pathlib.Path(folder), options, used
    self._weights: dict[str, bytes] = {}
    self._digested: Mapping | None = None
    self._writable = True

  def __call__(self, params: Mapping, image: np.ndarray, taps, compute: Callable) -> list[np.ndarray]:
    """[B,C] of every tap, in their order.

    Args:
      params: of the backbone.
      compute: () -> {tap: [B,C]} of all taps, for when one is missing.
    """
    self._digest_weights(params, taps)
    pixels = hashlib.blake2b(repr((image.shape, str(image.dtype))).encode())
    pixels.update(np.ascontiguousarray(image).data)
    paths = {tap: self._path(tap, pixels.digest()) for tap in taps}
    found = {tap: _read(path, len(image)) for tap, path in paths.items()}
    if any(value is None for value in found.values()):
      for tap, value in compute().items():
        if found[tap] is None:
          found[tap] = np.asarray(value, np.float32)
          self._keep(paths[tap], found[tap])
    return [found[tap] for tap in taps]

  def _path(self, tap, pixels):
    parts = (_VERSION.encode(), self._options.encode(), tap.encode(), self._weights[tap], pixels)
    key = hashlib.blake2b(b"|".join(hashlib.blake2b(p).digest() for p in parts), digest_size=20)
    return self._folder / tap / f"{key.hexdigest()}.npy"

  def _keep(self, path, value):
    """Writes a file; where that fails (another machine, a full disk) it is said once, and nothing is kept."""
    if not self._writable:
      return
    try:
      _write(path, value)
    except OSError as e:
      self._writable = False
      logging.warning("config.method.cache=%s keeps no more features: %s", self._folder, e)

  def _digest_weights(self, params, taps):
    if self._digested is params and set(taps) <= set(self._weights):
      return
    leaves = {name: hashlib.blake2b(repr(value.shape).encode() + value.tobytes()).digest()
              for name, value in named(params).items()}
    for tap in taps:
      self._weights[tap] = b"".join(name.encode() + leaves[name] for name in sorted(self._used(tap)))
    self._digested = params


def named(tree) -> dict[str, np.ndarray]:
  """{"conv1_1/kernel": array} of a tree of arrays."""
  return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(value)
          for path, value in jax.tree_util.tree_leaves_with_path(tree)}


def _read(path, n):
  """The array in a file; None where there is none, or none of n rows: it is computed again."""
  try:
    value = np.load(path, allow_pickle=False)
  except (OSError, ValueError, EOFError):
    return None
  return value if value.ndim == 2 and len(value) == n and value.dtype == np.float32 else None


def _write(path, value):
  """Whole or not at all, whoever else writes the same file."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
    try:
      np.save(file, value, allow_pickle=False)
      file.close()
      os.replace(file.name, path)
    except BaseException:
      os.unlink(file.name)
      raise
