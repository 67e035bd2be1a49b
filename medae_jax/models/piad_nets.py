"""Networks of PIAD as the 2019 code builds them (arXiv 1909.05904, ninatu/piad).

They differ from the residual networks of `dpa_nets` (which the 2021 code uses) in the down block
(convolutions before the pooling), in the first and last layers, and in the width lists: encoder and
image critic have blocks d_0 -> d_0, d_0 -> d_1 ... and their last entry is the width of the 4x4
convolution. NHWC, LeakyReLU 0.2, zero padding, no normalisation, linear outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.models import dpa_layers as layers
from medae_jax.weights import dpa
from medae_jax.models.dpa_layers import Conv, ResBlock, at_least_float32, leaky_relu
from medae_jax.models.layers.conv import avg_pool2x2


def needed_widths(res: int, latent_res: int) -> int:
  """log2(2 res / max(latent_res, 4)): widths in every list."""
  return int(math.log2(2 * res // max(latent_res, 4)))


def check(role: str, widths: Sequence[int], res: int, latent_res: int) -> None:
  """Raises ValueError, naming config.model.<role>, for sizes that no network of 2019 has."""
  power = lambda n: n > 0 and n & (n - 1) == 0
  if not power(res) or res < 8 or (latent_res != 1 and (latent_res < 4 or not power(latent_res)
                                                        or latent_res > res // 2)):
    raise UserError(f"config.model.{role}: res={res} must be a power of two from 8, latent_res="
                     f"{latent_res} 1 or a power of two from 4 below it")
  if len(widths) != needed_widths(res, latent_res):
    raise UserError(f"config.model.{role}: {len(widths)} widths {tuple(widths)}, but {res} px "
                     f"with latent_res={latent_res} needs {needed_widths(res, latent_res)}")


class DownBlock(nn.Module):
  """pool(conv(lrelu(conv(lrelu(x))))) + conv1x1(pool(x)); the pooling comes last."""
  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    h = Conv(self.features, dtype=self.dtype, name="conv1")(leaky_relu(x))
    h = Conv(self.features, dtype=self.dtype, name="conv2")(leaky_relu(h))
    skip = avg_pool2x2(x)
    if x.shape[-1] != self.features:
      skip = Conv(self.features, 1, 0, dtype=self.dtype, name="skip")(skip)
    return avg_pool2x2(h) + skip


class PlainBlock(nn.Module):
  """conv(lrelu(conv(x))) + skip(x): a residual block without activation in front."""
  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    h = Conv(self.features, dtype=self.dtype, name="conv1")(x)
    h = Conv(self.features, dtype=self.dtype, name="conv2")(leaky_relu(h))
    skip = x
    if x.shape[-1] != self.features:
      skip = Conv(self.features, 1, 0, dtype=self.dtype, name="skip")(x)
    return skip + h


class Encoder(nn.Module):
  """Image [B,R,R,C] -> [B,latent_res,latent_res,latent_dim] (float32).

  With latent_res=1, latent_dim=1 and mbstd it is the image critic: a statistic of the whole batch
  (of all devices, with axis_name) then enters every example's score.
  """
  widths: tuple[int, ...]
  latent_dim: int
  latent_res: int = 1
  mbstd: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: jax.Array, *, axis_name: str | None = None) -> jax.Array:
    x = Conv(self.widths[0], dtype=self.dtype, name="first")(image)
    for i, width in enumerate(self.widths[:-1]):
      x = DownBlock(width, self.dtype, name=f"block{i}")(x)
    if self.latent_res == 1:
      x = layers.minibatch_std(x, axis_name) if self.mbstd else x
      x = Conv(self.widths[-1], 4, 0, dtype=self.dtype, name="last")(leaky_relu(x))
    else:
      x = ResBlock(self.widths[-1], dtype=self.dtype, name="last")(x, False)
    x = Conv(self.latent_dim, 1, 0, dtype=self.dtype, name="out")(leaky_relu(x))
    return at_least_float32(x)


class Decoder(nn.Module):
  """Latent [B,latent_res,latent_res,latent_dim] -> image [B,R,R,channels] (float32, linear)."""
  widths: tuple[int, ...]
  channels: int
  latent_res: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, latent: jax.Array) -> jax.Array:
    if self.latent_res == 1:
      x = Conv(self.widths[0], 4, 3, dtype=self.dtype, name="first")(latent)
    else:
      x = PlainBlock(self.widths[0], self.dtype, name="first")(latent)
    for i, width in enumerate(self.widths[1:]):
      x = ResBlock(width, "up", dtype=self.dtype, name=f"block{i}")(x, False)
    x = ResBlock(self.widths[-1], dtype=self.dtype, name="last")(x, False)
    x = Conv(self.channels, 1, 0, dtype=self.dtype, name="out")(leaky_relu(x))
    return at_least_float32(x)


# --------------------------------------------------------------------- names of the PyTorch code
def convert(tensors: Mapping[str, np.ndarray], net: str, variant: str) -> dict:
  """Parameters of one of the four networks out of its torch state dict (or gradients).

  Args:
    net: "enc", "dec", "critic_image" or "critic_latent". variant: "2021" or "2019".
  """
  if net == "critic_latent":
    return from_torch(tensors, "latent")
  if variant == "2019":
    return from_torch(tensors, "decoder" if net == "dec" else "encoder")
  return dpa.convert(tensors, "residual9")[0]


def from_torch(tensors: Mapping[str, np.ndarray], role: str) -> dict:
  """Parameters out of a torch state dict of the 2019 code (or of gradients with its names).

  Args:
    tensors: "model.<i>. ... .weight|bias" -> arrays, kernels OIHW.
    role: "encoder" (also the image critic), "decoder", or "latent" (the latent critic, which is
      the same network in 2019 and 2021).

  Raises:
    ValueError: no children "model.<i>".
  """
  children: dict[int, dict[str, np.ndarray]] = {}
  for name, value in tensors.items():
    parts = name.split(".")
    if parts[0] != "model" or not parts[1].isdigit():
      raise UserError(f"{name!r} is not a parameter of a PIAD network")
    children.setdefault(int(parts[1]), {})[".".join(parts[2:])] = np.asarray(value)
  modules = [children[i] for i in sorted(children)]
  if role == "latent":
    return {"body": {f"conv{i}": _conv(m) for i, m in enumerate(modules)}}
  middle = modules[1:-2]
  names = ["first", *(f"block{i}" for i in range(len(middle))), "last", "out"]
  return {name: _block(m) for name, m in zip(names, modules)}


def _conv(leaves):
  kernel = next(v for k, v in leaves.items() if k.endswith("weight"))
  bias = next(v for k, v in leaves.items() if k.endswith("bias"))
  return {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}


def _block(leaves):
  """One convolution, or conv1, conv2 and perhaps skip, in the order of their indices."""
  skip = {k: v for k, v in leaves.items() if k.startswith("skipcon")}
  groups: dict[str, dict[str, np.ndarray]] = {}
  for name in sorted(set(leaves) - set(skip)):
    path, _, part = name.rpartition(".")
    groups.setdefault(path, {})[part] = leaves[name]
  convs = [_conv(groups[path]) for path in sorted(groups)]
  if len(convs) == 1:
    return convs[0]
  out = {f"conv{i + 1}": conv for i, conv in enumerate(convs)}
  return {**out, "skip": _conv(skip)} if skip else out
