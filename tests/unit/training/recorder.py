"""A method that writes down what the loop gives it, and a data set of numbered images.

`state.stats` keeps, for every step, a number drawn from the step's key and the images of the batch;
the validation loss is what config.method.losses says for the state's step. What the loop does can
so be read from its result.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from configs import common
from data_pipelines.dataset import ArraySource, DataSet
from medae_jax import train
from medae_jax.core import checkpoint, parallel
from medae_jax.core.method import BaseMethod, Need, Stage, State

BATCH = 4


class Method(BaseMethod):
  """stats: "draw" [N], "rows" [N,B] image numbers, "begin" [N] of the stage, "init", "grown" [stages],
  "told": sum of the validation losses."""
  needs = {"image": Need("BHWC")}

  def stages(self):
    return tuple(Stage(name, int(n)) for name, n in self.config.method.stages)

  def init(self, rng, batch):
    n = sum(int(steps) for _, steps in self.config.method.stages)
    stats = {"draw": jnp.zeros(n), "rows": jnp.full((n, BATCH), -1.0), "begin": jnp.full(n, -1),
             "init": jax.random.uniform(rng), "told": jnp.zeros(()),
             "grown": jnp.zeros(len(self.config.method.stages))}
    return State.create({"net": {"w": jnp.zeros(())}}, {"net": stats})

  def grow(self, state, stage, rng, batch):
    stats = dict(state.stats["net"])
    place = [name for name, _ in self.config.method.stages].index(stage.name)
    # added, not set: growing twice would show
    stats["grown"] = stats["grown"].at[place].add(jax.random.uniform(rng))
    return state.replace(stats={"net": stats})

  def train_step(self, state, batch, rng, *, stage, axis_name):
    t, stats = state.step, dict(state.stats["net"])
    rows = parallel.all_gather(jnp.mean(batch["image"], (1, 2, 3)), axis_name)
    stats["rows"] = stats["rows"].at[t].set(rows)
    stats["draw"] = stats["draw"].at[t].set(jax.random.uniform(rng))
    stats["begin"] = stats["begin"].at[t].set(stage.begin)
    loss = jnp.where(t == self.config.data.nan_at, jnp.nan, t.astype(jnp.float32))
    w = state.params["net"]["w"] + 1
    return state.replace(step=t + 1, stats={"net": stats}, params={"net": {"w": w}}), {"loss": loss}

  def eval_step(self, state, batch, rng):
    value = jnp.mean(batch["image"], (1, 2, 3))
    table = jnp.asarray(self.config.method.losses, jnp.float32)
    return {"loss": 0 * value + table[state.step], "image": value,
            "noise": jax.random.uniform(rng) + 0 * value}

  def after_validation(self, state, values):
    """Adds up what validation found."""
    stats = dict(state.stats["net"])
    return state.replace(stats={"net": {**stats, "told": stats["told"] + values["val/loss"]}})

  def score(self, state, batch):
    return {"score": jnp.mean(batch["image"], (1, 2, 3))}


class FittedMethod(Method):
  """Also fits the mean of the normal images, and counts them."""
  fits = True

  def finalize(self, state, batches):
    values = np.concatenate([np.mean(b["image"], (1, 2, 3))[np.asarray(b["valid"])] for b in batches])
    w = np.asarray(state.params["net"]["w"])
    return state.replace(extra={"mean": jnp.float32(values.mean()), "order": jnp.asarray(values),
                                "of": jnp.asarray(w)})


class Numbered(DataSet):
  """Image i of the training split is i everywhere; validation images count from 100 on."""
  name, synthetic, splits = "synthetic_numbers", True, ("val",)

  def __init__(self, cfg):
    self._cfg = cfg

  def _source(self, first, n):
    image = np.broadcast_to(np.arange(first, first + n, dtype=np.float32)[:, None, None, None],
                            (n, 2, 2, 1))
    return ArraySource({"image": image, "label": (np.arange(n) % 2).astype(np.int32)})

  def train(self):
    return self._source(0, self._cfg.n)

  def validation(self):
    return self._source(100, self._cfg.n_val)

  def split(self, name):
    return self._source(100, self._cfg.n_val)


def build(data_cfg, seed):
  return Numbered(data_cfg)


def config(**changes):
  """Locked config: 9 steps of 4 of 12 images, validation every 3 steps; changes are flattened names."""
  c = common.base()
  c.method = ml_collections.ConfigDict({
      "name": "tests.unit.training.recorder:Method", "stages": (("main", 9),), "losses": (1.0,) * 10,
      "score": {}})
  c.model = ml_collections.ConfigDict()
  c.data = ml_collections.ConfigDict({"name": "tests.unit.training.recorder", "n": 12, "n_val": 10,
                                      "image_size": 2, "channels": 1, "nan_at": -1})
  c.train.update(steps=9, batch_size=BATCH, log_every=1, eval_every=3, save_every=4,
                 eval_batch_size=4, keep=20)
  for name, value in changes.items():
    c.update_from_flattened_dict({name.replace("__", "."): value})
  return c.lock()


def run(workdir, **changes):
  """Trains; returns (result, stats of the last state as numpy)."""
  found = train.train(config(**changes), str(workdir))
  return found, parallel.to_host(found["state"].stats["net"])


def lines(workdir, key):
  """{step: value} of one name in metrics.jsonl."""
  text = (pathlib.Path(workdir) / "metrics.jsonl").read_text(encoding="utf-8")
  rows = [json.loads(line) for line in text.splitlines()]
  found = [(row["step"], row[key]) for row in rows if key in row]
  assert len({step for step, _ in found}) == len(found), "a step is written twice"
  return dict(found)


def saved(workdir, which="last"):
  """Steps of the checkpoints, in order, and the newest one's model."""
  checkpoints = checkpoint.Checkpoints(workdir, 20)
  try:
    return sorted(checkpoints.steps(which)), checkpoints.restore_model(which)
  finally:
    checkpoints.close()
