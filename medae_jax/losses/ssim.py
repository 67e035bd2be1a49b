"""Structural similarity of the reference of annotation removal: uniform windows, zero-padded."""

from __future__ import annotations

import jax.numpy as jnp

from medae_jax.losses.box import box_sum


def _window_mean(x, window: int):
  """Zero-padded mean over window x window with a constant divisor: [B,H,W,C] -> same."""
  return box_sum(x, window, window // 2) / window**2


def ssim_map(first, second, window: int = 11):
  """Structural similarity at each pixel, uniform window: two [B,H,W,C] in [0,1] -> [B,H,W,C].

  Windows are zero-padded and always divided by window^2, so that border windows are darkened alike
  in both images; C1 = 0.01^2, C2 = 0.03^2, and 1e-7 in the denominator (the reference's form).
  """
  c1, c2 = 0.01**2, 0.03**2
  mean_a, mean_b = _window_mean(first, window), _window_mean(second, window)
  var_a = _window_mean(first**2, window) - mean_a**2
  var_b = _window_mean(second**2, window) - mean_b**2
  covariance = _window_mean(first * second, window) - mean_a * mean_b
  top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
  bottom = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2) + 1e-7
  return top / bottom


def ssim_loss(first, second, window: int = 11):
  """1 - mean structural similarity, per example: [B]."""
  return 1.0 - jnp.mean(ssim_map(first, second, window), (1, 2, 3))
