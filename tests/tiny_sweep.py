"""A sweep over the synthetic toy data, and a result written by hand."""

import json

from medae_jax.core import files, places

FILE = """
import ml_collections
from configs import common
from tests.contract import cases

def get_config(arg=None):
  a = common.parse_arg(arg, cls=0, run=0, fold=-1, method="{method}")
  c = ml_collections.ConfigDict(cases.config("BatchNormMethod").to_dict())
  c.seed = 10 + a.run
  c.method.name = a.method
  c.data.cls, c.data.fold = a.cls, a.fold
  c.method.rate = 0.1
  c.eval.splits = ("val", "test")
  c.train.best_metric = "val/loss"
  return c.lock()
"""


def config(tmp_path, method="tests.tiny_methods:BatchNormMethod", **changes):
  """Two classes and two runs each, unless `changes` of config.sweep say otherwise; its file is written."""
  file = tmp_path / "grid.py"
  file.write_text(FILE.format(method=method))
  c = places.config_module(str(file)).get_config()
  fields = dict(config=str(file), arg="", grid={"cls": (0, 1), "run": (0, 1)}, average=("run",),
                settings=(), folds=0, final_steps="", split="test", metric="image_auroc",
                together=1, shard=(0, 1))
  with c.unlocked():
    c.sweep = {**fields, **changes}
  return c.lock()


def write_result(job, auroc, steps=None):
  """What a complete run leaves behind; `steps`: what its epochs came to."""
  config = json.loads(json.dumps(job.config.to_dict()))
  config["train"].update({"steps": steps, "epochs": 0.0} if steps else {})
  files.write_json(job.folder / "config.json", config)
  files.write_json(job.folder / "evaluation/test.json", {
      "image_auroc": auroc, "synthetic": True, "n_images": 4, "checkpoint": {"step": 3}})
