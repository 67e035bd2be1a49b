"""The Method protocol: what the one training loop asks of a method.

A method is a file `medae_jax/methods/<name>.py` with a class `Method`. It sees batches (dicts of
arrays) and its config; it never reads files, never knows the loop, the number of steps per
dispatch or the number of devices. `load(config)` imports it by name: there is no registry to edit.

Contracts (tests/contract runs them over every method):
  1. `train_step` is pure. All randomness comes from `rng`, which the loop derives from
     (seed, step), folded per example with `example_keys(rng, batch["index"])`. A resumed run draws
     the same numbers, and N devices with B/N examples each give the parameters of one device with
     B, up to float order.
  2. `score` uses no collectives and treats examples independently; padding is harmless.
  3. `init` -> save -> restore -> `score` needs config.json and the checkpoint only.
  4. The training loss and the anomaly score are separate choices of the config.
  5. Metrics come back already reduced over devices.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp

Batch = Mapping[str, Any]  # name -> array [B, ...], or name -> Batch for several data streams
Metrics = Mapping[str, jax.Array]  # name -> float32 []


@flax.struct.dataclass
class State:
  """Everything a checkpoint holds, and nothing else.

  Attributes:
    step: int32 [], the number of `train_step` calls over all stages.
    params: {net: parameters}, frozen networks included.
    stats: {net: batch statistics, running averages of losses or gradient norms}.
    opt: {name: optax state}; as many optimisers as the method has.
    extra: arrays fitted by `finalize` (a forest, Dirichlet parameters, thresholds).
  """

  step: jax.Array
  params: dict[str, Any]
  stats: dict[str, Any] = flax.struct.field(default_factory=dict)
  opt: dict[str, Any] = flax.struct.field(default_factory=dict)
  extra: dict[str, Any] = flax.struct.field(default_factory=dict)

  @classmethod
  def create(cls, params, stats=None, opt=None, extra=None) -> State:
    """A state at step 0."""
    return cls(jnp.zeros((), jnp.int32), params, stats or {}, opt or {}, extra or {})


@dataclasses.dataclass(frozen=True)
class Stage:
  """A stretch of training with fixed shapes.

  Attributes:
    name: stored with each checkpoint, since the tree of parameters may depend on it.
    steps: length of this stage in `train_step` calls.
    data: overrides of `config.data` while it lasts (image size ...); `batch_size` overrides
      `config.train.batch_size`.
    begin: value of `state.step` at its first step; `method_stages` fills it in.
  """

  name: str
  steps: int
  data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  begin: int = 0


@runtime_checkable
class Method(Protocol):
  """The protocol itself; `BaseMethod` gives the defaults."""

  needs: Mapping[str, str]

  def stages(self) -> Sequence[Stage]:
    """One default stage; () = nothing to train, `finalize` does all."""

  def init(self, rng: jax.Array, batch: Batch) -> State:
    """Fresh state of the first stage. `batch` gives shapes only: its values must not matter."""

  def grow(self, state: State, stage: Stage, rng: jax.Array, batch: Batch) -> State:
    """State for `stage` out of the state at the end of the stage before."""

  def train_step(self, state, batch, rng, *, stage, axis_name) -> tuple[State, Metrics]:
    """One update on this device's share of the batch; collectives over `axis_name` inside.

    `axis_name` is None when it runs on one device without a mapped axis (the helpers of
    `core.parallel` accept that).
    """

  def eval_step(self, state: State, batch: Batch, rng: jax.Array) -> Metrics:
    """{"loss": [B], ...} on validation examples: per example, no collectives, no update."""

  def finalize(self, state: State, batches: Iterable[Batch]) -> State:
    """Fit `state.extra` on normal data after the last stage. `batches`: numpy, un-shuffled, padded
    with `batch["valid"]` bool [B]."""

  def score(self, state: State, batch: Batch) -> dict[str, jax.Array]:
    """{"recon" [B,H,W,C], "map" [B,H,W,1] f32, "score" [B] f32, ...}: pure, per example."""


class BaseMethod:
  """Defaults of the protocol; methods subclass it and override what differs."""

  needs: Mapping[str, str] = {"image": "[B,H,W,C] float32"}

  def __init__(self, config):
    self.config = config

  def stages(self) -> Sequence[Stage]:
    return (Stage("main", int(self.config.train.steps)),)

  def grow(self, state, stage, rng, batch):
    return state

  def eval_step(self, state, batch, rng):
    raise NotImplementedError(f"{type(self).__module__} has no validation loss")

  def finalize(self, state, batches):
    return state


def stages_of(method: Method) -> tuple[Stage, ...]:
  """The method's stages with `begin` filled in."""
  stages, begin = [], 0
  for stage in method.stages():
    stages.append(dataclasses.replace(stage, begin=begin))
    begin += stage.steps
  return tuple(stages)


