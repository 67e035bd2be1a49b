"""Parameter names of the public PyTorch code -> our trees, for published checkpoints and tests.

A torch name such as `model.concat.layer2.res_16.0.model.2.model.0.weight` loses its wrappers
(`model.`, `concat.layerK.`); what is left is grouped by block, and inside a block the order of the
4-d weights decides: the indices themselves shift with normalisation, padding and weight scaling.
"""

from __future__ import annotations

from collections.abc import Mapping
import re

import numpy as np

from medae_jax.core.errors import UserError

_WRAPPER = re.compile(r"^(model\.)?(concat\.layer\d+\.)?")
_HEADS = {"preprocess_res_": "from_image_", "postprocess_res_": "to_image_", "res_": "res_"}
_REMEDY = "set config.model.pad and norm of DPA; PIAD has neither, and networks that differ here are not read"
_DROPPED = ("num_batches_tracked", "_alpha", "incoming.weight")


def convert(tensors: Mapping[str, np.ndarray], kind: str) -> tuple[dict, dict]:
  """(params, batch_stats) of an Encoder or Decoder out of a torch state dict (or gradients).

  Args:
    tensors: names as above -> arrays; OIHW kernels.
    kind: "residual9", "residual18" or "regular".

  Raises:
    UserError: a name that belongs to no block of these networks.
  """
  params, stats, blocks = {}, {}, {}
  for name, value in tensors.items():
    short = _WRAPPER.sub("", name)
    if short.endswith(_DROPPED):
      continue
    head, _, rest = short.partition(".")
    ours = next((v + head.removeprefix(k) for k, v in _HEADS.items() if head.startswith(k)), None)
    if ours is None:
      raise UserError(f"{name!r} is not a parameter of a DPA encoder or decoder")
    blocks.setdefault(ours, {})[rest] = np.asarray(value)
  for ours, leaves in blocks.items():
    tree = _regular(ours, leaves) if kind == "regular" else _residual(leaves)
    for path, leaf in tree.items():
      part = path.rsplit("/", 1)[-1]
      is_stat = part in ("mean", "var") or (part == "scale" and "conv" in path) or path == "scale"
      _put(stats if is_stat else params, f"{ours}/{path}", leaf)
  return params, stats


def _put(tree: dict, path: str, value) -> None:
  *parents, leaf = path.split("/")
  for parent in parents:
    tree = tree.setdefault(parent, {})
  tree[leaf] = value


def _modules(leaves: Mapping[str, np.ndarray]) -> list[dict]:
  """Leaves grouped by the module they sit in, in forward order, each {"path", part: array}."""
  groups = {}
  for name, value in leaves.items():
    path, _, part = name.rpartition(".")
    groups.setdefault(path, {"path": path})[part] = value
  order = lambda path: [int(p) for p in path.split(".") if p.isdigit()]
  return sorted(groups.values(), key=lambda g: order(g["path"]))


def _convs(modules: list[dict]) -> list[dict]:
  """Merges a weight-scaled kernel (one module) with its scale and bias (the next)."""
  merged = []
  for module in modules:
    if "weight" not in module and merged and "bias" not in merged[-1]:
      merged[-1].update({k: v for k, v in module.items() if k != "path"})
    else:
      merged.append(dict(module))
  return merged


def _leaves(module: Mapping, name: str) -> dict:
  """Ours from torch's, for one convolution or one batch norm."""
  rename = {"weight": "scale", "running_mean": "mean", "running_var": "var"}
  out = {}
  for part, value in module.items():
    if part == "path":
      continue
    if part == "weight" and value.ndim == 4:
      out[f"{name}/kernel"] = value.transpose(2, 3, 1, 0)
    elif part == "scale":  # of a weight-scaled convolution
      out[f"{name}/scale"] = value.reshape(())
    else:
      out[f"{name}/{rename.get(part, part)}"] = value
  return {path.lstrip("/"): value for path, value in out.items()}


def _is_conv(module: Mapping) -> bool:
  return "weight" in module and module["weight"].ndim == 4


