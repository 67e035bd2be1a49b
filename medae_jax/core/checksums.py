"""Checksums of a checkpoint, and the check of what it says about itself: damage is found on reading."""

from __future__ import annotations

import json
from typing import Any
import zlib

import jax
import numpy as np

from medae_jax.core import checks, parallel

# What the loop writes about a checkpoint; scoring needs the first entry only.
META = {"checksum": checks.number(0), "stage": checks.text, "batches": checks.group,
        "best": checks.optional(checks.number()), "stale": checks.whole(0),
        "evaluated": checks.whole(-1), "done": checks.flag}


def checksum(params) -> float:
  """Sum of |values| as a float64 over sorted leaves: finds damaged bytes that decode without error."""
  return float(sum(np.abs(np.asarray(x, np.float64)).sum()
                   for x in jax.tree.leaves(parallel.to_host(params))))


def crc(tree) -> int:
  """CRC-32 of all bytes of the arrays: a flipped sign changes it, which no sum of |values| does."""
  found = 0
  for x in jax.tree.leaves(parallel.to_host(tree)):
    found = zlib.crc32(np.asarray(x).tobytes(), found)
  return found


def signed(meta, method: str, **trees) -> dict[str, Any]:
  """Meta data with the method's name, "" = not known, and checksums of themselves and of the arrays."""
  meta = json.loads(json.dumps({**meta, "method": method} if method else meta))
  found = {name: crc(tree) for name, tree in trees.items()}
  return {**meta, "crc": {**found, "meta": _crc_of_text(meta)}}


def agrees(noted, name: str, tree) -> bool:
  """True where arrays are those whose checksum was noted, or none was."""
  return name not in noted or noted[name] == crc(tree)


def check_meta(meta, needed, method: str = "") -> dict[str, int]:
  """Refuses damaged meta data, and those of another method; returns its checksums, {} of a run that has none.

  Args:
    needed: entries that are read: all of META to go on with training, some of them for scoring.
  """
  missing = [k for k in needed if k not in meta]
  if missing:
    raise ValueError(f"meta lacks {', '.join(missing)}")
  for name, rule in META.items():
    if name in meta and rule(meta[name]):
      raise ValueError(f"meta: {name}={meta[name]!r} is not {rule(meta[name])}")
  if method and meta.get("method", method) != method:
    raise ValueError(f"of the method {meta['method']}, and config.json says {method}: files of two runs")
  found = meta.pop("crc", {})
  if found and set(needed) == set(META) and found.get("meta") != _crc_of_text(meta):
    raise ValueError("checksum of the meta data differs")
  return found


def _crc_of_text(meta) -> int:
  return zlib.crc32(json.dumps(meta, sort_keys=True).encode())
