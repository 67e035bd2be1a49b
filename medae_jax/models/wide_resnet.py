"""Wide residual network with pre-activation (Zagoruyko & Komodakis 2016, arXiv 1605.07146), a classifier.

The form of the geometric-transformation detector (Golan & El-Yaniv 2018, arXiv 1805.10917), which comes
from Keras: 'same' padding of that framework (a stride of 2 pads below and on the right), convolutions
without bias, a 1x1 shortcut on the *activated* input wherever a block changes the number of channels.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medae_jax.models.layers import conv_forms
from medae_jax.models.layers.dtype import at_least_float32, of_last_layer
from medae_jax.models.layers.init import uniform_fan_in
from medae_jax.models.layers.norm import BatchNorm

EPS = 1.001e-5  # Keras asks for 1e-5, TensorFlow's fused operation makes that of it
POOL = 8        # side of the windows of the last pooling

_he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")  # not truncated


class _Block(nn.Module):
  """out = conv3x3(relu(bn2(conv3x3(h)))) + shortcut, h = relu(bn1(x)); [B,H,W,I] -> [B,H/s,W/s,O]."""
  features: int
  stride: int
  dtype: Any
  norm: dict[str, Any]

  @nn.compact
  def __call__(self, x):
    conv = lambda name, side, stride: nn.Conv(
        self.features, (side, side), (stride, stride), padding="SAME", use_bias=False, dtype=self.dtype,
        kernel_init=_he_normal, conv_general_dilated=conv_forms.general, name=name)
    h = nn.relu(BatchNorm(**self.norm, name="bn1")(x))
    y = conv("conv1", 3, self.stride)(h)
    y = conv("conv2", 3, 1)(nn.relu(BatchNorm(**self.norm, name="bn2")(y)))
    if x.shape[-1] == self.features:
      return x + y
    return conv("shortcut", 1, self.stride)(h) + y


class WideResNet(nn.Module):
  """[B,H,W,C] -> logits [B,classes], at least float32. Depth 6 `blocks` + 4: WRN-10-4 has blocks=1, widen=4.

  Three groups of `blocks` blocks with 16, 32 and 64 times `widen` channels at H, H/2 and H/4, then batch
  normalisation, means over windows of 8x8 pixels (cut at the border where the map is no multiple of 8) and
  a dense layer over all windows: the network belongs to one image size.

  Attributes:
    blocks: residual blocks a group. widen: factor of the channels. classes: K.
    keras_variance: the running variance takes n/(n-1) twice, as Keras 2.3.1 on TensorFlow 1 (else once).
    dtype: of convolutions and activations.
  """
  blocks: int
  widen: int
  classes: int
  keras_variance: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, *, train: bool = False, axis_name: str | None = None):
    """`train`: normalise by the global batch and change "batch_stats"; `axis_name`: its mapped axis."""
    dtype = jnp.dtype(self.dtype)
    norm: dict[str, Any] = dict(train=train, axis_name=axis_name, unbiased=True,
                                twice=self.keras_variance, eps=EPS)
    x = nn.Conv(16, (3, 3), padding="SAME", use_bias=False, dtype=dtype, kernel_init=_he_normal,
                conv_general_dilated=conv_forms.general, name="conv0")(x)
    for group in range(3):
      for block in range(self.blocks):
        stride = 2 if group and not block else 1
        x = _Block((16 << group) * self.widen, stride, dtype, norm, name=f"g{group + 1}_b{block}")(x)
    x = window_means(nn.relu(BatchNorm(**norm, name="bn_final")(x)))
    self.sow("intermediates", "pool", x)
    x = x.reshape(x.shape[0], -1)
    return nn.Dense(self.classes, dtype=of_last_layer(dtype), kernel_init=uniform_fan_in(x.shape[-1]),
                    name="dense")(x)


def window_means(x: jax.Array) -> jax.Array:
  """Means over windows of 8x8 pixels, [B,H,W,C] -> [B,ceil(H/8),ceil(W/8),C]; border windows are cut."""
  x = at_least_float32(x)
  b, h, w, c = x.shape
  rows, cols = (-(-n // POOL) for n in (h, w))
  if h % POOL == 0 and w % POOL == 0:
    return x.reshape(b, rows, POOL, cols, POOL, c).mean((2, 4))
  parts = [[x[:, i * POOL:(i + 1) * POOL, j * POOL:(j + 1) * POOL].mean((1, 2)) for j in range(cols)]
           for i in range(rows)]
  return jnp.stack([jnp.stack(row, 1) for row in parts], 1)
