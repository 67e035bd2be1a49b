"""MorphAEus: an autoencoder whose reconstruction is deformed to fit the image (chest radiographs).

Bercea, Rueckert, Schnabel, What Do AEs Learn?, MICCAI 2023 (LNCS 14224, 304-314; arXiv 2206.03698). An
encoder-decoder with a one-pixel bottleneck gives a healthy prior x_p of the image x; the deformer turns maps
of both networks into a velocity field v, integrated to phi_+ and phi_- (models/deformer.py).

  recon = x_p o phi_+,  x_r = x o phi_-
  L_rec   = MSE(x_p, x) + alpha sum_l MSE(VGG_l(x_p), VGG_l(x)),  l = r11, r21, r31, r41
  L_morph = (NCC(x, recon) + NCC(x_p, x_r)) / 2 + beta_e R(v),    beta_e = clip(beta e / E, 1e-3, beta)
  loss    = L_rec in the first `warmup_epochs` epochs e, L_rec + delta L_morph after them

NCC is 1 minus the squared local correlation, R the smoothness of v before integration. Encoder and decoder
learn from both terms; the deformer's Adam counts its moments from the first step that reaches it. The score
is the mean absolute residual |x - recon|; config.method.score.kind names others (scores/reconstruction.py).

The published code never trains BatchNorm (it is in evaluation mode throughout): `model.norm=frozen`
repeats that; its LeakyReLU has slope 1: `model.slope=1`. It runs the deformer in the first epochs, too, to
no use: with `model.norm=batch` the statistics of the deformer begin later here. Beyond it: the number of
foldings of phi_+.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from medae_jax.core import parallel
from medae_jax.core.errors import UserError
from medae_jax.core.method import BaseMethod, Need, Stage, State
from medae_jax.losses import deformation, ncc
from medae_jax.methods._perceptual import Perceptual
from medae_jax.models import conv_ae, deformer
from medae_jax.models.layers import warp
from medae_jax.optim import adam, schedules
from medae_jax.scores import reconstruction, residual as scores
from medae_jax.weights import conv_ae as names

NETS = ("enc", "dec", "deformer")
GROUPS = {"ae": ("enc", "dec"), "deformer": ("deformer",)}  # networks of each optimiser


class Method(BaseMethod):
  needs = {"image": Need("BHWC", low=0, high=1)}
  frozen = ("vgg", reconstruction.NET)

  def __init__(self, config):
    super().__init__(config)
    m, o = config.method, config.optim
    if config.train.accum > 1 and config.model.norm == "batch":
      raise UserError("config.train.accum > 1 changes the statistics of batch normalisation: use accum=1, or "
                      "model.norm=frozen or group")
    self._penalty = deformation.PENALTIES[m.smoothness]
    self.perceptual = Perceptual(m, (0,), low=0.0, high=1.0, mean=None, std=None)
    self._scores = reconstruction.Reconstruction(config, self.needs["image"])
    self.fits = self._scores.fits
    rate, warm = schedules.build(o, int(config.train.steps)), self._warm_steps()
    rates = {"ae": rate, "deformer": lambda count: rate(count + warm)}  # one rate at a time for all networks
    self._tx = {group: adam.adam(own, b1=o.b1, b2=o.b2, eps=o.eps) for group, own in rates.items()}

  # ------------------------------------------------------------------------------------ networks
  def _nets(self, channels: int):
    m = self.config.model
    shared = dict(channels=tuple(m.widths), strides=tuple(m.strides), size=m.kernel, norm=m.norm,
                  act=m.act, dtype=jnp.dtype(m.dtype))
    return {"enc": conv_ae.Encoder(**shared, slope=m.slope),
            "dec": conv_ae.Decoder(**shared, slope=m.slope, out=channels, upsampling=m.upsampling),
            "deformer": deformer.Deformer(levels=m.levels, **shared)}

  def _forward(self, params, stats, image, *, deform=True, both=False, train=False, axis_name=None):
    """({"prior"}, with `deform` {"velocity", "recon", "field"}, with `both` "reversed"; statistics after)."""
    nets, new = self._nets(image.shape[-1]), dict(stats)

    def use(net, x):
      out, changed = nets[net].apply({"params": params[net], "batch_stats": stats.get(net, {})}, x, train,
                                     axis_name, mutable=["batch_stats"])
      if changed.get("batch_stats"):
        new[net] = changed["batch_stats"]
      return out
    code, down = use("enc", image)
    prior, up = use("dec", code)
    if not deform:
      return {"prior": prior}, new
    velocity = use("deformer", deformer.pairs(down, up))
    return {"prior": prior, "velocity": velocity,
            **deformer.deform(image, prior, velocity, both, self.config.model.integration_steps)}, new

  def init(self, rng, batch):
    image = jnp.asarray(batch["image"][:1])
    nets, keys = self._nets(image.shape[-1]), dict(zip(NETS, jax.random.split(rng, len(NETS))))
    made = {"enc": nets["enc"].init(keys["enc"], image)}
    code, down = nets["enc"].apply(made["enc"], image)
    made["dec"] = nets["dec"].init(keys["dec"], code)
    _, up = nets["dec"].apply(made["dec"], code)
    made["deformer"] = nets["deformer"].init(keys["deformer"], deformer.pairs(down, up))
    params = {net: v["params"] for net, v in made.items()}
    stats = {net: v["batch_stats"] for net, v in made.items() if "batch_stats" in v}
    opt = {name: self._tx[name].init({n: params[n] for n in group}) for name, group in GROUPS.items()}
    return State.create({**params, **self.perceptual.init_params(), **self._scores.init_params()}, stats, opt)

  def pretrained(self):
    return {**self.perceptual.pretrained(), **self._scores.pretrained()}

  # ------------------------------------------------------------------------------------ training
  def stages(self):
    """The prior alone, then all; together config.train.steps."""
    warm = self._warm_steps()
    stages = (Stage("prior", warm), Stage("deform", int(self.config.train.steps) - warm))
    return tuple(s for s in stages if s.steps)

  def _warm_steps(self) -> int:
    """Steps in which the prior learns alone."""
    warm = int(self.config.method.warmup_epochs) * int(self.config.optim.epoch_steps)
    return min(int(self.config.train.steps), warm)

  def beta(self, step):
    """Weight of the smoothness in the epoch of `step`, float []."""
    m = self.config.method
    epoch = jnp.asarray(step) // max(int(self.config.optim.epoch_steps), 1)
    low = min(1e-3, m.beta)
    return jnp.clip(m.beta * epoch.astype(jnp.result_type(float)) / m.beta_epochs, low, m.beta)

  def losses(self, state, params, image, *, deform, train=False, axis_name=None):
    """({name: [B]} of the terms and "loss", statistics after the pass)."""
    out, stats = self._forward(params, state.stats, image, deform=deform, both=self.config.model.both,
                               train=train, axis_name=axis_name)
    terms = {"rec": self.perceptual.losses(state.params, state.stats, image, out["prior"], res=0)}
    terms["loss"] = terms["rec"]
    if deform:
      m = self.config.method
      terms["ncc"] = ncc.ncc_loss(image, out["recon"], m.window)
      fit = terms["ncc"]
      if self.config.model.both:
        terms["ncc_reversed"] = ncc.ncc_loss(out["prior"], out["reversed"], m.window)
        fit = (fit + terms["ncc_reversed"]) / 2
      terms["smoothness"] = self._penalty(out["velocity"])
      beta = self.beta(state.step).astype(fit.dtype)
      terms["loss"] = terms["rec"] + m.delta * (fit + beta * terms["smoothness"])
    return terms, stats

  def train_step(self, state, batch, rng, *, stage, axis_name):
    deform = stage.name == "deform"
    groups = ("ae", "deformer") if deform else ("ae",)
    trained = {n: state.params[n] for group in groups for n in GROUPS[group]}

    def loss_fn(nets, part, _):
      terms, stats = self.losses(state, {**state.params, **nets}, part["image"], deform=deform, train=True,
                                 axis_name=axis_name)
      means = {name: value.mean() for name, value in terms.items()}
      return means.pop("loss"), (means, stats if self.config.model.norm == "batch" else {})
    (loss, (terms, stats)), grads = parallel.value_and_grad(
        loss_fn, trained, {"image": batch["image"]}, rng, accum=self.config.train.accum, axis_name=axis_name)
    params, opt = dict(state.params), dict(state.opt)
    for group in groups:
      own = {n: trained[n] for n in GROUPS[group]}
      updates, opt[group] = self._tx[group].update({n: grads[n] for n in own}, opt[group], own)
      params.update(optax.apply_updates(own, updates))
    metrics = {"loss": loss, **terms, "grad_norm": adam.global_norm(grads)}
    return state.replace(step=state.step + 1, params=params, stats=stats or state.stats, opt=opt), metrics

  def eval_step(self, state, batch, rng):
    """Mean of both squared errors, of the prior and of its deformed form: what chooses the checkpoint."""
    del rng
    image = batch["image"]
    out, _ = self._forward(state.params, state.stats, image)
    error = lambda x: ((x - image) ** 2).mean((1, 2, 3))
    prior, recon = error(out["prior"]), error(out["recon"])
    return {"loss": (prior + recon) / 2, "mse_prior": prior, "mse": recon}

  # -------------------------------------------------------------------------------------- scores
  def _recon(self, out):
    return out["prior"] if self.config.method.score.of == "prior" else out["recon"]

  def finalize(self, state, batches):
    recon_of = lambda s, b: self._recon(self._forward(s.params, s.stats, b["image"])[0])
    return self._scores.finalize(state, batches, recon_of)

  def score(self, state, batch):
    """{"recon" [B,H,W,C], "map" [B,H,W,1], "score" [B], "folded" [B]: share of pixels where phi_+ folds}."""
    image, s = batch["image"], self.config.method.score
    out, _ = self._forward(state.params, state.stats, image)
    recon = self._recon(out)
    anomaly = scores.residual_map(image - recon, weights_positive=s.weights_positive,
                                  weights_negative=s.weights_negative)
    found = {"recon": recon, "map": anomaly, "score": scores.image_score(anomaly, s.image_score),
             "folded": (warp.jacobian_determinant(out["field"]) <= 0).mean((1, 2))}
    return self._scores.outputs(state, image, found)

  def pictures(self, state, batch, rng):
    """{"prior", "recon", "field", "jacobian"}: the prior, its deformed form, a grid that phi_+ moves, and the
    determinant of its Jacobian (models/deformer.py: shown_jacobian)."""
    del rng
    image = batch["image"]
    out, _ = self._forward(state.params, state.stats, image)
    return {"prior": jnp.clip(out["prior"], 0, 1), "recon": jnp.clip(out["recon"], 0, 1),
            "field": deformer.moved_grid(out["field"]), "jacobian": deformer.shown_jacobian(out["field"])}

  def inference_state(self, state):
    nets, fitted = self._scores.inference(state)
    return state.replace(params={**{n: state.params[n] for n in NETS}, **nets}, extra=fitted,
                         stats={n: state.stats[n] for n in NETS if n in state.stats}, opt={})

  def from_torch(self, tensors):
    """(params, stats) of a state dict of the public code.

    The VGG of the training loss is taken from config.method.vgg_weights; without that it is 0, as scoring
    does not ask for it.
    """
    turned = ("dec", "deformer") if self.config.model.upsampling == "transposed" else ("deformer",)
    params, stats = names.from_torch(tensors, turned)
    if self.config.method.vgg_weights:
      params |= self.pretrained()
    else:
      params |= {**self.perceptual.init_params(), **self._scores.pretrained()}
    return params, stats if self.config.model.norm in ("batch", "frozen") else {}

  def torch_fields(self, tensors):
    """Widths and kernel of the encoder, levels of the deformer."""
    weights, i = [], 0
    while f"encoder.conv__encode_{i}.weight" in tensors:
      weights.append(tensors[f"encoder.conv__encode_{i}.weight"])
      i += 1
    if not weights:
      return {}
    return {"model.widths": tuple(int(w.shape[0]) for w in weights), "model.strides": (2,) * len(weights),
            "model.levels": sum(n.startswith("deformer.deformerNN.ref__refine_") and n.endswith(".weight")
                                for n in tensors),
            "model.kernel": int(weights[0].shape[-1]), "data.channels": int(weights[0].shape[1]),
            "data.image_size": 2 ** len(weights)}
