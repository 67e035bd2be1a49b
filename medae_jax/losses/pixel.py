"""Reconstruction losses: (image, recon, ...) -> [B], one number per example."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medae_jax.core.errors import UserError


def absolute(x):
  """|x| with the derivative sign(x): 0 at exactly 0, as PyTorch has it, where `jnp.abs` has 1."""
  return x * jax.lax.stop_gradient(jnp.sign(x))


def foreground(image, threshold: float = 0.01):
  """Where the channel sum of a clean image exceeds the threshold: [B,H,W,C] -> bool [B,H,W,1].

  Scans are skull-stripped, so this is the brain (Kascenas 2022, noise, loss and score use it).
  """
  return jnp.sum(image, -1, keepdims=True) > threshold


def masked_squared_error(image, recon, mask, over: str = "all"):
  """Squared error inside the mask, per example [B].

  Args:
    image, recon: [B,H,W,C]; mask: [B,H,W,1].
    over: "all" divides by H*W*C, background included, as the reference does (its clip at 0.5
      acts on gradients of that scale); "foreground" divides by the masked elements.
  """
  error = jnp.where(mask, (recon - image) ** 2, 0.0)
  if over == "all":
    return jnp.mean(error, (1, 2, 3))
  if over != "foreground":
    raise UserError(f"config.method.loss_over={over!r}: use all or foreground")
  count = jnp.sum(mask, (1, 2, 3)) * image.shape[-1]
  return jnp.sum(error, (1, 2, 3)) / jnp.maximum(count, 1)


def mask_weight(mask, alpha: float, beta: float):
  """alpha where the mask is 1, beta elsewhere; mask float32 [B,H,W,1 or C] with values 0 or 1."""
  return alpha * mask + beta * (1.0 - mask)


def weighted_squared_error(clean, recon, weight, norm):
  """sum of weight (clean - recon)^2 over each example, divided by `norm`: [B].

  Args:
    clean, recon: float32 [B,H,W,C].
    weight: float32 [B,H,W,1 or C], one channel counting for all C.
    norm: float32 []. `mean_weight(weight, C)` averaged over devices makes the mean of the result
      over the global batch equal to sum w (c - p)^2 / sum w over that batch.
  """
  return jnp.sum(weight * (clean - recon) ** 2, (1, 2, 3)) / norm


def mean_weight(weight, channels: int):
  """Mean over examples of the sum of the weights over pixels and channels: float32 []."""
  return jnp.mean(jnp.sum(weight, (1, 2, 3))) * (channels // weight.shape[-1])
