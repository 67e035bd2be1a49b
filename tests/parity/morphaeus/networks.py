"""Networks of the golden files of MorphAEus and of the autoencoder zoo, built from their configs."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from medae_jax.models import conv_ae, deformer
from medae_jax.weights import conv_ae as names
from tests.parity.dpa_golden import nhwc

# The published "leakyrelu" of encoder and decoder has slope 1; the deformer's has 0.2.
_ACT = {"swish": "swish", "relu": "relu", "leakyrelu": "leaky_relu"}


def sub(arrays, prefix):
  """{rest of the name: array} of names that begin with `prefix`."""
  return {k.removeprefix(prefix): arrays[k] for k in arrays if k.startswith(prefix)}


class Model:
  """The three networks of a case's "model" config, and what they make of an image [B,H,W,C]."""

  def __init__(self, c, dtype="float32"):
    self.config = c
    self.upsampling = "resize" if c["deconv_mode"] == "stride" else "transposed"
    self.transposed = ("deformer", "dec") if self.upsampling == "transposed" else ("deformer",)
    shared = dict(channels=tuple(c["channels"]), strides=tuple(c["strides"]), size=c["kernel_size"],
                  norm="batch" if c["norm"] == "batch" else "none", act=_ACT.get(c["act"], "swish"),
                  dtype=jnp.dtype(dtype))
    self.enc = conv_ae.Encoder(**shared, slope=1.0)
    self.dec = conv_ae.Decoder(**shared, out=c["out_ch"], slope=1.0, upsampling=self.upsampling)
    self.deformer = deformer.Deformer(levels=c["nr_ref_channels"], **shared)

  def read(self, tensors):
    params, stats = names.from_torch(tensors, self.transposed)
    return jax.tree.map(jnp.asarray, (params, stats))

  def apply(self, params, stats, image, train=False):
    """`_apply`, compiled."""
    return jax.jit(self._apply, static_argnames="train")(params, stats, image, train=train)

  def _apply(self, params, stats, image, train=False):
    """({"recon", "prior", "velocity", "field", "reversed"}, raw convolutions {"enc", "dec"})."""
    use = lambda net, *x: getattr(self, net).apply(
        {"params": params[net], "batch_stats": stats.get(net, {})}, *x, train=train)
    code, down = use("enc", image)
    prior, up = use("dec", code)
    velocity = use("deformer", deformer.pairs(down, up))
    out = deformer.deform(jnp.asarray(image), prior, velocity, self.config["bidir"])
    return {**out, "prior": prior, "velocity": velocity}, {"enc": down, "dec": up}

  def statistics(self, params, stats, image):
    """{net: running statistics} after one pass that normalises by the batch."""
    after = {}

    def use(net, *x):
      variables = {"params": params[net], "batch_stats": stats[net]}
      out, changed = getattr(self, net).apply(variables, *x, train=True, mutable=["batch_stats"])
      after[net] = changed["batch_stats"]
      return out
    code, down = use("enc", image)
    use("deformer", deformer.pairs(down, use("dec", code)[1]))
    return after

  def shapes(self, shape):
    """(params, stats) of shapes for images of NCHW `shape`."""
    def init(key):
      image = jnp.zeros((1, *shape[2:], shape[1]))
      out = {}
      out["enc"] = self.enc.init(key, image)
      (code, down) = self.enc.apply(out["enc"], image)
      out["dec"] = self.dec.init(key, code)
      _, up = self.dec.apply(out["dec"], code)
      out["deformer"] = self.deformer.init(key, deformer.pairs(down, up))
      return out
    return jax.eval_shape(init, jax.random.key(0))

  def closed_form(self, shape, gain):
    """(params, stats, {torch name: array}) of the README's formula, tensors in state-dict order."""
    made, tensors, k = self.shapes(shape), {}, 0
    for net, last in (("enc", ()), ("dec", ("last",)), ("deformer", ("flow",))):
      count = sum(name.startswith("conv") for name in made[net]["params"])
      for layer in [f"{kind}{i}" for i in range(count) for kind in ("conv", "norm")] + list(last):
        if layer not in made[net]["params"]:
          continue
        for part, dims in self._parts(made, net, layer):
          name = _torch_name(net, layer) + f".{part}"
          tensors[name] = _fill(part, dims, k, gain)
          k += 1
    params, stats = self.read(tensors)
    return params, stats, tensors

  def _parts(self, made, net, layer):
    params = made[net]["params"][layer]
    if layer.startswith("norm"):
      return [(p, params["scale"].shape) for p in ("weight", "bias", "running_mean", "running_var")]
    h, w, i, o = params["kernel"].shape
    turned = net in self.transposed and layer.startswith("conv")
    return [("weight", (i, o, h, w) if turned else (o, i, h, w)), ("bias", (o,))]


