"""The Method protocol: what the one training loop asks of a method.

A method is a file `<name>.py` in medae_jax/methods or a folder there, with a class `Method`. It sees
batches (dicts of arrays) and its config; it never reads files, never knows the loop, the number of steps per
dispatch or the number of devices. `load(config)` imports it by name: there is no registry to edit.

Contracts (tests/contract):
  1. `train_step` is pure. All randomness comes from `rng`, which the loop derives from
     (seed, step), folded per example with `example_keys(rng, batch["index"])`. A resumed run draws the
     same numbers, and N devices with B/N examples each give the parameters of one with B, up to float order.
  2. `score` uses no collectives and treats examples independently; padding is harmless.
  3. `init` -> save -> restore -> `score` needs config.json and the checkpoint only.
  4. The training loss and the anomaly score are separate choices of the config.
  5. Metrics come back already reduced over devices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import importlib
import pkgutil
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core.device import once
from medae_jax.core.errors import UserError, check_outside_code
from medae_jax.core.needs import Batch, Need

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

  if TYPE_CHECKING:  # flax adds it

    def replace(self, **updates: Any) -> State: ...

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
    data: overrides of `config.data` while it lasts; `batch_size` overrides `config.train.batch_size`.
    begin: value of `state.step` at its first step; `method_stages` fills it in.
  """

  name: str
  steps: int
  data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  begin: int = 0


