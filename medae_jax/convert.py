"""Published PyTorch checkpoints -> a workdir that evaluate, predict and export accept.

A method that can read the published files of its paper offers
  from_torch(tensors) -> {net: params}, or (params, stats) with {net: ...} each;
  torch_fields(tensors) -> {"model.depth": 4, ...}   optional: config fields that the shapes reveal.
This file only reads (weights/torch_file.py, nothing is unpickled), compares every name and shape with
the network that the config describes, and writes config.json and a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from typing import Any

from absl import logging
import flax.traverse_util
import jax
import numpy as np

from medae_jax.core import checkpoint, checks, example, method as method_lib, trained
from medae_jax.core.config import override
from medae_jax.core.errors import UserError
from medae_jax.core.files import write_json
from medae_jax.core.method import State
from medae_jax.training import durations
from medae_jax.weights import torch_file

_OF_A_RUN = ("checkpoints", "config.json", "calibration.json", "trained_on.json", "metrics.jsonl",
             "evaluation")


def convert(source: str | os.PathLike, config, workdir: str | os.PathLike) -> dict[str, Any]:
  """Writes a published checkpoint as a workdir.

  Args:
    source: `.pt/.pth` (never unpickled), `.safetensors` or `.npz` with the reference's names.
    config: describes method and data; network sizes are taken from the file where the method can
      tell them (`torch_fields`).
    workdir: new, or without any file of a run.

  Returns:
    {"method", "source", "sha256", "parameters", "changed": config fields taken from the file}.

  Raises:
    FileNotFoundError: no such file.
    UserError: the method reads no published files, the workdir holds another run, or tensors are
      missing, unexpected or of another shape (all of them listed in one line).
  """
  checks.check(config)
  config = durations.without_data(config)  # which scoring does not ask for
  workdir = pathlib.Path(workdir)
  method = method_lib.load(config)
  # Thresholds and notes of another run would count as this one's.
  if kept := next((n for n in _OF_A_RUN if (workdir / n).exists()), None):
    raise UserError(f"{workdir} already holds {kept}, of another run; choose a new --workdir")
  tensors = torch_file.load(source)
  config, changed = _with_fields(method, config, tensors, source)
  method = method_lib.load(config)
  filled = _filled(config, method, tensors, source)
  params, stats = filled if isinstance(filled, tuple) else (filled, {})

  stage = next(iter(method_lib.stages_of(method)), None)
  sizes = {"C": changed["data.channels"]} if "data.channels" in changed else {}
  batch = example.example_batch(method, config, int(config.train.batch_size), stage, **sizes)
  expected = jax.eval_shape(lambda: method.init(jax.random.key(0), batch))
  params = _checked(params, expected.params, source, config)
  stats = _checked(stats, expected.stats, source, config)
  state = State.create(params, stats, extra={})

  # config.json without the optimiser's state: such a workdir scores, it does not resume.
  name = stage.name if stage else ""
  meta = {"stage": name, "best": None, "stale": 0, "evaluated": -1, "done": True,
          "batches": {name: checkpoint.batch_spec(batch)},
          "converted_from": os.path.basename(source), "checksum": checkpoint.checksum(params)}
  write_json(workdir / "config.json", json.loads(config.to_json_best_effort()))
  checkpoints = checkpoint.Checkpoints(workdir)
  checkpoints.save("best", state, meta)
  checkpoints.close()
  _check(workdir, batch)
  count = sum(int(np.size(x)) for x in jax.tree.leaves(params))
  summary = {"method": config.method.name, "source": os.path.basename(source),
             "sha256": _sha256(source), "parameters": count, "changed": changed}
  write_json(workdir / "converted.json", summary)
  logging.info("Converted %s: %s parameters in %s. Now: launch.py --mode=evaluate --workdir=%s",
               source, f"{count:,}", workdir, workdir)
  return summary


def _check(workdir, batch) -> None:
  """Opens what was written as evaluate will, and asks for the shapes of its score."""
  run = trained.load(workdir)
  images = {k: batch[k] for k in run.method.score_needs}
  jax.eval_shape(run.method.score, run.state, images)


def _with_fields(method, config, tensors, source):
  """The config with the fields that the file's shapes reveal, and {field: value} of the changed."""
  try:
    fields = dict(method.torch_fields(tensors))
  except KeyError as e:
    raise UserError(f"{source} is not a checkpoint of {config.method.name}: tensor {e} is "
                     f"missing; it has {_some(tensors)}") from None
  channels = fields.pop("data.channels", None)
  if channels is not None and example.channels(config) not in (None, channels):
    raise UserError(f"{source} was trained on {channels} channels, config.data has "
                     f"{example.channels(config)}: set config.data to the same modalities")
  changed = {}
  for name, value in fields.items():
    group, field = name.split(".")
    if config[group].get(field) != value:
      logging.warning("config.%s=%s becomes %s: the file's shapes say so.", name,
                      config[group].get(field), value)
      changed[name] = value
  config = override(config, changed)
  return config, {**changed, **({} if channels is None else {"data.channels": channels})}


