"""Readers of the golden vectors of DPA (and of the narrow VGG that PIAD's use too)."""

import json
import pathlib

import jax
import numpy as np

from configs.fields import dpa as dpa_fields
from medae_jax.losses.trunk import Trunk
from medae_jax.models import dpa_nets, vgg
from medae_jax.weights import dpa as dpa_torch, vgg as vgg_weights
from tests.parity.double import double

# Trajectories run in float64. The vectors come from float32 runs of the public code, which float64
# reproduces to 3e-6 (outputs), 1e-5 (gradients), 1e-6 (losses) and 2e-6 absolute (parameters, 3 steps;
# 3e-5 over a growing run): golden README. The bounds are a few times that, since unseen cases have
# other sizes. Adam divides by |gradient| + 1e-8, so that parameters whose first gradient is rounding
# in the reference's float32 (below 1e-6) follow that rounding: they must stay within a share of what
# they can move (`far`), all others within `close`.
OUT = dict(rtol=3e-5, atol=1e-5)
LOSS = dict(rtol=5e-6, atol=1e-6)


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

# Names of the public code -> ours.
LOSSES = {"nnl": "logistic", "least_squared": "least_squares"}
OPTIONS = {"lambd": "wasserstein_weight"}
UNSAID = {"norm_penalty": 0.0, "target_gamma": 1.0}  # of its Wasserstein loss, where a case says nothing
STAGES = {"stab": "stable", "trns": "transition"}


def stage(published: str) -> str:
  """Our name of a stage of the public code, "stab_32" -> "stable_32"."""
  kind, res = published.split("_")
  return f"{STAGES[kind]}_{res}"


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


def loss_fields(loss_type: str, kwargs: dict, weight: float = 1) -> dict:
  """Fields of config.method out of the public code's loss_type and loss_kwargs, `weight` times the loss."""
  if loss_type == "compose":
    parts = [(weight * p["loss_weight"], p["loss_type"], loss_fields(p["loss_type"], p["loss_kwargs"]))
             for p in (kwargs["loss_1"], kwargs["loss_2"])]
    fields = {k: v for *_, f in parts for k, v in f.items() if v}
    return {"layers": "", **fields, "loss": " + ".join(f"{w:g}*{name}" for w, name, _ in parts)}
  layers = []
  for res, w in kwargs.get("weights_per_resolution", {}).items():
    weights = {**w["feature_weights"], **({"image": w["img_weight"]} if w["img_weight"] else {})}
    layers.append(f"{res}:" + "+".join(f"{v:g}*{k}" for k, v in weights.items()))
  return {"loss": loss_type if weight == 1 else f"{weight:g}*{loss_type}", "layers": ", ".join(layers),
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


def config(method_fields, model_fields, *, adam, steps, batch, growing=(), adversarial=(),
           parity=False, double=False):
  """A DPA config with the given groups; the score loss is the training loss, as published.

  Args:
    adam: the public code's adam_kwargs: "lr" and maybe "betas", "eps", "weight_decay".
    double: networks and the trunk of the losses compute in float64.
  """
  c = dpa_fields.base()
  dtype = {"dtype": "float64"} if double else {}
  with c.unlocked():
    c.method.update({**method_fields, "parity": parity, **{f"vgg_{k}": v for k, v in dtype.items()}})
    c.method.score.loss = ""
    c.method.growing.update(dict(growing))
    c.method.adversarial.update(dict(adversarial))
    c.model.update({**model_fields, **dtype})
    adam = dict(adam)
    c.optim.b1, c.optim.b2 = adam.pop("betas", (c.optim.b1, c.optim.b2))
    c.optim.update(adam)
    c.train.update(steps=steps, batch_size=batch)
  return c.lock()


def model_fields(kind, enc, dec, *, res, latent_res, latent_dim, enc_kwargs=(), dec_kwargs=()):
  """Fields of config.model; what enc_kwargs and dec_kwargs disagree on is the decoder's."""
  kwargs = {**dict(enc_kwargs), **dict(dec_kwargs)}
  if kind != "regular":  # the public code takes these and ignores them, config.model refuses them
    kwargs = {k: v for k, v in kwargs.items() if k not in _REGULAR_ONLY}
  return {"kind": kind, "enc_widths": tuple(enc), "dec_widths": tuple(dec), "max_res": res,
          "latent_res": latent_res, "latent_dim": latent_dim, "allow_long_widths": True, **_kwargs(kwargs)}


_REGULAR_ONLY = ("use_wscale", "pool", "upsample_mode", "normalize_latents")
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


# --------------------------------------------------------------------------------- trajectories
def close_params(got, want, *, close, far, what, grads=None):
  for net in want:
    misses, clear = {}, []
    for path, value in jax.tree_util.tree_leaves_with_path(want[net]):
      misses[jax.tree_util.keystr(path)] = np.abs(leaf(got[net], path) - value).reshape(-1)
      gradient = grads and leaf(grads[net], path)
      clear.append(np.abs(gradient).reshape(-1) > 1e-6 if grads else np.full(value.size, True))
    every, clear = np.concatenate(list(misses.values())), np.concatenate(clear)
    worst = max(misses, key=lambda k: misses[k].max())
    share = np.mean(every[clear] <= close) if clear.any() else 1.0
    assert share >= 0.998, f"{what} {net}: {share:.4f} of {clear.sum()} within {close}"
    assert every.max() <= far, f"{what} {net}{worst}: {every.max()}"


def leaf(tree, path):
  for key in path:
    tree = tree[key.key]
  return np.asarray(tree)


def params(arrays, prefix, kind, nets=("enc", "dec")):
  names = {"critic": "ddis"}
  converted = {n: dpa_torch.convert(sub(arrays, f"{prefix}{names.get(n, n)}/"), kind)
               for n in nets}
  return ({n: p for n, (p, _) in converted.items()}, {n: s for n, (_, s) in converted.items() if s})


def put(state, params, stats=()):
  """The state in float64, the blocks it has taken from `params` and `stats` (other stages' are ignored)."""
  taken = lambda given, own: {
      **own, **{n: {k: v[k] for k in own[n]} for n, v in dict(given).items() if n in own}}
  return double(state.replace(params=taken(params, state.params), stats=taken(stats, state.stats)))


def step(method, stage):
  return jax.jit(lambda s, b: method.train_step(s, b, jax.random.key(0), stage=stage,
                                                axis_name=None))


def has(arrays, prefix):
  return any(k.startswith(prefix) for k in arrays)


def published_model(c):
  """Fields of config.model out of a published configuration."""
  enc, dec = (dict(c[net]["kwargs"]) for net in ("enc", "dec"))
  return model_fields(c["enc"]["type"], enc.pop("inner_dims"), dec.pop("inner_dims"),
                        res=c["max_image_res"], latent_res=c["latent_res"],
                        latent_dim=c["latent_dim"], enc_kwargs=enc, dec_kwargs=dec)


def rows(case, kind):
  return [r for r in case["rows"] if r[0] == kind]


def check_validation(method, state, images, rows, size):
  """The losses of the validation batches, in the order of the images."""
  evaluate = jax.jit(lambda s, b: method.eval_step(s, b, None))
  for i, (_, losses) in enumerate(rows):
    out = evaluate(state, {"image": images[i * size:(i + 1) * size]})
    np.testing.assert_allclose(out["rec_loss" if "rec_loss" in out else "loss"].mean(),
                               losses["image_rec_loss"], **OUT)
