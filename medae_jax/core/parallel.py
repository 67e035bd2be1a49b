"""Data-parallel steps: the only file that names pmap.

The state stays an ordinary, un-stacked pytree: it goes in with axis None and comes out with axis
None, so nothing is ever replicated or un-replicated by hand. Since JAX 0.8 pmap is itself
jit + shard_map; `mode="shard_map"` writes that form out (with check_vma=False: with the default
True, pmean(grad(local loss)) with respect to replicated parameters is N times too large). Both
modes give the same parameters (tests/contract/test_devices.py). Differentiating *through* pmean is
N times too large under pmap: average gradients, never losses inside the differentiated function.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import contextvars
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from medae_jax.core.device import loops, once
from medae_jax.core.errors import UserError

AXIS = "data"
_REDUCE: contextvars.ContextVar[str] = contextvars.ContextVar("reduce", default="float32")


# ---------------------------------------------------------------- collectives, no-ops without axis
@contextlib.contextmanager
def reduced_in(dtype: str):
  """What is traced inside sends the float32 arrays that `pmean` averages as `dtype`; numbers stay whole."""
  token = _REDUCE.set(dtype)
  try:
    yield
  finally:
    _REDUCE.reset(token)


def pmean(tree, axis_name: str | None):
  """Mean over devices, in the type that `reduced_in` says; the tree itself when axis_name is None."""
  if axis_name is None:
    return tree
  if _REDUCE.get() == "float32" or jax.lax.axis_size(axis_name) == 1:
    return jax.lax.pmean(tree, axis_name)
  narrow = lambda x: x.astype(_REDUCE.get()) if jnp.ndim(x) and x.dtype == jnp.float32 else x
  return jax.tree.map(lambda mean, x: mean.astype(x.dtype),
                      jax.lax.pmean(jax.tree.map(narrow, tree), axis_name), tree)


def psum(tree, axis_name: str | None):
  """Sum over devices; the tree itself when axis_name is None."""
  return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def all_gather(tree, axis_name: str | None):
  """Concatenates the leading axis over devices, in device order; identity when axis_name is None."""
  if axis_name is None:
    return tree
  return jax.tree.map(lambda x: jax.lax.all_gather(x, axis_name, tiled=True), tree)


# ------------------------------------------------------------------------------ accumulated grads
def value_and_grad(loss_fn: Callable, params, batch, rng, *, accum: int = 1, axis_name=None):
  """Mean loss, auxiliary metrics and gradient over devices and over `accum` slices of the batch.

  Args:
    loss_fn: (params, batch, rng) -> (loss [], aux dict of scalars); a mean over its examples.
      Randomness inside must come from `batch["index"]`, so that slicing changes nothing.
    batch: this device's examples [B, ...], B divisible by accum.
    accum: gradients of `accum` consecutive slices are averaged: the result of the whole batch with
      the memory of a slice. Exact for losses that are means over examples.

  Returns:
    (loss [], aux), gradient; all averaged over devices.
  """
  grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
  if accum == 1:
    # The gradient is averaged, not the loss inside grad_fn: differentiating through pmean would
    # count every device's loss once per device.
    return pmean(grad_fn(params, batch, rng), axis_name)
  slices = jax.tree.map(lambda x: x.reshape(accum, x.shape[0] // accum, *x.shape[1:]), batch)
  first = jax.tree.map(lambda x: x[0], slices)
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype),
                       jax.eval_shape(grad_fn, params, first, rng))
  add = lambda total, part: jax.tree.map(jnp.add, total, part)
  # Losses, metrics and gradients are summed alike; slices are equally long, so that the mean of
  # their means is the mean of the batch. Devices talk once, at the end.
  total, _ = loops.scan(lambda c, b: (add(c, grad_fn(params, b, rng)), None), zeros, slices)
  return pmean(jax.tree.map(lambda x: x / accum, total), axis_name)


# ---------------------------------------------------------------------------------- devices, hosts
def initialize_hosts() -> None:
  """Joins the other processes of a multi-process run, if there are any.

  SLURM, Kubernetes, Open MPI and TPU pods are detected by JAX itself when
  MEDAE_DISTRIBUTED=1 is set; elsewhere set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
  JAX_PROCESS_ID. On CPU the collectives are gloo's.
  """
  address = os.environ.get("JAX_COORDINATOR_ADDRESS")
  if not address and os.environ.get("MEDAE_DISTRIBUTED") != "1":
    return
  if os.environ.get("JAX_PLATFORMS", "") == "cpu":
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
  if address:
    jax.distributed.initialize(address, int(os.environ["JAX_NUM_PROCESSES"]),
                               int(os.environ["JAX_PROCESS_ID"]))
  else:
    jax.distributed.initialize()


@functools.cache
def mesh() -> Mesh:
  """All devices of all processes along one axis."""
  return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def replicated() -> NamedSharding:
  """The sharding of a state: the same on every device (of all processes)."""
  return NamedSharding(mesh(), PartitionSpec())


def replicate(state):
  """The state as a step returns it: without this a fresh one compiles the step a second time.

  With several processes, pmap takes and gives arrays of this process; `globalise` makes others.
  """
  if jax.process_count() > 1:
    return state if jax.tree.leaves(state)[0].is_fully_addressable else to_host(state)
  where = replicated()
  if getattr(jax.tree.leaves(state)[0], "sharding", None) == where:
    return state
  return jax.device_put(state, where)


def globalise(state):
  """The state as global arrays over all processes, which Orbax and shard_map want."""
  if jax.process_count() == 1:
    return state
  where = replicated()
  put = lambda x: jax.make_array_from_process_local_data(where, np.asarray(x))
  return jax.tree.map(put, to_host(state))


def check_batch_size(batch_size: int, what: str = "config.train.batch_size") -> None:
  """Raises ValueError unless the global batch divides over all devices."""
  n = jax.device_count()
  if batch_size % n:
    raise UserError(f"{what}={batch_size} is not divisible by the {n} devices of this run; "
                     f"use a multiple of {n}.")


def to_host(tree):
  """numpy copies of a replicated tree."""
  return jax.tree.map(lambda x: np.asarray(x.addressable_data(0))
                      if isinstance(x, jax.Array) else np.asarray(x), tree)


# ------------------------------------------------------------------------------------ the step
def train_step_fn(step: Callable, key: jax.Array, *, mode: str = "pmap", reduce: str = "float32",
                  resident: Any = None, sample: Callable | None = None) -> loops.Step:
  """Compiles `step` for all devices; the batches it is given decide the steps in a dispatch.

  Args:
    step: (state, batch, rng, axis_name) -> (state, metrics), e.g. a method's train_step with its
      stage bound.
    key: of the stage (streams.step_key); the key of a step is fold_in(key, state.step).
    mode: "pmap" or "shard_map". reduce: "float32" or "bfloat16", see `reduced_in`.
    resident: pytree of arrays [n, ...] that live on every device, or None.
    sample: (resident, index [b], step) -> batch, used with resident data: the host then sends
      only {"index"}.

  Returns:
    (state, batches) -> (state, metrics); batch leaves are arrays [K, B, ...] of this process,
    K steps are scanned in one dispatch (on CPUs dispatched one by one); metrics leaves are [K].
    The state argument is donated. Its attribute `lower`, with the same arguments, gives the
    program that a call runs (jax.stages.Lowered): compiled ahead, it is not compiled again. With one
    process only: with several it may take the memory of a donated state.
  """
  def one(state, batch, data, axis_name):
    # The same key on every device: what must differ between examples is folded with their place in
    # the global batch (method.example_keys), never with the number of the device.
    rng = jax.random.fold_in(key, state.step)
    if sample is not None:
      batch = {**sample(data, batch["index"], state.step), **batch}
    with reduced_in(reduce):
      return step(state, batch, rng, axis_name)

  def many(state, batches, data):
    return loops.scan(lambda s, b: one(s, b, data, AXIS), state, batches)

  if mode == "shard_map":
    return loops.dispatch(_shard_map(many, resident))
  if mode != "pmap":
    raise UserError(f"config.parallel.mode={mode!r}: use pmap or shard_map")
  # Axis None: one state for all devices, in and out; every device computes the same update from the
  # averaged gradient. Batches [K, devices, B/devices, ...] are split along axis 1, under the scan.
  # The state is donated: its memory becomes the new state's, so the caller's copy is gone.
  mapped = jax.pmap(many, axis_name=AXIS, in_axes=(None, 1, None), out_axes=(None, None),
                    donate_argnums=(0,))
  local = jax.local_device_count()

  def given(state, batches):
    split = lambda x: np.reshape(x, (x.shape[0], local, x.shape[1] // local, *x.shape[2:]))
    return replicate(state), jax.tree.map(split, dict(batches)), resident
  return loops.dispatch(_call(mapped, given))


def _call(mapped, given: Callable) -> loops.Step:
  """(state, batches) -> mapped(*given(state, batches)), with the attribute `lower`."""
  def call(state, batches):
    return mapped(*given(state, batches))
  step: Any = call
  step.lower = lambda state, batches: mapped.lower(*given(state, batches))
  return step


def sharded(fn: Callable, where: Mesh, in_specs) -> jax.stages.Wrapped:
  """fn over the devices of `where`, compiled; its first argument is donated, results are the same on all."""
  return jax.jit(jax.shard_map(fn, mesh=where, in_specs=in_specs, out_specs=PartitionSpec(), check_vma=False),
                 donate_argnums=(0,))


def _shard_map(many, resident):
  where = mesh()
  spec = PartitionSpec(None, AXIS)
  mapped = sharded(many, where, (PartitionSpec(), spec, PartitionSpec()))

  def given(state, batches):
    put = lambda x: jax.make_array_from_process_local_data(NamedSharding(where, spec), np.asarray(x))
    where_state = replicate(state) if jax.process_count() == 1 else globalise(state)
    return where_state, jax.tree.map(put, dict(batches)), resident
  return _call(mapped, given)


def per_example_fn(fn: Callable, seldom: bool = False) -> Callable:
  """Compiles (state, batch) -> dict of [B, ...] over this process's devices, without collectives.

  Used for `score`, `eval_step` and `pictures`. Any B works: the batch is padded to a multiple of the
  local device count and cut again.

  Args:
    seldom: it runs on few batches, so that the time to compile it counts (core/device/once.py).
  """
  local = jax.local_device_count()
  if local == 1:
    return once.jit(fn) if seldom else jax.jit(fn)
  mapped = jax.pmap(fn, in_axes=(None, 0))

  def call(state, batch):
    n = len(jax.tree.leaves(batch)[0])
    size = -(-n // local) * local
    pad = lambda x: np.concatenate([x, np.repeat(x[-1:], size - n, 0)]) if size > n else x
    split = lambda x: np.reshape(pad(np.asarray(x)), (local, size // local, *np.shape(x)[1:]))
    out = mapped(state, jax.tree.map(split, dict(batch)))
    return jax.tree.map(lambda x: np.reshape(x, (size, *x.shape[2:]))[:n], out)
  return call