def _torch_name(net, layer):
  conv, norm, last = names._NAMES[net]
  if last and layer == last[1]:
    return last[0]
  return (conv if layer.startswith("conv") else norm) + layer[4:]


def _fill(part, shape, k, gain):
  j = np.arange(np.prod(shape), dtype=np.int64)
  u = 2 * ((7919 * j**2 + 104729 * j + 1299709 * (k + 1)) % 1000003) / 1000003 - 1
  if len(shape) > 1:
    value = u * np.sqrt(3 * gain / (np.prod(shape) / shape[0]))
  else:
    start, factor = {"weight": (1, 0.1), "running_var": (1, 0.25)}.get(part, (0, 0.1))
    value = start + factor * u
  return value.reshape(shape).astype(np.float32)


def config(c, bn_mode, epoch_steps, dtype):
  """A config of methods/morphaeus.py out of a case's "model" and "trainer"; trunk from `vgg_file`."""
  model, trainer = c["model"], c["trainer"]
  adam = {"betas": (0.9, 0.999), "eps": 1e-8, **trainer["optimizer_params"]}  # any keyword of Adam
  assert set(adam) == {"lr", "betas", "eps"}, f"config.optim of MorphAEus has no {sorted(adam)}"
  penalty = trainer["loss"]["class_name"].lower()
  alpha = trainer.get("alfa", 0)
  levels = "+".join(f"r{k}1" for k in (1, 2, 3, 4))
  return ml_collections.ConfigDict({
      "method": {"name": "morphaeus", "loss": f"{penalty} + {4 * alpha}*perceptual" if alpha else penalty,
                 "layers": levels, "score": {
                     "of": "recon", "weights_positive": (), "weights_negative": (), "image_score": "mean"},
                 "vgg_weights": "golden", "vgg_widths": (), "vgg_stats": "running", "vgg_dtype": dtype,
                 "smoothness": "gradient_l2", "window": 9, "delta": trainer.get("delta", 1),
                 "beta": float(trainer.get("beta", 3)), "beta_epochs": trainer.get("max_iter", 500),
                 "warmup_epochs": 11},
      "model": {"widths": tuple(model["channels"]), "strides": tuple(model["strides"]),
                "kernel": model["kernel_size"], "act": _ACT.get(model["act"], "swish"), "slope": 1.0,
                "norm": {"eval": "frozen", "train": "batch"}[bn_mode] if model["norm"] == "batch" else "none",
                "upsampling": "resize" if model["deconv_mode"] == "stride" else "transposed",
                "levels": model["nr_ref_channels"], "both": model["bidir"], "integration_steps": 7,
                "dtype": dtype},
      "optim": {"lr": adam["lr"], "schedule": "constant", "b1": adam["betas"][0], "b2": adam["betas"][1],
                "eps": adam["eps"], "epoch_steps": epoch_steps},
      "train": {"steps": 10**6, "accum": 1}})


def trunk(arrays):
  """The narrow VGG of a case, as models/vgg.py wants it."""
  params = {}
  for name, value in sub(arrays, "vgg/").items():
    conv, part = name.split(".")
    params.setdefault(conv, {})["kernel" if part == "weight" else "bias"] = (
        value.transpose(2, 3, 1, 0) if part == "weight" else value)
  return params


def compare_trees(got, expected, share, skip=lambda path: False):
  """Every leaf within `share` of the largest value of the expected one."""
  assert jax.tree.structure(jax.tree.map(np.asarray, got)) == jax.tree.structure(expected)
  for (path, e), g in zip(jax.tree_util.tree_flatten_with_path(expected)[0], jax.tree.leaves(got)):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if not skip(name):
      np.testing.assert_allclose(g, e, rtol=0, atol=share * np.abs(e).max(), err_msg=name)


__all__ = ["Model", "compare_trees", "config", "nhwc", "sub", "trunk"]
