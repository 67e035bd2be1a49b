"""Readers of the golden vectors of DPA (and of the narrow VGG that PIAD's use too)."""

import json
import pathlib

import numpy as np

from configs.fields import dpa as dpa_fields
from medae_jax.losses.trunk import Trunk
from medae_jax.weights import vgg as vgg_weights
from medae_jax.models import dpa_nets, vgg
from medae_jax.weights import dpa as dpa_torch


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


def narrow_vgg(folder: pathlib.Path) -> Trunk:
  """The narrow trunk and its statistics."""
  arrays, _ = read(folder / "vgg_narrow.npz")
  params = {}
  for name, value in sub(arrays, "vgg/").items():
    conv, part = name.split(".")
    params.setdefault(conv, {})["kernel" if part == "weight" else "bias"] = (
        value.transpose(2, 3, 1, 0) if part == "weight" else value)
  stats = {k: {p: arrays[f"stats/{k}_{p}"] for p in ("mean", "std")} for k in vgg.LAYERS}
  return Trunk(vgg.features, params, stats)


def loss_fields(loss_type: str, kwargs: dict) -> dict:
  """Fields of config.method out of the public code's loss_type and loss_kwargs."""
  if loss_type == "compose":
    parts = [(p["loss_weight"], p["loss_type"], loss_fields(p["loss_type"], p["loss_kwargs"]))
             for p in (kwargs["loss_1"], kwargs["loss_2"])]
    fields = {k: v for *_, f in parts for k, v in f.items() if v}
    return {"layers": "", **fields, "loss": " + ".join(f"{w:g}*{name}" for w, name, _ in parts)}
  layers = []
  for res, w in kwargs.get("weights_per_resolution", {}).items():
    weights = {**w["feature_weights"], **({"image": w["img_weight"]} if w["img_weight"] else {})}
    layers.append(f"{res}:" + "+".join(f"{v:g}*{k}" for k, v in weights.items()))
  return {"loss": loss_type, "layers": ", ".join(layers),
          "normalize": kwargs.get("use_feature_normalization", False),
          "absolute": kwargs.get("use_L1_norm", False),
          "relative": kwargs.get("use_relative_error", False),
          "smooth_pg": kwargs.get("use_smooth_pg", False)}


def vgg_files(folder: pathlib.Path, out: pathlib.Path) -> dict:
  """Writes the narrow trunk as files that the method reads; fields of config.method."""
  trunk = narrow_vgg(folder)
  vgg_weights.save(out / "trunk.npz", trunk.params)
  vgg_weights.save_stats(out / "stats.npz", trunk.stats)
  return {"vgg_weights": str(out / "trunk.npz"), "vgg_stats": str(out / "stats.npz")}


def config(method_fields, model_fields, *, lr, steps, batch, growing=(), adversarial=(),
           parity=False):
  """A DPA config with the given groups; the score loss is the training loss, as published."""
  c = dpa_fields.base()
  with c.unlocked():
    c.method.update({**method_fields, "parity": parity})
    c.method.score.loss = ""
    c.method.growing.update(dict(growing))
    c.method.adversarial.update(dict(adversarial))
    c.model.update(model_fields)
    c.optim.lr = lr
    c.train.update(steps=steps, batch_size=batch)
  return c.lock()


def model_fields(kind, enc, dec, *, res, latent_res, latent_dim, enc_kwargs=(), dec_kwargs=()):
  """Fields of config.model; enc_kwargs and dec_kwargs must agree where both have a field."""
  return {"kind": kind, "enc_widths": tuple(enc), "dec_widths": tuple(dec), "max_res": res,
          "latent_res": latent_res, "latent_dim": latent_dim, "allow_long_widths": True,
          **_kwargs(dict(enc_kwargs)), **_kwargs(dict(dec_kwargs))}


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
