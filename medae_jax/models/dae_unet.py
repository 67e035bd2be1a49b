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
import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.models.layers.conv import (
    Conv1x1, ConvTranspose2x2, SwishGroupNorm, WSConv3x3, avg_pool2x2)
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

  @nn.compact
  def __call__(self, x):
    for part in ("a", "b"):
      x, bias = WSConv3x3(self.features, self.dtype, self.precision, name=f"conv_{part}")(x)
      x = SwishGroupNorm(group_count(self.features), pad=part == "a", name=f"norm_{part}")(x, bias)
    return x


class UNet(nn.Module):
  """[B,H,W,C] -> [B,H,W,channels] float32; H and W divisible by 2^(depth-1).

  Attributes:
    channels: of the output.
    depth, wf: number of levels; level i has 2^(wf+i) channels.
    dtype: of activations and products ("bfloat16" halves memory traffic); parameters, kernel
      standardisation and normalisation statistics stay float32.
    precision: of float32 products ("highest" forbids TF32 on GPUs).
    remat: recompute each block in the backward pass: less memory, about a third more work.
  """
  channels: int
  depth: int = 4
  wf: int = 6
  dtype: Any = jnp.float32
  precision: Any = None
  remat: bool = False

  @nn.compact
  def __call__(self, x):
    block = nn.remat(Block) if self.remat else Block
    options = (self.dtype, self.precision)
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
    x = Conv1x1(self.channels, self.dtype, self.precision, name="last")(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def check_size(shape, depth: int) -> None:
  """Raises ValueError unless H and W of [B,H,W,C] can be halved depth-1 times."""
  height, width = shape[1:3]
  factor = 2 ** (depth - 1)
  if height % factor or width % factor or min(height, width) < 2 * factor:
    raise UserError(
        f"images of {height}x{width} cannot be halved {depth - 1} times (config.model.depth={depth}): "
        f"make both sides of config.data.image_size multiples of {factor}, at least {2 * factor}.")


def torch_sizes(tensors: dict[str, np.ndarray]) -> dict[str, int]:
  """{"depth", "wf", "channels"} that the shapes of a reference state dict reveal.

  Raises:
    KeyError: the first or last convolution is missing: not such a state dict.
  """
  width = tensors["down_path.0.block.1.weight"].shape[0]
  depth = sum(1 for name in tensors if name.startswith("down_path.")
              and name.endswith(".block.1.weight"))
  return {"depth": depth, "wf": width.bit_length() - 1,
          "channels": tensors["last.weight"].shape[0]}


def from_torch(tensors: dict[str, np.ndarray], depth: int) -> dict[str, Any]:
  """Parameters from a state dict of the reference (names of the public implementation).

  Args:
    tensors: e.g. "down_path.0.block.1.weight" [O,I,3,3], "up_path.0.up.weight" [I,O,2,2].
    depth: number of levels.

  Returns:
    The "params" tree of UNet. `convert` checks it for missing, unexpected and mis-shaped entries.

  Raises:
    KeyError: a tensor is missing.
  """
  def block(prefix):
    conv_at = lambda i: {"kernel": tensors[f"{prefix}.{i}.weight"].transpose(2, 3, 1, 0),
                         "bias": tensors[f"{prefix}.{i}.bias"]}
    norm_at = lambda i: {"scale": tensors[f"{prefix}.{i}.weight"], "bias": tensors[f"{prefix}.{i}.bias"]}
    return {"conv_a": conv_at(1), "norm_a": norm_at(3), "conv_b": conv_at(5), "norm_b": norm_at(7)}

  params = {f"down_{i}": block(f"down_path.{i}.block") for i in range(depth)}
  for j in range(depth - 1):
    i = depth - 2 - j
    params[f"up_{i}"] = {"kernel": tensors[f"up_path.{j}.up.weight"].transpose(0, 2, 3, 1),
                         "bias": tensors[f"up_path.{j}.up.bias"]}
    params[f"up_block_{i}"] = block(f"up_path.{j}.conv_block.block")
  params["last"] = {"kernel": tensors["last.weight"][:, :, 0, 0].T, "bias": tensors["last.bias"]}
  return jax.tree.map(np.ascontiguousarray, params)
