"""A zero-padded convolution that keeps the size, its kernel gradient in the form that CPUs run fastest."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medae_jax.models.layers import conv_forms

_SMALL = 16  # images in a batch: fewer than the floats of a register, see kernel_gradient


def same_conv(x, kernel):
  """Stride-1 convolution of x [B,H,W,I] with kernel [k,k,I,O], k odd, zero-padded: [B,H,W,O]."""
  if conv_forms.by_onednn(x, kernel) or jax.default_backend() != "cpu":
    return _value(x, kernel)
  return _cpu_conv(x, kernel)


def plain_conv(x, kernel, dilation: int = 1):
  """The same with XLA's own gradients; with `dilation` pixels from one tap of the kernel to the next."""
  pad = dilation * (kernel.shape[0] // 2)
  return jax.lax.conv_general_dilated(x, kernel, (1, 1), [(pad, pad)] * 2, rhs_dilation=(dilation, dilation),
                                      dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _value(x, kernel):
  return conv_forms.conv(x, kernel, kernel.shape[0] // 2)


@jax.custom_vjp
def _cpu_conv(x, kernel):
  return _value(x, kernel)


def _backward(saved, grad):
  x, kernel = saved
  _, pull = jax.vjp(lambda x: _value(x, kernel), x)
  return *pull(grad), kernel_gradient(x, grad, kernel.shape[0])


_cpu_conv.defvjp(lambda x, kernel: (_value(x, kernel), (x, kernel)), _backward)


def kernel_gradient(x, grad, size: int):
  """The gradient [k,k,I,O] of same_conv's kernel, k = size, from x [B,H,W,I] and its result's [B,H,W,O].

  A correlation whose channels are the images of the batch. XLA's code for CPUs (Eigen) copies the patches of
  its first operand k*k times, so that is the one of fewer channels, and copies them slowly where it pads
  them itself and a pixel has few images: then they are padded before
  (docs/performance_trials.md has the figures).
  """
  swap = grad.shape[-1] < x.shape[-1]
  patches, window = (grad, x) if swap else (x, grad)
  pad = size // 2
  if x.shape[0] < _SMALL:
    patches, pad = jnp.pad(patches, ((0, 0), (pad, pad), (pad, pad), (0, 0))), 0
  found = jax.lax.conv_general_dilated(
      patches, window, (1, 1), [(pad, pad)] * 2, dimension_numbers=jax.lax.conv_dimension_numbers(
          patches.shape, window.shape, ("CHWN", "IHWO", "CHWN")))  # [window's channels, k, k, patches']
  # Swapped, the offset of x against the gradient is counted the other way round.
  return found.transpose(1, 2, 0, 3)[::-1, ::-1] if swap else found.transpose(1, 2, 3, 0)
