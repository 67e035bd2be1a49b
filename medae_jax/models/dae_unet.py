"""The U-Net of the denoising autoencoder (Kascenas 2022): weight standardisation, Swish, GroupNorm.

Level i has 2^(wf+i) channels. A block is twice (reflect-padded WS 3x3 convolution, Swish,
GroupNorm): the normalisation comes after the activation. No residual connection from input to
output, no dropout, no activation on the output.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medae_jax.core.errors import UserError
from medae_jax.models.layers import joined_kernels
from medae_jax.models.layers.conv import Conv1x1, ConvTranspose2x2, WSConv3x3
from medae_jax.models.layers.dtype import at_least_float32, of_last_layer
from medae_jax.models.layers.norm_kernel import SwishGroupNorm
from medae_jax.models.layers.pool import avg_pool2x2
from medae_jax.models.layers.reflect_pad import reflect_pad


def group_count(channels: int) -> int:
  """The middle divisor: divisors in increasing order d_0..d_{k-1} give d_{k // 2}."""
  divisors = [d for d in range(1, channels + 1) if channels % d == 0]
  return divisors[len(divisors) // 2]


class Block(nn.Module):
  """[B,H+2,W+2,I], reflect-padded -> [B,H,W,O]."""
  features: int
  dtype: Any = jnp.float32
  precision: Any = None
  norm_kernel: str = "plain"
  ready: bool = False

  @nn.compact
  def __call__(self, x):
    for part in ("a", "b"):
      x, bias = WSConv3x3(self.features, self.dtype, self.precision, self.ready, name=f"conv_{part}")(x)
      x = SwishGroupNorm(group_count(self.features), pad=part == "a", kernel=self.norm_kernel,
                         name=f"norm_{part}")(x, bias)
    return x


class UNet(nn.Module):
  """[B,H,W,C] -> [B,H,W,channels] float32; H and W divisible by 2^(depth-1).

  Attributes:
    channels: of the output.
    depth, wf: number of levels; level i has 2^(wf+i) channels.
    dtype: of activations and products ("bfloat16" halves memory traffic); parameters, kernel
      standardisation and normalisation statistics stay float32.
    precision: of float32 products ("highest" forbids TF32 on GPUs).
    norm_kernel: form of Swish + GroupNorm on GPUs (layers/norm_kernel.py): plain, pallas, measured.
    remat: recompute each block in the backward pass: less memory, about a third more work.
    ready: its parameters are those that `standardised` returns.
  """
  channels: int
  depth: int = 4
  wf: int = 6
  dtype: Any = jnp.float32
  precision: Any = None
  remat: bool = False
  norm_kernel: str = "plain"
  ready: bool = False

  @nn.compact
  def __call__(self, x):
    check_size(x.shape, self.depth)  # here, so that a score or an export of another size says it too
    block = nn.remat(Block) if self.remat else Block
    options = (self.dtype, self.precision, self.norm_kernel, self.ready)
    skips = []
    for i in range(self.depth):
      x = reflect_pad(x if i == 0 else avg_pool2x2(x))
      x = block(2 ** (self.wf + i), *options, name=f"down_{i}")(x)
      skips.append(x)
    for i in range(self.depth - 2, -1, -1):
      width = 2 ** (self.wf + i)
      x = ConvTranspose2x2(width, dtype=self.dtype, precision=self.precision, name=f"up_{i}")(x)
      x = jnp.concatenate([reflect_pad(x), reflect_pad(skips[i])], -1)
      x = block(width, *options, name=f"up_block_{i}")(x)
    return at_least_float32(Conv1x1(
        self.channels, of_last_layer(self.dtype), self.precision, name="last")(x))


def is_standardised(path) -> bool:
  """Whether the parameter at a key path of jax.tree_util is a kernel of a block's convolution."""
  names = [key.key for key in path]
  return names[-2:] in (["conv_a", "kernel"], ["conv_b", "kernel"])


def standardised(params, dtype):
  """Parameters for a UNet that is `ready`: the kernels of blocks standardised together, in `dtype`."""
  leaves, structure = jax.tree_util.tree_flatten_with_path(params)
  at = [i for i, (path, _) in enumerate(leaves) if is_standardised(path)]
  values = [value for _, value in leaves]
  for i, kernel in zip(at, joined_kernels.standardised([values[i] for i in at], dtype)):
    values[i] = kernel
  return jax.tree.unflatten(structure, values)


def check_size(shape, depth: int) -> None:
  """Raises UserError unless H and W of [B,H,W,C] can be halved depth-1 times."""
  height, width = shape[1:3]
  factor = 2 ** (depth - 1)
  if height % factor or width % factor or min(height, width) < 2 * factor:
    raise UserError(
        f"images of {height}x{width} cannot be halved {depth - 1} times (config.model.depth={depth}): "
        f"make both sides of config.data.image_size multiples of {factor}, at least {2 * factor}.")
