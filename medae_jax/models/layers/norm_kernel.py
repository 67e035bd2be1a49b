"""Which form of Swish + GroupNorm runs: config.model.norm_kernel.

  plain     layers/swish_norm.py, which XLA compiles: the reference, and the default
  pallas    layers/swish_norm_pallas.py on GPUs where it takes the shape; elsewhere plain
  measured  on GPUs pallas where it is 3 % faster: both timed with gradient, here, when a shape is first met

On CPUs and TPUs all three are plain. A run that goes on with "measured" may choose otherwise than before, and
then equals the unbroken one up to rounding, not bit for bit. One layer is timed alone: what XLA joins
with its neighbours in the step is not seen.
"""

from __future__ import annotations

import functools

from absl import logging
import flax.linen as nn
import jax
import jax.numpy as jnp

from medae_jax.core.device import timing
from medae_jax.models.layers import swish_norm

CHOICES = ("plain", "pallas", "measured")
_TIMING = {"repeats": 5, "seconds": 0.02}
_GAIN = 0.97  # what is gained by less is noise, and plain is the reference
_told: set[str] = set()
_chosen: dict[tuple, str] = {}  # by device and class of shape


class SwishGroupNorm(nn.Module):
  """GroupNorm(swish(x + bias)) over contiguous channel blocks, reflect-padded if asked (`pad`)."""
  groups: int
  pad: bool = False
  eps: float = 1e-5
  kernel: str = "plain"

  @nn.compact
  def __call__(self, x, bias):
    scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
    shift = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
    kernel = "plain" if self.is_initializing() else self.kernel
    return normalise(x, bias, scale, shift, groups=self.groups, pad=self.pad, eps=self.eps, kernel=kernel)


def normalise(x, bias, scale, shift, *, groups: int, pad: bool, eps: float, kernel: str):
  """`swish_norm.swish_group_norm` in the form that `kernel`, one of CHOICES, says."""
  asked = kernel if jax.default_backend() == "gpu" else "plain"
  choice = "plain" if asked == "plain" else _choice(asked, x.shape, jnp.dtype(x.dtype), groups, pad)
  form = _pallas() if choice == "pallas" else swish_norm.swish_group_norm
  return form(x, bias, scale, shift, groups, pad, eps)


def _pallas():
  from medae_jax.models.layers import swish_norm_pallas  # Triton in Pallas may leave JAX: only on demand
  return swish_norm_pallas.swish_group_norm


def _choice(kernel, shape, dtype, groups, pad) -> str:
  name = _name(shape, dtype, groups, pad)
  try:
    from medae_jax.models.layers.swish_norm_pallas import refusal
    why = refusal(shape, dtype, groups)
  except ImportError as e:
    why = f"this JAX: {e}"
  if why:
    return _say(f"{name}: plain, as model.norm_kernel={kernel} does not take {why}", "plain")
  if kernel == "pallas":
    return "pallas"
  if jax.process_count() > 1:  # all must run the same program, and each would measure for itself
    return _say("model.norm_kernel=measured: plain, as several processes train together", "plain")
  batch = 1 << (shape[0] - 1).bit_length()
  key = (jax.local_devices()[0].device_kind, batch, *shape[1:], dtype.name, groups, pad)
  if key not in _chosen:
    _chosen[key] = _measured((batch, *shape[1:]), dtype, groups, pad)
  return _chosen[key]


def _say(line: str, choice: str) -> str:
  """`choice`; the line is logged once."""
  if line not in _told:
    _told.add(line)
    logging.info("%s", line)
  return choice


def _name(shape, dtype, groups, pad) -> str:
  return f"Swish + GroupNorm {'x'.join(map(str, shape))} {dtype.name}, {groups} groups{', padded' * pad}"


def _measured(shape, dtype, groups, pad) -> str:
  """The faster form on this device; "plain" where the other one does not compile."""
  name = _name(shape, dtype, groups, pad)
  try:
    # The network is being traced: what follows is computed now.
    with jax.ensure_compile_time_eval():
      plain, pallas = _seconds([swish_norm.swish_group_norm, _pallas()], shape, dtype, groups, pad)
  except Exception as e:  # pylint: disable=broad-except  # of whatever compiler: the plain form does it
    why = (str(e).strip().splitlines() or [""])[0]
    return _say(f"{name}: plain, as the kernel does not run here ({type(e).__name__}: {why})", "plain")
  choice = "pallas" if pallas < _GAIN * plain else "plain"
  return _say(f"{name}: {choice}; with gradient plain {1e3 * plain:.3g} ms, pallas {1e3 * pallas:.3g} ms, "
              f"ratio {plain / pallas:.2f}", choice)


def _seconds(forms, shape, dtype, groups, pad) -> list[float]:
  """Median seconds of value and gradient of each form, repeats in turn."""
  key, channels = jax.random.key(0), shape[-1]
  x = jax.random.normal(key, shape).astype(dtype)
  vectors = [jax.random.normal(jax.random.fold_in(key, i), (channels,)) for i in range(3)]
  out = (shape[0], shape[1] + 2 * pad, shape[2] + 2 * pad, channels)
  grad = jax.random.normal(jax.random.fold_in(key, 3), out).astype(dtype)

  def both(form, x, vectors, grad):
    y, pull = jax.vjp(lambda *a: form(*a, groups, pad), x, *vectors)
    return y, pull(grad)
  runs = [jax.jit(functools.partial(both, form)) for form in forms]
  repeat = lambda run, n: [run(x, vectors, grad) for _ in range(n)][-1]
  return [t["median"] for t in timing.measure_in_turn([functools.partial(repeat, r) for r in runs], _TIMING)]
