"""Terms of variational autoencoders: likelihoods and divergences from N(0, I), one number an example.

Sums over pixels and over latent numbers, as the bound on log p(x) has them (Kingma & Welling 2014,
arXiv 1312.6114); float32 at least, since exponentials overflow narrower types.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from medae_jax.models.layers.dtype import at_least_float32


def gaussian_nll(image: jax.Array, recon: jax.Array, log_std: float) -> jax.Array:
  """-log N(image; recon, exp(log_std)^2) in nats: two [B,H,W,C] -> [B]."""
  each = ((recon - image) / math.exp(log_std)) ** 2 / 2 + log_std + math.log(2 * math.pi) / 2
  return each.sum((1, 2, 3))


def squared_error(first: jax.Array, second: jax.Array) -> jax.Array:
  """Sum over pixels of the squared difference: two [B,H,W,C] -> [B]."""
  return ((first - second) ** 2).sum((1, 2, 3))


def kl_of_log_std(mean: jax.Array, log_std: jax.Array) -> jax.Array:
  """KL(N(mean, exp(log_std)^2) || N(0, I)), [B,n] -> [B]."""
  mean, log_std = at_least_float32(mean), at_least_float32(log_std)
  return ((jnp.exp(2 * log_std) + mean**2 - 1) / 2 - log_std).sum(-1)


def kl_of_log_var(mean: jax.Array, log_var: jax.Array) -> jax.Array:
  """KL(N(mean, exp(log_var)) || N(0, I)), [B,n] -> [B]."""
  return kl_of_log_std(mean, at_least_float32(log_var) / 2)


def capacity(calls: jax.Array, most: float, steps: float) -> jax.Array:
  """C = most min(calls / steps, 1) of Burgess et al. 2018 (arXiv 1804.03599), in nats, float []."""
  return jnp.clip(most * jnp.asarray(calls, float) / steps, 0, most)


def cross_entropy(logits: jax.Array, target: jax.Array | float) -> jax.Array:
  """Binary cross-entropy of sigmoid(logits) and targets in [0,1], mean over all but the first axis: [B]."""
  each = jax.nn.softplus(logits) - logits * target
  return each.reshape(each.shape[0], -1).mean(-1)
