"""Convolutions of bfloat16 by the oneDNN inside jaxlib, on processors with units for such products.

XLA's own convolutions on CPUs widen bfloat16 to float32. The code of oneDNN that jaxlib for x86 under Linux
holds multiplies it as it is: 2 to 6 times as fast (docs/performance_trials.md). XLA itself no longer takes
that way, but a program can: a custom call whose settings are XLA's message OneDnnConvolutionConfig, as JSON.
They are no public interface, and XLA ends the process where it does not understand them: jaxlib's versions
that were tried, alone.

JAX's compilation cache cannot keep such a program: it is compiled at each start.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
import importlib.metadata
import json
import platform
import sys
import warnings

import jax
import jax.numpy as jnp

from medae_jax.core.device import units, xla_flags
from medae_jax.models.layers import winograd

LEAST = 8  # channels on both sides, for the kernel's gradient
_NHWC = {"batch_dim": "0", "feature_dim": "3", "spatial_dims": ["1", "2"]}


@functools.cache
def there() -> bool:
  """Whether this processor and this jaxlib can."""
  return (sys.platform == "linux" and platform.machine() == "x86_64" and units.multiply_bfloat16()
          and importlib.metadata.version("jaxlib") in xla_flags.TRIED)


def takes(x, kernel) -> bool:
  """Whether x and kernel, of any shape that holds numbers, are convolved here."""
  right = x.dtype == kernel.dtype == jnp.bfloat16 and 0 not in x.shape
  return right and jax.default_backend() == "cpu" and there()


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x, kernel, pad: int):
  """Stride-1 convolution of x [B,H,W,I], `pad` zeros around it, with kernel [k,k,I,O]: [B,H+2pad-k+1,...,O].

  bfloat16 with sums of float32. Can be differentiated any number of times, in reverse.
  """
  size, _, _, features = kernel.shape
  sides = [side + 2 * pad - size + 1 for side in x.shape[1:3]]
  return _call(x, kernel, (x.shape[0], *sides, features), pad)


def _backward(pad, saved, grad):
  x, kernel = saved
  size = kernel.shape[0]
  return conv(grad, _turned(kernel), size - 1 - pad), kernel_gradient(x, grad, pad)


conv.defvjp(lambda x, kernel, pad: (conv(x, kernel, pad), (x, kernel)), _backward)


@jax.custom_vjp
def add_bias(y, bias):
  """y + bias, whose gradient is summed from the array that the convolution's gradients read.

  XLA computes that array again, within the sum, many times as slow as it reads it: a tenth of the perceptual
  step.
  """
  return y + bias


def _add_bias_backward(_, grad):
  grad = jax.lax.optimization_barrier(grad)
  return grad, jnp.sum(grad, axis=(0, 1, 2))


add_bias.defvjp(lambda y, bias: (y + bias, None), _add_bias_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def kernel_gradient(x, grad, pad: int):
  """The gradient [k,k,I,O] of conv's kernel, from x [B,H,W,I] and that of its result [B,H',W',O].

  A convolution along the rows of all images, one below the other, with grad's rows as its kernel: the
  pixels of a row are its channels, x's channels its columns, and x moved by 0 to k-1 columns its images.
  """
  size = x.shape[1] + 2 * pad - grad.shape[1] + 1
  if min(x.shape[3], grad.shape[3]) < LEAST:
    like = jax.ShapeDtypeStruct((size, size, x.shape[3], grad.shape[3]), x.dtype)
    return jax.linear_transpose(lambda kernel: winograd.plain(x, kernel, pad), like)(grad)[0]
  dtype, bits = x.dtype, f"uint{8 * x.dtype.itemsize}"
  # As bits: XLA would copy bfloat16 by way of float32.
  x, grad = (jax.lax.bitcast_convert_type(array, bits) for array in (x, grad))
  x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  images, height, _, channels = x.shape
  width, features = grad.shape[2:]
  rows = images * height
  # Barriers: what XLA fuses of these copies it runs several times as slow.
  moved = _copied(jnp.stack(
      [x[:, :, j:j + width].reshape(rows, width, channels).transpose(0, 2, 1) for j in range(size)]), dtype)
  window = jnp.pad(grad, ((0, 0), (0, size - 1), (0, 0), (0, 0))).reshape(rows, 1, width, features)
  window = _copied(window[:rows - size + 1], dtype)
  found = _call(moved, window, (size, size, channels, features), 0)  # [columns, rows, I, O]
  return found.transpose(1, 0, 2, 3)


def _kernel_gradient_backward(pad, saved, change):
  x, grad = saved
  size = change.shape[0]
  return conv(grad, _turned(change), size - 1 - pad), conv(x, change, pad)


kernel_gradient.defvjp(lambda x, grad, pad: (kernel_gradient(x, grad, pad), (x, grad)),
                       _kernel_gradient_backward)


def _copied(bits, dtype):
  return jax.lax.optimization_barrier(jax.lax.bitcast_convert_type(bits, dtype))


def _turned(kernel):
  """That of the convolution back to x."""
  return kernel[::-1, ::-1].swapaxes(2, 3)


def _call(x, kernel, shape: Sequence[int], pad: int):
  both = lambda n: [str(n)] * 2
  window = {"size": [str(n) for n in kernel.shape[:2]], "pad_left": both(pad), "pad_right": both(pad),
            "strides": both(1), "window_dilations": both(1)}
  of_kernel = {"input_feature_dim": "2", "output_feature_dim": "3", "spatial_dims": ["0", "1"]}
  config = {"dims": "4", "feature_groups": "1", "input": {"data": _NHWC}, "kernel": {"filter": of_kernel},
            "output": {"data": _NHWC}, "window": window}
  # JAX warns at each start that its cache cannot keep this.
  warnings.filterwarnings("ignore", "Error writing persistent compilation cache entry.*bad_alloc")
  call = jax.ffi.ffi_call(
      "__onednn$convolution", jax.ShapeDtypeStruct(tuple(shape), x.dtype), vmap_method="sequential",
      custom_call_api_version=1, legacy_backend_config=json.dumps({"onednn_conv_config": config}))
  return call(x, kernel)