@runtime_checkable
class Method(Protocol):
  """All that the modes and the loop read of a method (a contract test watches); BaseMethod has defaults.

  Attributes:
    needs: {key of a batch, "stream/key" for several streams: Need}, of training batches.
    score_needs: keys that `score` reads. score_optional: keys passed on where a batch has them.
    fits: True: `finalize` fits something on normal data after the last stage.
    views: V > 1: training examples are all pairs (image, view); batches hold "view" int32 [B] < V.
    frozen: names of networks that no optimiser touches; shared by runs that are trained together.
  """

  needs: Mapping[str, Need]
  score_needs: Sequence[str]
  score_optional: Sequence[str]
  fits: bool
  views: int
  frozen: Sequence[str]

  def stages(self) -> Sequence[Stage]:
    """One default stage; () = nothing to train, `finalize` does all."""

  def pretrained(self) -> dict[str, Any]:
    """{net: params} read from files, on the host, once, for fresh runs only (never on resume).

    They replace what `init` put at the same names; shapes must agree.

    Raises:
      UserError: a file that is not there or does not fit, with the config field to change.
    """

  def init(self, rng: jax.Array, batch: Batch) -> State:
    """Fresh state of the first stage: pure, always jitted. `batch` gives shapes only."""

  def grow(self, state: State, stage: Stage, rng: jax.Array, batch: Batch) -> State:
    """State for `stage` out of the state at the end of the stage before."""

  def cache(self, state: State, arrays, stage: Stage):
    """Device-resident `arrays` {key: [n, ...]} with features that training needs of every step."""

  def train_step(self, state, batch, rng, *, stage, axis_name) -> tuple[State, Metrics]:
    """One update on this device's share of the batch; collectives over `axis_name` inside.

    It is None on one device without a mapped axis (the helpers of `core.parallel` accept that).
    """

  def eval_step(self, state: State, batch: Batch, rng: jax.Array) -> Metrics:
    """{"loss": [B], ...} on validation examples: per example, no collectives, no update."""

  def after_validation(self, state: State, values: Mapping[str, float]) -> State:
    """The state with what follows from validation numbers {"val/loss": ...}: plateau schedules."""

  def finalize(self, state: State, batches: Iterable[Batch]) -> State:
    """Fits `state.extra` on normal data after the last stage, where `fits` is True.

    `batches`: of DataSet.fitting(), numpy, images as scored, in order, padded: `batch["valid"]` bool [B].
    """

  def prepare(self, state: State, batch: Batch) -> Batch:
    """`batch` (numpy) with what the host has of it already: before the compiled `score`, not exported."""

  def score(self, state: State, batch: Batch) -> dict[str, jax.Array]:
    """{"recon" [B,H,W,C], "map" [B,H,W,1] f32, "score" [B] f32, ...}: pure, per example."""

  def pictures(self, state: State, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
    """{name: [B,H,W,C] in [0,1]} for people, per example: the training task; not among score's outputs."""

  def inference_state(self, state: State) -> State:
    """What `score` reads of `state` for a batch of `score_needs` alone: all that export ships."""

  def from_torch(self, tensors: Mapping[str, Any]):
    """(params, stats) {net: ...} out of a published state dict {name: array}.

    Raises:
      NotImplementedError: the method has no published PyTorch form.
    """

  def torch_fields(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """{"model.depth": 4, ...}: config fields that the shapes of a published file reveal."""


class BaseMethod:
  """Defaults of the protocol; methods subclass it and override what differs."""

  needs: Mapping[str, Need] = {"image": Need("BHWC")}
  score_needs: Sequence[str] = ("image",)
  score_optional: Sequence[str] = ()
  fits = False
  views = 1
  frozen: Sequence[str] = ()

  def __init__(self, config):
    self.config = config

  def stages(self) -> Sequence[Stage]:
    return (Stage("main", int(self.config.train.steps)),)

  def pretrained(self):
    return {}

  def init(self, rng, batch):
    raise NotImplementedError

  def grow(self, state, stage, rng, batch):
    return state

  def cache(self, state, arrays, stage):
    return arrays

  def train_step(self, state, batch, rng, *, stage, axis_name):
    raise NotImplementedError

  def eval_step(self, state, batch, rng):
    raise NotImplementedError(f"{type(self).__module__} has no validation loss")

  def after_validation(self, state, values):
    return state

  def finalize(self, state, batches):
    return state

  def prepare(self, state, batch):
    return batch

  def score(self, state, batch):
    raise NotImplementedError

  def pictures(self, state, batch, rng):
    return {}

  def inference_state(self, state):
    return state.replace(opt={})

  def from_torch(self, tensors):
    raise NotImplementedError(f"{type(self).__module__} has no published PyTorch form")

  def torch_fields(self, tensors):
    return {}


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


def fresh_state(method: Method, rng: jax.Array, batch: Batch) -> State:
  """The state that training begins with: `init`, jitted, with the networks of `pretrained` in it.

  Args:
    batch: of the first stage; gives shapes only.

  Raises:
    UserError: what `pretrained` raises; pretrained networks that are not the ones that `init` made.
  """
  pretrained = method.pretrained()  # first: a missing file is said before anything is compiled
  state = once.jit(method.init)(rng, batch)
  for net, params in pretrained.items():
    found, made = shapes(params), shapes(state.params[net])
    wrong = sorted(k for k in {**found, **made} if found.get(k) != made.get(k))
    if wrong:
      raise UserError(f"the pretrained network {net!r} does not fit config.method: {wrong[0]} is "
                      f"{found.get(wrong[0])}, {made.get(wrong[0])} is needed")
  return state.replace(params={**state.params, **jax.tree.map(jnp.asarray, pretrained)})


def shapes(tree) -> dict[str, tuple[int, ...]]:
  """{"net/layer/kernel": shape} of a tree of arrays."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator="/"): np.shape(x) for path, x in leaves}


def example_keys(rng: jax.Array, index: jax.Array) -> jax.Array:
  """One key an example: rng folded with its place in the *global* batch.

  Args:
    rng: key of the step.
    index: int32 [B], place in the global batch. Folding this rather than the device number makes
      the draws independent of the number of devices.
  """
  return jax.vmap(lambda i: jax.random.fold_in(rng, i))(index)


def load(config) -> Method:
  """The method that `config.method.name` names; UserError: none such, or outside code nobody allowed."""
  name = config.method.name
  if outside := ":" in name:  # "package.module:Class", for methods that live outside this package
    check_outside_code("config.method.name", name)
  path, _, cls = (name if outside else f"{names().get(name, '')}:Method").partition(":")
  try:
    found = getattr(importlib.import_module(path), cls, None) if path else None
  except ModuleNotFoundError as e:
    if path != e.name and not path.startswith(f"{e.name}."):  # a library that the module needs
      raise
    found = None
  if found is None or not hasattr(found, "train_step"):
    raise UserError(f"config.method.name={name!r} is not a method; medae_jax/methods has: "
                    f"{', '.join(names())}; one of your own is package.module:Class")
  return found(config)


def names() -> dict[str, str]:
  """{name: module} of all methods of the package; its folders are families of methods."""
  import medae_jax.methods as package
  modules = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
  found = {m.name.rpartition(".")[2]: m.name for m in modules if not m.ispkg}
  return {name: found[name] for name in sorted(found) if not name.startswith("_")}
