"""Throughput of a config, method-agnostic: one JSON of what bounds training on this machine.

  run             steps of the config and the seconds they take, where it counts in steps
  plan            bytes that the step needs by XLA's plan, what is free, the largest batch that fits
  step            ms and images/s of the compiled training step, fed with one prepared batch
  flops           of that step by XLA's cost analysis, per second, and as a fraction of the matrix-
                  product peak that the same run measures in the same dtype
  score           images/s of the score function
  input_pipeline  images/s of the data stream alone
  end_to_end      images/s of training fed by that stream, measured in turn with `step`; the fraction
                  of it shows starvation
Every rate is the median of several repeats with minimum and maximum. Runs with JAX alone: without
TensorFlow or without the data, the last two rows are null with the reason.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core import checks, example, fields, method as method_lib, parallel, streams
from medae_jax.core.device import timing
from medae_jax.core.errors import UserError
from medae_jax.core.files import write_json
from medae_jax.models.layers import conv_forms
from medae_jax.training import cost, durations


def bench(config, workdir=None) -> dict[str, Any]:
  """Measures a config.

  Args:
    config: any experiment's; config.bench is explained in core/fields.py.
    workdir: where given, bench.json is written there.

  Returns:
    A dict of plain numbers, strings and None.

  Raises:
    ValueError: batch and devices do not fit, or the config does not tell the sizes of a batch.
  """
  checks.check(config)
  in_steps = "train.steps" not in durations.left_to_data(config)
  config = durations.without_data(config)  # a step costs the same whenever training ends
  options = {**fields.BENCH, **dict(config.get("bench", None) or {})}
  method, stages = method_lib.load(config), None
  stages = method_lib.stages_of(method)
  stage = _stage(stages, options["stage"])
  size = stage.data.get("batch_size", config.train.batch_size) if stage else config.eval.batch_size
  parallel.check_batch_size(size)
  result = {"method": config.method.name, "device": timing.device(), "versions": timing.versions(),
            "setting": {"stage": stage.name if stage else None, "batch_size": size,
                        "dtype": str(config.model.get("dtype", "float32")),
                        "steps_per_call": int(config.train.steps_per_call),
                        "accum": int(config.train.accum), "mode": config.parallel.mode}}
  state, batch = state_at(method, config, stages, stage, size)
  result["setting"]["batch"] = _shapes(batch)
  # The score first: the training step donates, and so destroys, the state.
  result["score"] = _score(method, state, batch, options)
  if stage is not None:
    result.update(_train(method, config, stage, state, batch, size, options))
    if in_steps:  # epochs: the data decide
      steps = sum(s.steps for s in stages)
      result["run"] = {"steps": steps, "seconds": steps * result["step"]["ms"]["median"] / 1e3}
  result["memory"] = timing.memory()
  for line in summary(result):
    logging.info("%s", line)
  if workdir:
    write_json(f"{workdir}/bench.json", result)
  return result


def summary(result) -> list[str]:
  """The figures in a few lines."""
  lines = []
  for name in ("step", "score", "input_pipeline", "end_to_end"):
    row = result.get(name)
    if row and row.get("images_per_s"):
      r = row["images_per_s"]
      part = row.get("fraction_of_step")
      lines.append(f"{name}: {r['median']:.4g} images/s ({r['min']:.4g} to {r['max']:.4g})"
                   + (f", {100 * part:.1f} % of step" if part else ""))
    elif row:
      lines.append(f"{name}: not measured: {row['reason']}")
  if result.get("run"):
    run = result["run"]
    lines.append(f"run: {cost.expected(run['steps'], run['seconds'] / run['steps'])}")
  if result.get("flops", {}).get("fraction_of_peak"):
    f = result["flops"]
    lines.append(f"flops: {f['per_s'] / 1e9:.4g} GFLOP/s a device, "
                 f"{100 * f['fraction_of_peak']:.1f} % of the measured {f['peak']['dtype']} peak")
  return lines


# ------------------------------------------------------------------------------------------ pieces
def _stage(stages, name):
  if not stages:
    if name:
      raise UserError(f"config.bench.stage={name!r}: this method has no stages, leave it out")
    return None
  found = [s for s in stages if s.name == name] if name else [stages[-1]]
  if not found:
    raise UserError(f"config.bench.stage={name!r}: the stages are "
                     f"{', '.join(s.name for s in stages)}")
  return found[0]


def state_at(method, config, stages, stage, size):
  """A fresh state of `stage`, grown through the stages before it, and a batch of it."""
  key = jax.random.key(config.seed)
  if stage is None:
    batch = example.example_batch(method, config, size)
    return method_lib.fresh_state(method, key, batch), batch
  state = None
  for i, s in enumerate(stages):
    batch = example.example_batch(method, config, s.data.get("batch_size", config.train.batch_size),
                                  s)
    state = (method_lib.fresh_state(method, key, batch) if i == 0
             else method.grow(state, s, key, batch))
    if s.name == stage.name:
      break
  return state.replace(step=jnp.asarray(stage.begin, jnp.int32)), batch


def _train(method, config, stage, state, batch, size, options):
  """The rows "compile", "step", "flops", "input_pipeline" and "end_to_end"."""
  calls = int(config.train.steps_per_call)
  flops = _flops(config, stage, state, batch)
  fn = lambda s, b, r, axis: method.train_step(s, b, r, stage=stage, axis_name=axis)
  step = parallel.train_step_fn(fn, streams.step_key(config, stage), mode=config.parallel.mode,
                                reduce=config.parallel.reduce)
  fed = _Fed(config, stage, size, method.views)
  rows = lambda x: np.split(x, jax.process_count())[jax.process_index()]
  # A batch of the stream where there is one: it may carry more (its noise) than the prepared one.
  share = fed.first if fed.first is not None else jax.tree.map(rows, batch)
  stacked = jax.tree.map(lambda x: np.stack([x] * calls), share)
  if jax.device_count() == 1:  # already there: what the host needs to send shows in end_to_end
    stacked = jax.device_put(stacked)
  begin = time.perf_counter()
  plan = cost.planned(step, state, stacked, size)  # compiled once: the call compiles nothing
  if plan:
    logging.info("%s", plan.line())
  holder = [jax.block_until_ready(step(state, stacked))[0]]
  compile_s = time.perf_counter() - begin

  def prepared(n):
    for _ in range(n):
      holder[0], metrics = step(holder[0], stacked)
    return metrics
  fed_step, next_stack = fed.resident_step(method, fn, holder[0], calls) if fed.resident else (
      step, lambda: fed.stack(calls))

  def streamed(n):
    for _ in range(n):
      holder[0], metrics = fed_step(holder[0], next_stack())
    return metrics
  runs = [prepared] + ([] if fed.reason else [streamed])
  seconds, *seconds_fed = timing.measure_in_turn(runs, options)
  one = {k: v / calls if k in ("median", "min", "max") else v for k, v in seconds.items()}
  out = {"compile": {"first_call_s": compile_s,
                     "cache": jax.config.jax_compilation_cache_dir or None},
         "plan": plan.row() if plan else None,
         "step": {"ms": {k: 1e3 * one[k] for k in ("median", "min", "max")},
                  "repeats": one["repeats"], "images_per_s": timing.rate(one, size)}}
  peak = timing.matmul_peak(config.model.get("dtype", "float32"),
                     config.model.get("precision", None) or None, options)
  per_s = flops / one["median"] if flops else None
  out["flops"] = {"per_step_and_device": flops, "per_s": per_s, "peak": peak,
                  "fraction_of_peak": per_s / peak["flops_per_s"] if per_s else None}
  out["input_pipeline"] = fed.rate(options)
  out["end_to_end"] = dict(out["input_pipeline"])  # null and the reason
  if not fed.reason:
    rate = timing.rate(seconds_fed[0], size * calls)
    out["end_to_end"] = {
        "images_per_s": rate,
        "fraction_of_step": rate["median"] / out["step"]["images_per_s"]["median"]}
  return out


def _flops(config, stage, state, batch):
  """FLOP of one device's step, in forms without loops, of which the count takes one round."""
  whole = config.copy_and_resolve_references()
  with whole.unlocked():
    whole.train.accum = 1  # not in slices
  method = method_lib.load(whole)
  share = jax.tree.map(lambda x: x[:max(1, len(x) // jax.device_count())], batch)
  with conv_forms.never():  # a form's own count is another, of oneDNN's there is none
    return timing.flops_of(lambda s, b: method.train_step(s, b, jax.random.key(0), stage=stage,
                                                   axis_name=None), state, share)


class _Fed:
  """What training is fed with: the stream, or data that live on the device.

  Attributes:
    batches: the stream; first: a batch of it. Both None where there is none.
    resident: the data live on the device.
    reason: why there is neither, else "".
  """

  def __init__(self, config, stage, size, views=1):
    self.config, self.stage, self.size, self.views = config, stage, size, views
    self.batches, self.first, self.reason, self.name = None, None, "", ""
    self.resident = bool(config.data.get("resident", False))
    from medae_jax.training import feed
    self.feed = feed
    try:
      self.dataset = feed.stage_dataset(
          config, stage, feed.datasets.open_dataset(config.data, config.seed))
      self.name = self.dataset.name
      if not self.resident:
        self.batches = feed.batches_of(self.dataset, config, stage, 0, 0, views)
        self.first = next(self.batches)
    except ImportError as e:
      self.reason = f"{e}: the data stream needs TensorFlow"
    except (ValueError, OSError) as e:
      self.reason = f"the data set cannot be opened: {e}"

  def stack(self, calls):
    """The next batches of the stream, for one dispatch."""
    return self.feed.stack(self.batches, calls)

  def resident_step(self, method, fn, state, calls):
    """(step, () -> what it is given) of training from data that live on the device."""
    if self.reason:
      return None, None
    resident, sample = self.feed.resident_data(self.dataset, self.config, self.size, self.stage,
                                                    self.views)
    if resident is not None:  # as train does
      resident = method.cache(state, resident, self.stage)
    step = parallel.train_step_fn(fn, streams.step_key(self.config, self.stage),
                                  mode=self.config.parallel.mode, reduce=self.config.parallel.reduce,
                                  resident=resident, sample=sample)
    index = {"index": np.tile(np.arange(self.size, dtype=np.int32), (calls, 1))}
    return step, lambda: index

  def rate(self, options):
    """The row "input_pipeline": the stream alone."""
    if self.batches is None:
      reason = self.reason or "the data live on the device"
      return {"images_per_s": None, "reason": " ".join(reason.split())}
    seconds = timing.measure(lambda n: [next(self.batches) for _ in range(n)][-1], options)
    return {"images_per_s": timing.rate(seconds, self.size), "dataset": self.name}


def _score(method, state, batch, options):
  """images/s of score on a batch of this size."""
  streams = [batch, *(v for v in batch.values() if isinstance(v, dict))]
  needs = tuple(method.score_needs)
  found = {n: next((s[n] for s in streams if n in s), None) for n in needs}
  if any(v is None for v in found.values()):
    return {"images_per_s": None, "reason": f"a training batch has no {', '.join(needs)}"}
  score = parallel.per_example_fn(method.score)
  try:
    scored = method.inference_state(state)
    seconds = timing.measure(lambda n: [score(scored, found) for _ in range(n)][-1], options)
  except (KeyError, NotImplementedError) as e:  # needs what only finalize fits
    return {"images_per_s": None, "reason": f"score needs a trained state: {e!r}"}
  return {"images_per_s": timing.rate(seconds, len(next(iter(found.values()))))}


def _shapes(batch):
  return {k: _shapes(v) if isinstance(v, dict) else list(itertools.chain(v.shape, [str(v.dtype)]))
          for k, v in batch.items()}
