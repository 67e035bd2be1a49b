"""What every data set in small says and delivers: its lists, examples, batches of training and of scoring."""

import functools
import itertools

import numpy as np

from data_pipelines import dataset as datasets, fields, stream
from tests.approved import shown
from tests.approved.said import said
from tests.contract import test_datasets as contract


def _arrays(tree):
  """Arrays of nested dicts as `shown.array`; short whole numbers as they are."""
  if isinstance(tree, dict):
    return {k: _arrays(v) for k, v in tree.items()}
  value = np.asarray(tree)
  return value.tolist() if value.dtype.kind in "iub" and value.size <= 12 else shown.array(value)


def _source(source):
  """Names of all examples, and the arrays of three."""
  if isinstance(source, dict):
    return {name: _source(s) for name, s in source.items()}
  if source is None:
    return None
  places = sorted({0, len(source) // 2, len(source) - 1})
  return {"n": len(source), "ragged": source.ragged, "ops": [len(source.example_ops), len(source.batch_ops)],
          "metas": [" ".join(f"{k}={v}" for k, v in source.meta(i).items())
                    for i in range(min(9, len(source)))],
          "examples": [_arrays(source.read_one(i)) for i in places]}


def case(name, folder):
  """The data set of this name."""
  contract.RNG = np.random.default_rng(7)  # whatever was drawn before
  folder = folder / "set"  # its name is shown
  folder.mkdir()
  module = datasets.module(name)
  cfg = module.resolve(fields.changed(module.defaults(), **contract.TINY[name](folder)))
  with said() as lines:
    data = module.build(cfg, 0)
    found = {"name": data.name, "synthetic": bool(data.synthetic), "describe": data.describe(),
             "spec": str(module.spec(cfg)), "train": _source(data.train()),
             "validation": _source(data.validation()), "fitting": _source(data.fitting())}
    for split in data.splits:
      found[split] = {**_source(data.split(split)), "lesions": data.has_lesions(split)}
    for seed, first in ((0, 0), (1, 3)):
      batches = stream.train_stream(data, cfg, batch_size=4, first_step=first, seed=seed)
      found[f"batches of seed {seed} from step {first}"] = [_arrays(b) for b in itertools.islice(batches, 2)]
    scored = stream.eval_batches(data.split("test"), batch_size=3)
    found["scored"] = [_arrays(b) for b in itertools.islice(scored, 3)]
  text = shown.tree(found) + "\n==== said\n" + "\n".join(lines)
  return text.replace(str(folder), "FOLDER")


CASES = {f"data_{name}": functools.partial(case, name) for name in contract.NAMES}
