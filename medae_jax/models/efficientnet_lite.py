"""EfficientNet-Lite, frozen: Tan & Le, ICML 2019, arXiv 1905.11946, without squeeze-and-excitation.

Inverted bottlenecks: 1x1 expansion, depthwise kxk, 1x1 projection, a sum where stride and width stay;
ReLU6; TensorFlow's SAME padding; batch normalisation is part of the kernels (weights/efficientnet_lite.py).
Taps: "stem", "stage1" ... "stage7" (after the last block of a stage), "head" (1x1 to 1280).

Parameters: {"_blocks.3._expand_conv": {"kernel" [h,w,I,O], "bias" [O]}, ...}, under the names of the
published PyTorch files; depthwise kernels are [k,k,1,C].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
import dataclasses

import jax
import jax.numpy as jnp

TAPS = ("stem", *(f"stage{i}" for i in range(1, 8)), "head")
_KERNEL, _STRIDE = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1)  # of the seven stages
# Output channels and blocks of the stages, by size of the network; stem and head are the same in all.
SIZES = {0: ((16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1)),
         1: ((16, 24, 40, 80, 112, 192, 320), (1, 3, 3, 4, 4, 5, 1)),
         2: ((16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1))}
_STEM, _HEAD, _EXPAND = 32, 1280, 6


@dataclasses.dataclass(frozen=True)
class _Unit:
  """A convolution: its place, whether it is depthwise, what follows it."""
  name: str
  size: int
  stride: int
  channels: int
  depthwise: bool = False
  relu: bool = True
  block: int = -1       # index of the block that ends here
  tap: str = ""         # the tap that is complete here


def widths(size: int) -> dict[str, int]:
  """{tap: channels} of EfficientNet-Lite<size>."""
  return dict(zip(TAPS, (_STEM, *SIZES[size][0], _HEAD)))


def shapes(size: int, taps: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
  """{layer: shape of its kernel} up to the deepest tap."""
  found: dict[str, tuple[int, ...]] = {}
  channels = 3
  for unit in _needed(size, taps):
    found[unit.name] = (unit.size, unit.size, 1 if unit.depthwise else channels, unit.channels)
    channels = unit.channels
  return found


def features(size: int, params: Mapping, image: jax.Array, taps: Iterable[str],
             dtype) -> dict[str, jax.Array]:
  """{tap: [B,h,w,C]}; image [B,H,W,3] as it enters; nothing beyond the deepest tap is computed."""
  taps, found = tuple(taps), {}
  x = jnp.asarray(image, dtype)
  before = x
  for unit in _needed(size, taps):
    if unit.name.endswith("._expand_conv") or unit.name == "_blocks.0._depthwise_conv":
      before = x  # what a block adds its result to
    layer = jax.lax.stop_gradient(params[unit.name])
    x = jax.lax.conv_general_dilated(
        x, layer["kernel"].astype(dtype), (unit.stride, unit.stride), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[-1] if unit.depthwise else 1)
    x = x + layer["bias"].astype(dtype)
    if unit.relu:
      x = jnp.clip(x, 0, 6)
    if unit.block >= 0 and x.shape == before.shape:
      x = x + before
    if unit.tap in taps:
      found[unit.tap] = x
  return found


def _needed(size, taps):
  units = list(_units(size))
  return units[:1 + max(i for i, u in enumerate(units) if u.tap and u.tap in taps)]


def _units(size) -> Iterator[_Unit]:
  yield _Unit("_conv_stem", 3, 2, _STEM, tap="stem")
  block, channels = 0, _STEM
  for stage, (kernel, stride, out, repeats) in enumerate(zip(_KERNEL, _STRIDE, *SIZES[size]), 1):
    for i in range(repeats):
      name = f"_blocks.{block}."
      if stage > 1:  # the first one does not expand
        channels *= _EXPAND
        yield _Unit(f"{name}_expand_conv", 1, 1, channels)
      yield _Unit(f"{name}_depthwise_conv", kernel, 1 if i else stride, channels, depthwise=True)
      yield _Unit(f"{name}_project_conv", 1, 1, out, relu=False, block=block,
                  tap=f"stage{stage}" if i == repeats - 1 else "")
      block, channels = block + 1, out
  yield _Unit("_conv_head", 1, 1, _HEAD, tap="head")
