"""One convolution, in the form that this device runs fastest: XLA's own, in tiles, or oneDNN's."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import contextvars

import jax

from medae_jax.models.layers import onednn, winograd

_allowed = contextvars.ContextVar("conv_forms", default=True)


@contextlib.contextmanager
def never() -> Iterator[None]:
  """What is traced inside has plain convolutions: programs that leave this device, counts of FLOP."""
  token = _allowed.set(False)
  try:
    yield
  finally:
    _allowed.reset(token)


def conv(x, kernel, pad: int = 0, precision=None, tiles: bool = True):
  """Stride-1 convolution of x [B,H,W,I], `pad` zeros around it, with kernel [k,k,I,O]: [B,H+2pad-k+1,...,O].

  Args:
    tiles: False where they were not measured.
  """
  if by_onednn(x, kernel):
    return onednn.conv(x, kernel, pad)
  if tiles and _allowed.get() and winograd.pays(x, kernel, pad):
    return winograd.tiled(x, kernel, pad)
  return winograd.plain(x, kernel, pad, precision)


def add_bias(y, bias):
  """y [B,H,W,O] of `conv` + bias [O]."""
  return onednn.add_bias(y, bias) if by_onednn(y, bias) else y + bias


def general(x, kernel, strides, padding, **settings):
  """`lax.conv_general_dilated` of NHWC and HWIO for flax' nn.Conv, by oneDNN where it can.

  Args:
    settings: the others of lax.conv_general_dilated.
  """
  pad = _one_pad(kernel, padding)
  others = [settings.get(name) or (1, 1) for name in ("lhs_dilation", "rhs_dilation")]
  plain = all(n == 1 for steps in (strides, *others) for n in steps)
  if plain and pad is not None and settings.get("feature_group_count", 1) == 1 and by_onednn(x, kernel):
    return onednn.conv(x, kernel, pad)
  return jax.lax.conv_general_dilated(x, kernel, strides, padding, **settings)


def _one_pad(kernel, padding) -> int | None:
  """Zeros on each of the four sides of a square kernel's convolution, None where they differ."""
  if kernel.ndim != 4 or kernel.shape[0] != kernel.shape[1]:
    return None
  size = kernel.shape[0]
  if isinstance(padding, str):
    return {"VALID": 0, "SAME": size // 2 if size % 2 else None}.get(padding)
  sides = {n for pair in padding for n in pair}
  return sides.pop() if len(sides) == 1 and max(sides) < size else None


def by_onednn(x, kernel) -> bool:
  """Whether `conv` takes oneDNN's, whose gradients are its own."""
  return _allowed.get() and onednn.takes(x, kernel)  # in this order: sizes of an export are symbols
