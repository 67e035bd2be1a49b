"""3x3 convolution of a reflect-padded image, in forms that XLA runs fast. Equal results.

Measured on two AVX-512 cores, float32, 64 channels at 128x128, GFLOP/s of (forward, input gradient,
kernel gradient), with jaxlib 0.10 as it comes and with the setting of core/xla_flags.py; a plain
matrix product reaches 300:
  valid  151, 193, 27   280, 269, 139  pads, then convolves without padding
  same   210, 200, 27   212, 202,  93  pads, convolves with zero padding, cuts the rim off
  split  298, 292, 77   261, 265,  77  zero-padded convolution of the image itself plus the rim's
                                       missing terms, and a kernel gradient in blocks of pixels
                                       that stay in the cache
"valid" is the form for GPUs, TPUs and CPUs with that setting, "split" for CPUs without. "split", and
on CPUs "valid", have a gradient written out and so no forward-mode derivative (jax.jvp): use "same".
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from medae_jax.core import xla_flags

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
FORMS = ("auto", "valid", "same", "split")
_BLOCK = 256  # pixels of a block of the kernel gradient: 9 C x 256 floats fit the level-2 cache
_RIM_FROM = 64  # image side from which separate rim convolutions cost less than padding all


def conv(x, kernel, padding="SAME", precision=None):
  """Cross-correlation, stride 1. x [B,H,W,I], kernel [kh,kw,I,O]."""
  return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=_DIMENSIONS,
                                      precision=precision)


def reflect_conv3x3(x, kernel, *, form: str = "auto", precision=None):
  """Convolution of x, reflect-padded by one pixel: [B,H,W,I], [3,3,I,O] -> [B,H,W,O].

  Args:
    form: of FORMS; "auto" is "split" on a CPU without the setting of xla_flags, "valid" elsewhere.
    precision: of the products, as jax.lax takes it.

  Raises:
    ValueError: unknown form, or a side below 2 (nothing to reflect).
  """
  if form not in FORMS:
    raise ValueError(f"config.model.conv_form={form!r}: use one of {', '.join(FORMS)}")
  if min(x.shape[1:3]) < 2:
    raise ValueError(f"a {x.shape[1]}x{x.shape[2]} map cannot be reflect-padded; the image is too "
                     "small for config.model.depth")
  if form == "auto":
    slow = jax.default_backend() == "cpu" and not xla_flags.eigen_convolutions()
    form = "split" if slow else "valid"
  if form == "split":
    return _split(x, kernel, precision)
  if form == "valid":
    return conv(_reflect(x), kernel, "VALID", precision)
  return _same(x, kernel, precision)


def _reflect(x):
  """[B,H,W,C] -> [B,H+2,W+2,C].

  On CPU in parts, since XLA builds and differentiates jnp.pad slowly there: 2.1 instead of 4.0 ms
  for 16 MB, its transpose 0.9 instead of 7.0; a DAE step takes 5 % less.
  """
  return _unfolded(x) if jax.default_backend() == "cpu" else _padded(x)


def _padded(x):
  return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")


@jax.custom_vjp
def _unfolded(x):
  x = jnp.concatenate([x[:, 1:2], x, x[:, -2:-1]], 1)
  x = jnp.concatenate([x[:, :, 1:2], x, x[:, :, -2:-1]], 2)
  return jax.lax.optimization_barrier(x)  # else built a second time, slowly, for the kernel gradient


def _folded(full):
  """Transposes _unfolded: [B,H+2,W+2,C] -> [B,H,W,C]."""
  return _with_rim(full[:, 1:-1, 1:-1], full[:, :1], full[:, -1:], full[:, 1:-1, :1],
                   full[:, 1:-1, -1:])


def _with_rim(y, top, bottom, left, right):
  """The gradient y [B,H,W,C] plus that of the pixels outside the image, where they mirror it.

  Rows are [B,1,W+2,C] with the corners, columns [B,H,1,C].
  """
  height, width = y.shape[1:3]
  y = _add(y, _fold_columns(top), 1, 0)
  y = _add(y, _fold_columns(bottom), height - 2, 0)
  y = _add(y, left, 0, 1)
  return _add(y, right, 0, width - 2)


_unfolded.defvjp(lambda x: (_unfolded(x), None), lambda _, grad: (_folded(grad),))


def _zeros(x, top=0, bottom=0, left=0, right=0):
  return jnp.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))


def _same(x, kernel, precision):
  return conv(_padded(x), kernel, "SAME", precision)[:, 1:-1, 1:-1]


# -------------------------------------------------------------------------------- the split form
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _split(x, kernel, precision):
  if min(x.shape[1:3]) < _RIM_FROM:
    return _same(x, kernel, precision)
  height, width = x.shape[1:3]

  def row(line, taps):
    """What a reflected row [B,1,W,I] outside the image adds to its neighbour, taps [3,I,O]."""
    line = jnp.concatenate([line[:, :, 1:2], line, line[:, :, -2:-1]], 2)
    return conv(line, taps[None], "VALID", precision)

  def column(line, taps):
    """The same for a column [B,H,1,I]; the corners belong to the rows."""
    return conv(_zeros(line, 1, 1), taps[:, None], "VALID", precision)

  y = conv(x, kernel, "SAME", precision)
  y = _add(y, row(x[:, 1:2], kernel[0]), 0, 0)
  y = _add(y, row(x[:, -2:-1], kernel[2]), height - 1, 0)
  y = _add(y, column(x[:, :, 1:2], kernel[:, 0]), 0, 0)
  return _add(y, column(x[:, :, -2:-1], kernel[:, 2]), 0, width - 1)


def _add(y, part, top, left):
  """y with `part` added in place, its first pixel at (top, left)."""
  at = (0, top, left, 0)
  return jax.lax.dynamic_update_slice(y, jax.lax.dynamic_slice(y, at, part.shape) + part, at)


def _split_forward(x, kernel, precision):
  return _split(x, kernel, precision), (x, kernel)


def _split_backward(precision, saved, grad):
  x, kernel = saved
  return (_input_gradient(grad, kernel, precision).astype(x.dtype),
          _kernel_gradient(x, grad, precision).astype(kernel.dtype))


_split.defvjp(_split_forward, _split_backward)


def _input_gradient(grad, kernel, precision):
  """Full correlation [B,H+2,W+2,I] of grad with the turned kernel, its rim folded back inwards."""
  turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
  if min(grad.shape[1:3]) < _RIM_FROM:
    return _folded(conv(_zeros(grad, 1, 1, 1, 1), turned, "SAME", precision))
  # One pixel outside the image: what the products there give belongs to the pixels they mirror.
  row = lambda line, taps: conv(_zeros(line, 0, 0, 2, 2), taps[None], "VALID", precision)
  column = lambda line, taps: conv(_zeros(line, 1, 1), taps[:, None], "VALID", precision)
  return _with_rim(
      conv(grad, turned, "SAME", precision), row(grad[:, :1], turned[2]),
      row(grad[:, -1:], turned[0]), column(grad[:, :, :1], turned[:, 2]),
      column(grad[:, :, -1:], turned[:, 0]))


def _fold_columns(full):
  """[B,h,W+2,C] -> [B,h,W,C]: the reflected columns' gradient joins the columns they mirror."""
  width = full.shape[2] - 2
  return (full[:, :, 1:-1] + _zeros(full[:, :, :1], left=1, right=width - 2)
          + _zeros(full[:, :, -1:], left=width - 2, right=1))


