"""Initialisers of kernels and biases, as PyTorch and the published codes draw them."""

from __future__ import annotations

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp

SLOPE = 0.2

GAIN = math.sqrt(2 / (1 + SLOPE**2))  # of a LeakyReLU, for Xavier initialisation


def uniform_fan_in(fan_in: int):
  """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): the reference framework's default for kernels and biases."""
  bound = fan_in ** -0.5
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def kaiming_normal(key, shape, dtype=jnp.float32):
  """N(0, 2 / (1.04 k^2 C_out)): fan-out, slope 0.2; `shape` is [k,k,C_in,C_out]."""
  std = math.sqrt(2 / ((1 + SLOPE**2) * shape[0] * shape[1] * shape[3]))
  return std * jax.random.normal(key, shape, dtype)


def xavier_uniform(gain: float) -> Callable:
  """U(+-gain sqrt(6 / (fan_in + fan_out))) for kernels [k,k,C_in,C_out]."""
  def init(key, shape, dtype=jnp.float32):
    bound = gain * math.sqrt(6 / (shape[0] * shape[1] * (shape[2] + shape[3])))
    return jax.random.uniform(key, shape, dtype, -bound, bound)
  return init
