"""A data set of arrays that a test chooses, and a detector whose map is the image's first channel.

Thresholds, Dice and intervals can then be said before anything is computed. `save` writes the
arrays of all splits into one file; config.data.file names it.
"""

import json

import jax.numpy as jnp
import ml_collections
import numpy as np

from configs import common
from data_pipelines.dataset import ArraySource, DataSet
from medae_jax.core import checkpoint, files
from medae_jax.core.method import BaseMethod, State


class Method(BaseMethod):
  """map = gain * channel 0, score = its mean; the gain is the checkpoint's."""

  def init(self, rng, batch):
    return State.create({"net": {"gain": jnp.float32(1.0)}})

  def score(self, state, batch):
    found = state.params["net"]["gain"] * batch["image"][..., :1]
    return {"recon": batch["image"] - found, "map": found, "score": found.mean((1, 2, 3))}


class Known(DataSet):
  """What `save` wrote."""
  name = "synthetic_known"
  synthetic = True

  def __init__(self, cfg, seed):
    self._arrays = np.load(cfg.file)
    self._metas = json.loads(str(self._arrays["metas"]))
    self.splits = tuple(self._metas)

  def split(self, name):
    arrays = {key.split("/")[1]: self._arrays[key] for key in self._arrays.files
              if key.startswith(f"{name}/")}
    return ArraySource(arrays, self._metas[name])


def build(data_cfg, seed):
  return Known(data_cfg, seed)


def save(path, **splits):
  """Writes {split: (arrays, metas)}; images may lack the channel axis, masks and labels may be absent."""
  arrays = {}
  for name, (parts, _) in splits.items():
    for key, value in parts.items():
      value = np.asarray(value)
      arrays[f"{name}/{key}"] = (value[..., None] if value.ndim == 3 else value).astype(
          np.int32 if key == "label" else np.float32)
  np.savez(path, metas=json.dumps({name: metas for name, (_, metas) in splits.items()}), **arrays)
  return path


def metas(patients):
  """One dict an image of the patients named; slices are numbered within each patient."""
  return [{"id": f"{p}/{i}", "patient": p, "slice": list(patients[:i]).count(p)}
          for i, p in enumerate(patients)]


def config(file):
  """The run's config, not locked: no panel, few resamples."""
  c = common.base()
  c.method = ml_collections.ConfigDict({"name": "tests.unit.known_maps:Method", "score": {}})
  c.model = ml_collections.ConfigDict()
  c.data = ml_collections.ConfigDict({"name": "tests.unit.known_maps", "file": str(file),
                                      "image_size": 8, "channels": 1})
  c.eval.update(batch_size=4, bootstrap=0, panel_images=0, components=0)
  return c


def write(workdir, c, **gains):
  """config.json and the checkpoints {last: gain, best: gain}; default last=1. Returns workdir."""
  workdir.mkdir(parents=True, exist_ok=True)
  files.write_json(workdir / "config.json", c.to_dict())
  saver = checkpoint.Checkpoints(workdir)
  for which, gain in (gains or {"last": 1.0}).items():
    state = State.create({"net": {"gain": jnp.float32(gain)}})
    saver.save(which, state, {"stage": "main", "best": None, "checksum": checkpoint.checksum(state.params),
                              "batches": {"main": {"image": [[1, 8, 8, 1], "float32"]}}})
  saver.close()
  return workdir