def _kernel_gradient(x, grad, precision):
  """sum over pixels of grad^T patches, block by block: [3,3,I,O] float32.

  XLA's own kernel gradient, and one product of all patches as well, stream 9 C values a pixel
  through memory; blocks of some rows are built, multiplied and forgotten inside the cache.
  """
  batch, height, width, channels = x.shape
  features = grad.shape[-1]
  rows = max(1, min(height, _BLOCK // width))
  while height % rows:
    rows -= 1
  blocks = height // rows
  padded = _reflect(x)

  def add(total, i):
    image, top = i // blocks, (i % blocks) * rows
    part = jax.lax.dynamic_slice(padded, (image, top, 0, 0), (1, rows + 2, width + 2, channels))
    patches = jnp.concatenate([part[:, a:a + rows, b:b + width] for a in range(3)
                               for b in range(3)], -1).reshape(-1, 9 * channels)
    g = jax.lax.dynamic_slice(grad, (image, top, 0, 0), (1, rows, width, features))
    product = jax.lax.dot_general(g.reshape(-1, features), patches, (((0,), (0,)), ((), ())),
                                  precision=precision, preferred_element_type=jnp.float32)
    return total + product, None
  total, _ = jax.lax.scan(add, jnp.zeros((features, 9 * channels), jnp.float32),
                          jnp.arange(batch * blocks))
  return total.reshape(features, 3, 3, channels).transpose(1, 2, 3, 0)
