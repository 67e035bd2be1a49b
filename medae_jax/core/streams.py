"""Named random streams: every random number of a run comes from (seed, name, stage, step).

A key is the seed's key folded with a hash of the stream's name ("init", "grow", "step",
"resident"), then with a hash of the stage's name; the loop folds in the step, a method the place of
the example in the global batch (`core.method.example_keys`). Nothing is carried from step to step,
so a resumed run draws what the unbroken one would have drawn, and no two streams, stages or seeds
share a draw.

Runs before these names had neighbours that did: stage k of seed s read the data in the order of
stage 0 of seed s + k. Such a run is recognised by its config.json, which has no
config.train.random_streams (or "legacy" there), and keeps its own numbers when it goes on.
"""

from __future__ import annotations

import hashlib
import pathlib
import zlib

import jax

from medae_jax.core import config as config_lib, upgrade


def init_key(config) -> jax.Array:
  """Key of the initial parameters."""
  return _key(config, "init") if _named(config) else jax.random.key(config.seed)


def grow_key(config, stage, number: int) -> jax.Array:
  """Key of what a stage adds; `number`: its place among the stages."""
  if _named(config):
    return _key(config, "grow", _word(config, stage))
  return jax.random.fold_in(jax.random.key(config.seed), number)


def step_key(config, stage) -> jax.Array:
  """Key of a stage's steps; that of one step is fold_in(this, state.step)."""
  return _key(config, "step", _word(config, stage)) if _named(config) else jax.random.key(config.seed)


def resident_key(config, stage) -> jax.Array:
  """Key of the order of device-resident data; that of an epoch is fold_in(this, epoch)."""
  if _named(config):
    return _key(config, "resident", _word(config, stage))
  return jax.random.key(config.seed + 1)


def data_seed(config, stage, number: int) -> int:
  """Seed in [0, 2^30) of the input pipeline of a stage: its order, crops, flips and noise.

  TensorFlow takes a number, not a key; 2^30 leaves room for the offset of a second data stream.
  """
  if not _named(config):
    return config.seed + number
  name = f"{int(config.seed)}/data/{_word(config, stage)}"
  return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 2


def of_workdir(config, workdir):
  """`config` with the schemes of random numbers and of the split that the run in `workdir` began with.

  Unchanged for a new run.
  """
  path = pathlib.Path(workdir) / "config.json"
  if path.is_file():
    old = config_lib.read_config(workdir)
    config = config.copy_and_resolve_references()
    with config.unlocked():
      config.train.random_streams = old.get("train", {}).get("random_streams", "legacy")
      if "data" in config and old.get("data", {}).get("grouping") == "legacy":
        config.data.update({k: old.data[k] for k in upgrade.OF_SPLIT if k in old.data})
    config.lock()
  return config


def _word(config, stage) -> str:
  """What is hashed for a stage: its first name, so that renaming a stage changes no draw of a run."""
  return upgrade.first_name(config.get("method", {}).get("name", ""), stage.name) if stage else ""


def _named(config) -> bool:
  return config.train.get("random_streams", "legacy") == "named"


def _key(config, *names: str) -> jax.Array:
  """The seed's key, folded with CRC-32 of each name in turn (Python's own hash changes per process)."""
  key = jax.random.key(config.seed)
  for name in names:
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
  return key