def stage_at(stages: Sequence[Stage], step: int) -> int:
  """Index of the stage that holds step `step`; the last one at and after the end of training."""
  for i, stage in enumerate(stages):
    if step < stage.begin + stage.steps:
      return i
  return max(len(stages) - 1, 0)


def example_keys(rng: jax.Array, index: jax.Array) -> jax.Array:
  """One key an example: rng folded with its place in the *global* batch.

  Args:
    rng: key of the step.
    index: int32 [B], place in the global batch. Folding this rather than the device number makes
      the draws independent of the number of devices.
  """
  return jax.vmap(lambda i: jax.random.fold_in(rng, i))(index)


def load(config) -> Method:
  """The method that `config.method.name` names.

  Raises:
    ValueError: no such file in medae_jax/methods, with the names that exist.
  """
  name = config.method.name
  if ":" in name:  # "package.module:Class", for methods that live outside this package
    module, cls = name.split(":")
    return getattr(importlib.import_module(module), cls)(config)
  if name not in names():
    raise ValueError(
        f"config.method.name={name!r} is not a method; medae_jax/methods has: {', '.join(names())}")
  return importlib.import_module(f"medae_jax.methods.{name}").Method(config)


def names() -> list[str]:
  """Names of all methods of the package."""
  import medae_jax.methods  # pylint: disable=import-outside-toplevel
  return sorted(m.name for m in pkgutil.iter_modules(medae_jax.methods.__path__)
                if not m.name.startswith("_"))


def check_batch(method: Method, batch: Batch) -> None:
  """Checks a batch against `method.needs` before anything is compiled.

  `needs` maps a key ("image", "noisy/image") to "[B,H,W,C] float32 in [0,1]": the number of
  dimensions and the dtype are checked.

  Raises:
    ValueError: the missing key or the shape found, and the config field to change.
  """
  for key, need in method.needs.items():
    value = batch
    for part in key.split("/"):
      if part not in value:
        raise ValueError(f"the data has no {key!r} ({need}); it offers {sorted(flat_keys(batch))}. "
                         "Choose another config.data.name or config.method.name.")
      value = value[part]
    dims = need[need.index("[") + 1:need.index("]")].split(",")
    if len(value.shape) != len([d for d in dims if d]):
      raise ValueError(f"{key!r} has shape {tuple(value.shape)}, the method needs {need}; "
                       "see config.data.")
    dtype = next((d for d in ("float32", "int32", "bool", "uint8") if d in need), None)
    if dtype and str(value.dtype) != dtype:
      raise ValueError(f"{key!r} is {value.dtype}, the method needs {need}; see config.data.")


def flat_keys(batch: Batch, prefix: str = "") -> list[str]:
  """Keys of a nested batch, "noisy/image" style."""
  keys = []
  for key, value in batch.items():
    keys += flat_keys(value, f"{prefix}{key}/") if isinstance(value, Mapping) else [prefix + key]
  return keys
