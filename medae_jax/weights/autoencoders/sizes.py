"""Config fields that the shapes of a published state dict reveal, a function a network.

All take {published name: array} and raise KeyError where a tensor of that network is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
import math
import re
from typing import Any

Tensors = Mapping[str, Any]


def _out(tensors: Tensors, layer: str) -> int:
  return int(tensors[f"{layer}.bias"].shape[0])


def _count(tensors: Tensors, prefix: str) -> int:
  """How many layers prefix0, prefix1, ... there are."""
  return sum(re.fullmatch(rf"{re.escape(prefix)}\d+\.weight", name) is not None for name in tensors)


def ae(tensors: Tensors) -> dict[str, Any]:
  """Of AE-S, AE-D and the backbone of MorphAEus; the side of the image only where the code is dense."""
  n = _count(tensors, "encoder.conv__encode_")
  down = [_out(tensors, f"encoder.conv__encode_{i}") for i in range(max(n, 1))]
  up = [_out(tensors, f"decoder.conv__decode_{i}") for i in range(n)]
  first = tensors["encoder.conv__encode_0.weight"].shape
  # as many widths as halvings, or one fewer and the last one twice: the decoder tells
  widths = down if up == down[::-1] else down[:-1]
  found = {"model.widths": tuple(widths), "model.strides": (2,) * n, "model.kernel": int(first[-1]),
           "data.channels": int(first[1]), "model.latent": 0}
  if "lin_lay_enc.weight" in tensors:
    latent, numbers = tensors["lin_lay_enc.weight"].shape
    squeeze = _out(tensors, "lin_enc")
    found.update({"model.latent": int(latent), "model.squeeze": squeeze,
                  "data.image_size": math.isqrt(int(numbers) // squeeze) * 2**n})
  return found


def vae(tensors: Tensors) -> dict[str, Any]:
  """Of the VAE, square images."""
  n = _count({k.replace(".conv.", "."): v for k, v in tensors.items()}, "encoder.middle_blocks.")
  first, last = (tensors[f"encoder.{end}.conv.weight"].shape for end in ("start", "end"))
  middle = [tensors[f"encoder.middle_blocks.{i}.conv.weight"].shape[0] for i in range(n)]
  widths = tuple(int(w) for w in (first[0], *middle))
  return {"model.widths": widths, "model.latent": int(last[0]) // 2, "data.channels": int(first[1]),
          "data.image_size": int(last[-1]) * 2 ** len(widths)}


def beta_vae(tensors: Tensors) -> dict[str, Any]:
  """Of the beta-VAE."""
  places = sorted(int(k.split(".")[1]) for k in tensors if re.fullmatch(r"encoder\.\d+\.weight", k))
  first = tensors["encoder.0.weight"].shape
  return {"model.width": int(first[0]), "data.channels": int(first[1]),
          "model.hidden": _out(tensors, "decoder.0"),
          "model.latent": _out(tensors, f"encoder.{places[-1]}") // 2,
          "data.image_size": 4 * 2 ** (len(places) - 2)}


def aae(tensors: Tensors) -> dict[str, Any]:
  """Of the adversarial autoencoder; files own layers that images below 128 px do not use."""
  first = tensors["E.conv1_1.weight"].shape
  return {"model.width": int(first[0]), "data.channels": int(first[1]),
          "model.latent": _out(tensors, "E.conv4")}


def soft_intro(tensors: Tensors) -> dict[str, Any]:
  """Of the soft-introspective VAE, square images."""
  pattern = re.compile(r"encoder\.main\.res_in_(\d+)\.conv1\.weight")
  sides = sorted((int(m[1]) for m in map(pattern.fullmatch, tensors) if m), reverse=True)
  first = tensors["encoder.main.0.weight"].shape
  blocks = [tensors[f"encoder.main.res_in_{side}.conv1.weight"].shape for side in sides]
  found = {"model.widths": (int(first[0]), *(int(shape[0]) for shape in blocks[:-1])),
           "model.latent": int(tensors["decoder.fc.0.weight"].shape[1]),
           "data.channels": int(first[1]), "data.image_size": 2 * sides[0]}
  twins = [side for side, shape in zip(sides[:-1], blocks) if shape[0] == shape[1] > 256]
  if twins:  # smaller widths tell nothing: they are the same object in both forms
    found["model.skip_by_identity"] = f"encoder.main.res_in_{twins[0]}.conv_expand.weight" in tensors
  return found