def _regular(ours: str, leaves: Mapping[str, np.ndarray]) -> dict:
  """conv0, norm0, conv1 ...; from_image and to_image are a single convolution without a name."""
  out, convs = {}, 0
  for module in _convs(_modules(leaves)):
    if not ours.startswith("res_"):
      out.update(_leaves(module, ""))
    elif _is_conv(module):
      out.update(_leaves(module, f"conv{convs}"))
      convs += 1
    else:
      out.update(_leaves(module, f"norm{convs - 1}"))
  return out


def _residual(leaves: Mapping[str, np.ndarray]) -> dict:
  """conv and block0, block1 ... in the order of the Sequential's children."""
  children = {}
  for name, value in leaves.items():
    child, _, rest = name.partition(".")
    children.setdefault(int(child), {})[rest] = value
  out, blocks = {}, 0
  for _, child in sorted(children.items()):
    if not any(re.match(r"(model\.\d+\.model\.|skipcon)", name) for name in child):
      for module in _modules(child):
        out.update(_leaves(module, "conv"))
      continue
    prefix, convs = f"block{blocks}", 0
    skip = {k: v for k, v in child.items() if k.startswith("skipcon")}
    for module in _modules({k: v for k, v in child.items() if k not in skip}):
      if _is_conv(module):
        convs += 1
        name = f"conv{convs}"
      else:  # the norm after conv1 sits inside its block, one level deeper than the first norm
        name = "norm2" if module["path"].count("model") > 1 else "norm1"
      out.update(_leaves(module, f"{prefix}/{name}"))
    for module in _modules(skip):
      out.update(_leaves(module, f"{prefix}/skip"))
    blocks += 1
  return out


def networks(tensors: Mapping[str, np.ndarray], model, critic: bool) -> tuple[dict, dict]:
  """({net: params}, {net: statistics}) of the public code's model: `enc.*`, `dec.*`, a critic's `ddis.*`.

  Raises:
    UserError: see convert and check_form; `model` is config.model.
  """
  params, stats = {}, {}
  for torch_name, net in (("enc", "enc"), ("dec", "dec"), ("ddis", "critic")):
    own = {k.removeprefix(f"{torch_name}."): v for k, v in tensors.items()
           if k.startswith(f"{torch_name}.")}
    if own and (net != "critic" or critic):
      check_form(own, model.kind, "none" if net == "critic" else model.norm, model.pad, torch_name)
      params[net], found = convert(own, model.kind)
      stats.update({net: found} if found else {})
  return params, stats


def check_form(tensors: Mapping[str, np.ndarray], kind: str, norm: str, pad: str, where: str) -> None:
  """Refuses a network built with another padding or, of residual blocks, with or without normalisation.

  All its values would fit: what tells is the place of a convolution, behind a layer that pads, and of the
  first one of a resizing block, behind the normalisation (which one without parameters, nothing tells).

  Args:
    tensors: of one network, names as above. norm, pad: of config.model. where: the network, for messages.
  """
  names = {_WRAPPER.sub("", n): np.shape(v) for n, v in tensors.items() if not n.endswith(_DROPPED)}
  kernels = [n.split(".") for n, shape in names.items() if len(shape) == 4 and shape[-1] == 3]
  for parts in kernels:
    found = "zero" if parts[-2] == "0" else "reflect"
    if found != pad:
      raise UserError(f"{where} was built with {found} padding, this config's has {pad}: {_REMEDY}")
  res = lambda name: int(re.match(r"res_(\d+)", name)[1])
  coarsest = min((res(n) for n in names if n.startswith("res_")), default=0)
  firsts = [int(p[3]) for p in kernels if p[0].startswith("res_") and res(p[0]) > coarsest
            and p[1:3] == ["0", "model"] and len(p) == 7]  # activation, resizing, convolution ...
  if kind != "regular" and firsts and (min(firsts) > 2) != (norm != "none"):
    built = "with" if min(firsts) > 2 else "without"
    raise UserError(f"{where} was built {built} normalisation, this config's has norm={norm!r}: {_REMEDY}")