def _filled(config, method, tensors, source):
  """What from_torch makes of the tensors; every tensor must be used."""
  used = _Recorder(tensors)
  try:
    filled = method.from_torch(used)
  except NotImplementedError:
    raise UserError(f"method {config.method.name!r} has no published PyTorch form to convert "
                    "(no from_torch in its file)") from None
  except KeyError as e:
    raise UserError(f"{source} lacks tensor {e} of {config.method.name}; "
                     f"it has {_some(tensors)}") from None
  left = sorted(set(tensors) - used.read)
  left = [n for n in left if not n.endswith("num_batches_tracked")]  # PyTorch's counter, unused
  if left:
    raise UserError(f"{source} has {len(left)} tensors that {config.method.name} of this "
                     f"config.model does not: {', '.join(left[:5])}")
  return filled


class _Recorder(dict):
  """A dict that remembers which names were read."""

  def __init__(self, tensors):
    super().__init__(tensors)
    self.read: set[str] = set()

  def __getitem__(self, name):
    self.read.add(name)
    return super().__getitem__(name)

  def get(self, name, default=None):
    return self[name] if name in self else default  # noqa: SIM401 the item access notes the name

  def items(self):
    self.read.update(self)
    return super().items()

  def values(self):
    self.read.update(self)
    return super().values()


def _checked(found, expected, source, config):
  """float32 arrays in the expected tree, or one line with everything that does not fit."""
  flat = lambda tree: flax.traverse_util.flatten_dict(tree, sep="/")
  found, expected = flat(found), flat(expected)
  problems = [f"missing {n} {tuple(expected[n].shape)}" for n in expected if n not in found]
  problems += [f"unexpected {n} {np.shape(found[n])}" for n in found if n not in expected]
  problems += [f"{n} is {np.shape(found[n])}, config.model needs {tuple(expected[n].shape)}"
               for n in expected if n in found and np.shape(found[n]) != expected[n].shape]
  if problems:
    more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
    raise UserError(f"{source} does not fit {config.method.name}: {'; '.join(problems[:8])}{more}")
  # jax.dtypes: bfloat16 is a floating type, too. Counters may be whole numbers; quantised weights are none.
  odd = [f"{n} ({np.asarray(found[n]).dtype})" for n in found
         if not jax.dtypes.issubdtype(np.asarray(found[n]).dtype, np.floating) and (
             np.asarray(found[n]).dtype.kind not in "iu" or np.ndim(found[n]))]
  if odd:
    raise UserError(f"{source} holds weights that are no floating-point numbers: {', '.join(odd[:5])}")
  with np.errstate(over="ignore"):  # float64 beyond float32 is infinite
    cast = {n: np.asarray(found[n]).astype(expected[n].dtype) for n in expected}
  bad = [n for n in cast if not np.all(np.isfinite(cast[n]))]
  if bad:
    raise UserError(f"{source} holds values that are not finite in {cast[bad[0]].dtype}: "
                    f"{', '.join(bad[:5])}")
  if alike := [n for n in cast if np.ndim(cast[n]) > 1 and np.size(cast[n]) > 1 and not np.ptp(cast[n])]:
    logging.warning("%s: all values of %d weights are alike, the first %s (%g): was it saved before "
                    "training, or cut to another precision?", source, len(alike), alike[0],
                    cast[alike[0]].flat[0])
  return flax.traverse_util.unflatten_dict(cast, sep="/")


def _some(tensors) -> str:
  names = list(tensors)
  return f"{', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"


def _sha256(path) -> str:
  with open(path, "rb") as f:
    return hashlib.file_digest(f, "sha256").hexdigest()
