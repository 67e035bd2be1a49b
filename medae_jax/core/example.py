"""A batch of the right shapes without any data: for convert, bench and tests.

`method.needs` says what a method reads ({"noisy/image": Need("BHWC", low=0, high=1)}); sizes come
from the config, or from the caller where the config does not know them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.core.method import Method, Stage


def example_batch(method: Method, config, batch_size: int, stage: Stage | None = None,
                  seed: int = 0, **sizes: int) -> dict[str, Any]:
  """A batch that `method.needs` describes: uniform [0,1) images, 0/1 integers and booleans.

  Args:
    batch_size: B of the first or only stream; config.data.batch_sizes has the others.
    stage: its `data` overrides config.data (image size) and `batch_size`.
    seed: of the values.
    **sizes: letters of `needs` that the config does not define ("C", "K"); they win over it.

  Returns:
    {key: array [B, ...]} plus "index" int32 [B] (and "view" where the method has views); nested dicts for
    several streams.

  Raises:
    ValueError: a letter of `needs` that neither config nor `sizes` explains.
  """
  rng, batch = np.random.default_rng(seed), {}
  overrides = dict(stage.data) if stage else {}
  for key, need in method.needs.items():
    stream, _, name = key.rpartition("/")
    rows = _batch_rows(config, stream, overrides.get("batch_size", batch_size))
    known = {"B": rows, **sizes}
    shape = [_size(letter, key, need, config, overrides, known) for letter in need.dims]
    values = rng.random(shape, np.float32)
    values = (values.astype(need.dtype) if np.dtype(need.dtype).kind == "f"
              else (values < 0.5).astype(need.dtype))
    part = batch.setdefault(stream, {}) if stream else batch
    part[name] = values
    part["index"] = np.arange(rows, dtype=np.int32)
  if method.views > 1:
    batch["view"] = batch["index"] % method.views
  return batch


def image_size(config, overrides: Mapping[str, Any] | None = None) -> tuple[int, int]:
  """(height, width) of config.data.image_size, one number or a pair.

  Raises:
    UserError: the config has no such field.
  """
  size = (overrides or {}).get("image_size", config.data.get("image_size", None))
  if size is None:
    raise UserError("config.data.image_size is not set; it is needed to build the network")
  return (int(size), int(size)) if np.ndim(size) == 0 else (int(size[0]), int(size[1]))


def channels(config) -> int | None:
  """Image channels by config.data.channels or the number of config.data.modalities; else None."""
  data = config.data
  if data.get("channels", None):
    return int(data["channels"])
  modalities = data.get("modalities", None)
  if isinstance(modalities, str):
    return len([m for m in modalities.split(",") if m])
  return len(modalities) if modalities else None


def _batch_rows(config, stream: str, batch_size: int) -> int:
  sizes = config.data.get("batch_sizes", None) or {}
  return int((stream and sizes.get(stream, 0)) or batch_size)  # 0 = config.train.batch_size


def _size(letter, key, need, config, overrides, known) -> int:
  if letter.isdigit():
    return int(letter)
  if letter in known:
    return int(known[letter])
  if letter in "HW":
    return image_size(config, overrides)["HW".index(letter)]
  if letter == "C" and (known_channels := channels(config)):
    return known_channels
  raise UserError(f"the size {letter!r} of {key!r} ({need}) is not known: set "
                   "config.data.channels or config.data.image_size")
