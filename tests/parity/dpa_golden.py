"""Readers of the golden vectors of DPA (and of the narrow VGG that PIAD's use too)."""

import json
import pathlib

import numpy as np

from medae_jax import losses_perceptual as lp
from medae_jax.models import dpa_nets, dpa_torch, vgg


def nhwc(x):
  """[..., C, H, W] -> [..., H, W, C]."""
  return np.moveaxis(np.asarray(x), -3, -1)


def nchw(x):
  """[..., H, W, C] -> [..., C, H, W]."""
  return np.moveaxis(np.asarray(x), -1, -3)


def sub(arrays, prefix: str) -> dict:
  """{rest of the name: array} of the names under `prefix`."""
  return {k[len(prefix):]: arrays[k] for k in arrays if k.startswith(prefix)}


def read(path: pathlib.Path):
  """(arrays, json or None) of <case>.npz and <case>.json."""
  with np.load(path, allow_pickle=False) as file:
    arrays = {k: file[k] for k in file.files}
  text = path.with_suffix(".json")
  return arrays, json.loads(text.read_text()) if text.exists() else None


def narrow_vgg(folder: pathlib.Path) -> lp.Vgg:
  """The narrow trunk and its statistics."""
  arrays, _ = read(folder / "vgg_narrow.npz")
  params = {}
  for name, value in sub(arrays, "vgg/").items():
    conv, part = name.split(".")
    params.setdefault(conv, {})["kernel" if part == "weight" else "bias"] = (
        value.transpose(2, 3, 1, 0) if part == "weight" else value)
  stats = {k: {p: arrays[f"stats/{k}_{p}"] for p in ("mean", "std")} for k in vgg.LAYERS}
  return lp.Vgg(params, stats)


def terms(loss_type: str, kwargs: dict) -> tuple[lp.Term, ...]:
  """Our terms out of the public code's loss_type and loss_kwargs."""
  if loss_type in ("l1", "l2"):
    return (lp.Term(loss_type),)
  if loss_type == "compose":
    out = ()
    for part in (kwargs["loss_1"], kwargs["loss_2"]):
      for term in terms(part["loss_type"], part["loss_kwargs"]):
        out += (lp.Term(**{**vars(term), "weight": term.weight * part["loss_weight"]}),)
    return out
  layers = {}
  for res, w in kwargs["weights_per_resolution"].items():
    layers[int(res)] = {"image": w["img_weight"], **w["feature_weights"]}
  both = loss_type == "relative_perceptual_L1"
  return (lp.Term(
      "perceptual", 1.0, layers, both or kwargs.get("use_feature_normalization", False),
      both or kwargs.get("use_L1_norm", False), both or kwargs.get("use_relative_error", False),
      kwargs.get("use_smooth_pg", False)),)


_RENAME = {"pad_type": "pad", "upsample_mode": "upsample"}


def _kwargs(kwargs):
  return {_RENAME.get(k, k): v for k, v in kwargs.items()}


def encoder(kind, widths, *, res, latent_res, latent_dim, kwargs=(), max_res=0, transition=False):
  """The Encoder of a case."""
  return dpa_nets.Encoder(tuple(widths), res, latent_dim, latent_res, kind, transition, max_res,
                          **_kwargs(dict(kwargs)))


def decoder(kind, widths, *, res, latent_res, channels, kwargs=(), transition=False):
  """The Decoder of a case."""
  return dpa_nets.Decoder(tuple(widths), res, channels, latent_res, kind, transition,
                          **_kwargs(dict(kwargs)))


def variables(tensors, kind):
  """{"params", "batch_stats"} out of torch-named arrays."""
  params, stats = dpa_torch.convert(tensors, kind)
  return {"params": params, "batch_stats": stats}
