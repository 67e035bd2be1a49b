"""Files of VGG19 weights and channel statistics: read safely, checked, written small."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import hashlib
import pathlib

import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.models.vgg import CONVS, WIDTHS, check_layers, depth, random_params
from medae_jax.weights import kept, torch_file
from medae_jax.weights.known import catalogue

PUBLISHED_FILE = "vgg19-dcbb9e9d.pth"
FIELDS = "config.method.vgg"  # beginning of the fields that name weights and widths
ENTRY = "RGB, 0 to 1, minus mean, by deviation"  # how images enter torchvision's networks, in words
# Position of each convolution in torchvision's `features`: ReLUs and poolings take the others.
TORCH_INDEX = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
# Per-channel mean and standard deviation of every layer over a part of ImageNet, as published with
# the DPA code (Apache-2.0); they belong to the published weights and to no others.
STATS_FILE = pathlib.Path(__file__).with_name("vgg19_feature_stats.npz")


def from_torchvision(tensors: Mapping[str, np.ndarray], layers: Iterable[str] = ("r54",)) -> dict:
  """Trunk weights out of a torchvision-named state dict `features.N.weight|bias`.

  Kernels go from OIHW to HWIO; the classifier and the layers that are not needed are dropped.

  Raises:
    UserError: a missing tensor or a wrong shape, with its name.
  """
  params, channels = {}, 3
  for (b, i), n in list(zip(CONVS, TORCH_INDEX))[:depth(layers)]:
    found = {}
    for part in ("weight", "bias"):
      name = f"features.{n}.{part}"
      if name not in tensors:
        raise UserError(f"no tensor {name!r}: this is not a torchvision VGG19 state dict "
                         f"(expected {PUBLISHED_FILE})")
      found[part] = np.asarray(tensors[name], np.float32)
    kernel, bias = found["weight"], found["bias"]
    if kernel.ndim != 4 or kernel.shape[1:] != (channels, 3, 3) or bias.shape != kernel.shape[:1]:
      raise UserError(f"features.{n}: weight {kernel.shape}, bias {bias.shape}; conv{b}_{i} of "
                       f"VGG19 needs weight (O, {channels}, 3, 3) and bias (O,)")
    params[f"conv{b}_{i}"] = {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}
    channels = kernel.shape[0]
  return params


def load(weights: str, layers: Iterable[str], widths=WIDTHS, fields: str = FIELDS) -> dict:
  """Weights up to the deepest of `layers` from what `config.method.vgg_weights` says.

  Args:
    weights: "random:SEED", a torchvision checkpoint (.pth, .pt; read without unpickling), or an
      .npz / .safetensors with the names `features.N.weight|bias` (`save` writes one), or an .npz of
      --mode=weights.
    widths: channels of the five groups; used for random weights only.
    fields: beginning of the names of the config's fields, for messages.

  Raises:
    UserError: no weights chosen, widths of other than five groups, or a file that is not VGG19.
    FileNotFoundError: no such file.
  """
  layers = tuple(layers)
  check_layers(layers)
  if not weights:
    raise UserError(
        f"{fields}_weights is empty, but the loss needs VGG19: get {PUBLISHED_FILE} "
        "(torchvision, 548 MiB, https://download.pytorch.org/models/) and set "
        f"--{fields}_weights=PATH; random weights only by choice: random:0")
  if weights.startswith("random:"):
    seed = weights.removeprefix("random:")
    if not seed.isdigit():
      raise UserError(f"{fields}_weights={weights!r}: write random:SEED, e.g. random:0")
    return random_params(int(seed), _of_groups(widths, fields), layers)
  path = pathlib.Path(weights)
  if not path.is_file():
    raise FileNotFoundError(f"{fields}_weights={weights}: no such file; get "
                            f"{PUBLISHED_FILE} from https://download.pytorch.org/models/")
  catalogue.verified(path)
  if kept.is_kept(path):
    return kept.load(path, "vgg19", ENTRY, [f"conv{b}_{i}" for b, i in CONVS[:depth(layers)]])
  tensors = torch_file.load(path, lambda name: name.startswith("features."))
  try:
    return from_torchvision(tensors, layers)
  except ValueError as e:
    raise UserError(f"{path}: {e}") from None


def zeros(weights: str, layers: Iterable[str], widths=WIDTHS, fields: str = FIELDS) -> dict:
  """Zeros in the shapes that `load` returns, at a fraction of its cost and without its errors.

  Args:
    weights, layers: as for `load`.
    widths: channels of the five groups, of random weights and where there is no readable file: a
      resumed run has the weights in its checkpoint and asks for shapes alone.
  """
  found = _file_widths(weights)
  params, channels = {}, 3
  for b, i in CONVS[:depth(layers)]:
    width = found.get((b, i)) or int(_of_groups(widths, fields)[b - 1])
    params[f"conv{b}_{i}"] = {"kernel": np.zeros((3, 3, channels, width), np.float32),
                              "bias": np.zeros(width, np.float32)}
    channels = width
  return params


def _of_groups(widths, fields):
  """The channels of the five groups; () = those of the published network."""
  if len(widths or WIDTHS) != len(WIDTHS):
    raise UserError(f"{fields}_widths={tuple(widths)}: give the channels of the five groups, such "
                    f"as {tuple(WIDTHS)}")
  return widths or WIDTHS


def _file_widths(weights: str) -> dict[tuple[int, int], int]:
  """{(group, index): channels} of a weight file, by its biases alone; {} without a readable one."""
  names = {f"features.{n}.bias": conv for conv, n in zip(CONVS, TORCH_INDEX)}
  try:
    biases = torch_file.load(weights, names.__contains__)
  except (OSError, UserError):
    return {}
  return {names[name]: len(bias) for name, bias in biases.items() if np.ndim(bias) == 1}


def save(path, params: Mapping, source: str = "") -> str:
  """Writes a trunk as .npz with torchvision's names, and returns the SHA-256 of its weights.

  A few MiB instead of the 548 of the published file: `load` reads either.
  """
  tensors, digest = {}, hashlib.sha256()
  for (b, i), n in zip(CONVS, TORCH_INDEX):
    if f"conv{b}_{i}" in params:
      conv = params[f"conv{b}_{i}"]
      tensors[f"features.{n}.weight"] = np.asarray(conv["kernel"], np.float32).transpose(3, 2, 0, 1)
      tensors[f"features.{n}.bias"] = np.asarray(conv["bias"], np.float32)
  for name in sorted(tensors):
    digest.update(np.ascontiguousarray(tensors[name]).tobytes())
  np.savez(path, source=np.array(source), sha256=np.array(digest.hexdigest()),
           **tensors)  # type: ignore[arg-type]
  return digest.hexdigest()


def load_stats(layers: Iterable[str], path=STATS_FILE) -> dict:
  """{layer: {"mean" [C], "std" [C]}} from an .npz with `<layer>_mean` and `<layer>_std`.

  The published file calls its second entry "var", but it is the standard deviation: with it as a
  variance, E|c| = 2 E[relu(c)] - E[c] would exceed sqrt(E[c^2]) in every channel of most layers.

  Raises:
    FileNotFoundError: no such file. UserError: damaged, a layer is missing, or numbers that are no mean and
      deviation of each channel.
  """
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(f"{FIELDS}_stats={path}: no such file of channel statistics")
  stats, found = {}, torch_file.load(path)
  for layer in layers:
    mean, std = found.get(f"{layer}_mean"), found.get(f"{layer}_std")
    if mean is None or std is None:
      raise UserError(f"{path} has no {layer}_mean and {layer}_std")
    if mean.ndim != 1 or mean.shape != std.shape or {mean.dtype.kind, std.dtype.kind} - set("fiu") or not (
        np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
      raise UserError(f"{path}: {layer}_mean and {layer}_std are no numbers of each channel, the second ones "
                      "positive")
    stats[layer] = {"mean": mean.astype(np.float32), "std": std.astype(np.float32)}
  return stats


def save_stats(path, stats: Mapping) -> None:
  """Writes statistics in the form `load_stats` reads."""
  named = {f"{layer}_{part}": np.asarray(values[part], np.float32)
           for layer, values in stats.items() for part in ("mean", "std")}
  np.savez(path, **named)  # type: ignore[arg-type]
