"""Standardises all kernels of a network together: `conv.standardise` of each, with its gradient written out.

One by one, XLA for GPUs starts seven or eight kernels each, 107 for the U-Net of the DAE. Here kernels
[3,3,I,O] lie one below the other as rows of as many columns as the widest has channels, so that two passes
sum all of them, one forward and one backward:

  forward   sums of chunks of rows, each about its first row (Chan, Golub, LeVeque 1983) -> mean, sd -> w^
  backward  dW = (g - mean(g) - (W - mean) sum(g (W - mean)) / ((n - 1) sd (sd + eps))) / (sd + eps)

dW is elementwise but for these sums: where each parameter's update reads its own gradient (optim/adam.py,
`own`), XLA writes it nowhere.
"""

from __future__ import annotations

import functools
import math

import jax
from jax.experimental.layout import Layout, with_layout_constraint
import jax.numpy as jnp

from medae_jax.models.layers.conv import standardise


def wanted() -> bool:
  """Whether networks use it: on GPUs; elsewhere kernels are standardised where they are used."""
  return jax.default_backend() == "gpu"


def standardised(kernels, dtype, eps: float = 1e-5):
  """`conv.standardise(k, eps).astype(dtype)` of each, up to rounding.

  Args:
    kernels: list of float32 [kh,kw,I,O]; those whose size is no multiple of the widest O go one by one.
  """
  width = max(k.shape[-1] for k in kernels)
  fit = [k.size % width == 0 and width % k.shape[-1] == 0 for k in kernels]
  joined = iter(_joined([k for k, f in zip(kernels, fit) if f], jnp.dtype(dtype), eps))
  return [next(joined) if f else _row_major(standardise(k, eps).astype(dtype)) for k, f in zip(kernels, fit)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _joined(kernels, dtype, eps):
  return _forward(kernels, dtype, eps)[0]


def _forward(kernels, dtype, eps):
  mean, deviation = _statistics(kernels)
  out = [((k - m) / (sd + eps)).astype(dtype) for k, m, sd in zip(
      kernels, _own(mean, kernels), _own(deviation, kernels))]
  return out, (kernels, mean, deviation)


def _backward(dtype, eps, saved, grads):
  del dtype
  kernels, mean, deviation = saved
  grads = [_as_parameters(g) for g in grads]
  g = _chunks(grads).astype(kernels[0].dtype)
  total = _totals(jnp.sum(g, 1), kernels)
  slope = _totals(jnp.sum(g * (_chunks(kernels) - _spread(mean, kernels)[:, None]), 1), kernels)
  n, inverse = _counts(kernels), 1 / (deviation + eps)
  vectors = [_own(v, kernels) for v in (mean, total / n, slope * inverse / ((n - 1) * deviation), inverse)]
  return ([(g.astype(k.dtype) - a - (k - m) * t) * i
           for k, g, m, a, t, i in zip(kernels, grads, *vectors)],)


_joined.defvjp(_forward, _backward)


@jax.custom_vjp
def _row_major(kernel):
  """The kernel; its gradient in the layout of parameters."""
  return kernel


_row_major.defvjp(lambda k: (k, None), lambda _, g: (_as_parameters(g),))


def _as_parameters(grad):
  """The gradient, laid out as parameters are: a convolution gives it transposed, and what is computed from
  it would be transposed in float32, for each use."""
  return with_layout_constraint(grad, Layout(major_to_minor=tuple(range(grad.ndim))))


def _width(kernels) -> int:
  return max(k.shape[-1] for k in kernels)


def _rows(kernels) -> list[int]:
  return [k.size // _width(kernels) for k in kernels]


def _counts(kernels):
  """[K,1]: values that share a channel."""
  return jnp.asarray([k[..., 0].size for k in kernels], kernels[0].dtype)[:, None]


def _chunks(kernels):
  """All rows [chunks,rows,width]; a chunk lies inside one kernel."""
  width, size = _width(kernels), math.gcd(*_rows(kernels))
  return jnp.concatenate([k.reshape(-1, width) for k in kernels]).reshape(-1, size, width)


def _statistics(kernels):
  """Mean and unbiased standard deviation of each channel, [K,width]: of narrower kernels repeated."""
  chunks = _chunks(kernels)
  size, n = chunks.shape[1], _counts(kernels)
  deviation = chunks - chunks[:, :1]
  first, second = jnp.sum(deviation, 1), jnp.sum(deviation**2, 1)
  means = chunks[:, 0] + first / size
  mean = _totals(means, kernels) * size / n
  squares = second - first**2 / size + size * (means - _spread(mean, kernels))**2
  return mean, jnp.sqrt(jnp.maximum(_totals(squares, kernels), 0.0) / (n - 1))


def _totals(chunks, kernels):
  """Sums of chunks [chunks,width] over each kernel and its channels: [K,width]."""
  width, pieces = _width(kernels), _split(chunks, kernels)
  most = max(len(p) for p in pieces)
  # Padded, so that one sum takes them all.
  columns = jnp.sum(jnp.stack([jnp.pad(p, ((0, most - len(p)), (0, 0))) for p in pieces]), 1)
  channels = [jnp.sum(c.reshape(-1, k.shape[-1]), 0) for c, k in zip(columns, kernels)]
  return jnp.stack([jnp.tile(c, width // len(c)) for c in channels])


def _split(chunks, kernels):
  size, start, pieces = math.gcd(*_rows(kernels)), 0, []
  for rows in _rows(kernels):
    pieces.append(chunks[start:start + rows // size])
    start += rows // size
  return pieces


def _spread(vectors, kernels):
  """[K,width] -> [chunks,width], to the chunks of each."""
  size = math.gcd(*_rows(kernels))
  return jnp.concatenate([jnp.broadcast_to(v, (rows // size, len(v)))
                          for v, rows in zip(vectors, _rows(kernels))])


def _own(vectors, kernels):
  """[K,width] -> [O] of each kernel."""
  return [v[:k.shape[-1]] for v, k in zip(vectors, kernels)]
