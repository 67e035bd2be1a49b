"""Which form of Swish + GroupNorm runs: config.model.norm_kernel.

  plain     layers/swish_norm.py, which XLA compiles: the reference, and the default
  pallas    layers/swish_norm_pallas.py on GPUs where it takes the shape; elsewhere plain. Where it takes the
            shape and does not compile: a UserError when the network is initialised, before all else
  measured  on GPUs pallas where it is 3 % faster: both timed with gradient, here, when a shape is first met

On CPUs and TPUs all three are plain. A run that goes on with "measured" may choose otherwise than before, and
then equals the unbroken one up to rounding, not bit for bit. One layer is timed alone: what XLA joins
with its neighbours in the step is not seen.
"""

from __future__ import annotations

import concurrent.futures
import functools

from absl import logging
import flax.linen as nn
import jax
import jax.numpy as jnp

from medae_jax.core.device import timing
from medae_jax.core.errors import UserError
from medae_jax.models.layers import swish_norm

CHOICES = ("plain", "pallas", "measured")
_TIMING = {"repeats": 5, "seconds": 0.02}
_GAIN = 0.97  # what is gained by less is noise, and plain is the reference
_told: set[str] = set()
_chosen: dict[tuple, str] = {}  # by device and class of shape
_compiled: set[tuple] = set()  # device and shape, without the batch, of kernels that compile


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
    kernel = self.kernel
    if self.is_initializing():
      if kernel == "pallas" and jax.default_backend() == "gpu":
        _choice(kernel, x.shape, jnp.dtype(x.dtype), self.groups, self.pad)  # for what it refuses
      kernel = "plain"
    return normalise(x, bias, scale, shift, groups=self.groups, pad=self.pad, eps=self.eps, kernel=kernel)


def normalise(x, bias, scale, shift, *, groups: int, pad: bool, eps: float, kernel: str):
  """`swish_norm.swish_group_norm` in the form that `kernel`, one of CHOICES, says.

  Raises:
    UserError: "pallas" takes the shape, and does not compile for the GPU at hand.
  """
  asked = kernel if jax.default_backend() == "gpu" else "plain"
  choice = "plain" if asked == "plain" else _choice(asked, x.shape, jnp.dtype(x.dtype), groups, pad)
  form = _pallas() if choice == "pallas" else swish_norm.swish_group_norm
  return form(x, bias, scale, shift, groups, pad, eps)


def _pallas():
  from medae_jax.models.layers import swish_norm_pallas  # Triton in Pallas may leave JAX: only on demand
  return swish_norm_pallas.swish_group_norm


def _device():
  return jax.local_devices()[0]


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
    _check_compiles(shape, dtype, groups, pad)
    return "pallas"
  if jax.process_count() > 1:  # all must run the same program, and each would measure for itself
    return _say("model.norm_kernel=measured: plain, as several processes train together", "plain")
  batch = 1 << (shape[0] - 1).bit_length()
  key = (_device().device_kind, batch, *shape[1:], dtype.name, groups, pad)
  if key not in _chosen:
    _chosen[key] = _measured((batch, *shape[1:]), dtype, groups, pad)
  return _chosen[key]


def _check_compiles(shape, dtype, groups, pad) -> None:
  """Compiles value and gradient of one image for this GPU, once; nothing runs."""
  device = _device()
  key = (device.device_kind, *shape[1:], dtype.name, groups, pad)
  if device.platform != "gpu" or key in _compiled:  # the first: a program for a GPU that is not there
    return
  def compiled():
    both, inputs = _value_and_gradient(_pallas(), (1, *shape[1:]), dtype, groups, pad)
    jax.jit(both).lower(*inputs).compile()
  try:
    # The network is being traced, perhaps for several devices; another thread knows nothing of that.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      pool.submit(compiled).result()
  except Exception as e:  # pylint: disable=broad-except  # of whatever compiler
    raise UserError(
        f"model.norm_kernel=pallas: the kernel for {_name((1, *shape[1:]), dtype, groups, pad)} does not "
        f"compile for {device.device_kind} with jax {jax.__version__} ({_in_a_line(e)}): use "
        "--config.model.norm_kernel=plain, or measured, which takes plain there") from e
  _compiled.add(key)


def _in_a_line(error) -> str:
  """Type and first line of an error."""
  return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


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
    return _say(f"{name}: plain, as the kernel does not run here ({_in_a_line(e)})", "plain")
  choice = "pallas" if pallas < _GAIN * plain else "plain"
  return _say(f"{name}: {choice}; with gradient plain {1e3 * plain:.3g} ms, pallas {1e3 * pallas:.3g} ms, "
              f"ratio {plain / pallas:.2f}", choice)


def _value_and_gradient(form, shape, dtype, groups, pad):
  """(x, three vectors, gradient -> value and gradients of `form`), and shapes of these inputs."""
  def both(x, vectors, grad):
    y, pull = jax.vjp(lambda *a: form(*a, groups, pad), x, *vectors)
    return y, pull(grad)
  out = (shape[0], shape[1] + 2 * pad, shape[2] + 2 * pad, shape[3])
  vector = jax.ShapeDtypeStruct(shape[-1:], jnp.float32)
  return both, (jax.ShapeDtypeStruct(shape, dtype), [vector] * 3, jax.ShapeDtypeStruct(out, dtype))


def _seconds(forms, shape, dtype, groups, pad) -> list[float]:
  """Median seconds of value and gradient of each form, repeats in turn."""
  pairs = [_value_and_gradient(form, shape, dtype, groups, pad) for form in forms]
  leaves, structure = jax.tree.flatten(pairs[0][1])
  inputs = jax.tree.unflatten(structure, [jax.random.normal(jax.random.key(i), a.shape).astype(a.dtype)
                                          for i, a in enumerate(leaves)])
  runs = [jax.jit(both) for both, _ in pairs]
  repeat = lambda run, n: [run(*inputs) for _ in range(n)][-1]
  return [t["median"] for t in timing.measure_in_turn([functools.partial(repeat, r) for r in runs], _TIMING)]
