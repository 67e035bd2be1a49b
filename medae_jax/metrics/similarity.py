"""How alike an image and its reconstruction are: structural similarity and mean absolute error.

Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13 (2004), with scikit-image's defaults: uniform window of 7,
sample covariance (n - 1), K1 = 0.01, K2 = 0.03, edges mirrored. (losses/ssim.py has another form, which a
published loss uses.)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medae_jax.core.errors import UserError
from medae_jax.losses.box import box_sum

K1, K2 = 0.01, 0.03


def ssim_map(first: jax.Array, second: jax.Array, window: int = 7, data_range: float = 1.0) -> jax.Array:
  """Structural similarity around each pixel: two [B,H,W,C] -> [B,H,W,C], at most 1, float32 or wider.

  Args:
    window: odd side of the window; at least as large as it are H and W.
    data_range: largest minus smallest possible value.

  Raises:
    UserError: images smaller than the window.
  """
  if min(first.shape[1:3]) < window:
    raise UserError(f"structural similarity in windows of {window}x{window} needs images of that size, "
                    f"got {first.shape[1]}x{first.shape[2]}; see config.method.score.window")
  dtype = jnp.promote_types(first.dtype, jnp.float32)
  first, second = first.astype(dtype), second.astype(dtype)
  # Around the image's mean, or float32 cancels in the variances.
  middle = (first.mean((1, 2), keepdims=True) + second.mean((1, 2), keepdims=True)) / 2
  a, b, n, half = first - middle, second - middle, window**2, window // 2
  padded = lambda x: jnp.pad(x, ((0, 0), (half, half), (half, half), (0, 0)), mode="symmetric")
  a, b = padded(a), padded(b)
  local = lambda x: box_sum(x, window) / n
  mean_a, mean_b = local(a), local(b)
  sample = n / (n - 1)
  var_a = sample * (local(a * a) - mean_a**2)
  var_b = sample * (local(b * b) - mean_b**2)
  covariance = sample * (local(a * b) - mean_a * mean_b)
  mean_a, mean_b = mean_a + middle, mean_b + middle
  c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
  top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
  return top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))


def ssim(first: jax.Array, second: jax.Array, window: int = 7, data_range: float = 1.0) -> jax.Array:
  """Mean structural similarity [B] over windows that lie inside the image, and over channels."""
  edge = window // 2
  whole = ssim_map(first, second, window, data_range)
  height, width = whole.shape[1:3]
  return whole[:, edge:height - edge, edge:width - edge].mean((1, 2, 3))


def mae(first: jax.Array, second: jax.Array) -> jax.Array:
  """Mean absolute difference [B] of two [B,H,W,C] (the "MSE" of the public MorphAEus code)."""
  return jnp.abs(first - second).mean((1, 2, 3))
