"""PIAD: encoder, generator and two critics; loss weights from gradient norms; perceptual score.

Tuluptceva et al., Perceptual Image Anomaly Detection, ACPR 2019 (arXiv 1909.05904). With encoder E,
generator G, image critic D_x, latent critic D_z and the prior z ~ N(0, I):

  D_x, D_z   n_critic times: Adam on the critic loss of (x, G(z)) and of (z, E(x)), default WGAN-GP
             -(E D(real) - E D(fake)) + 0.001 (E D(real)^2 + E D(fake)^2) + 10 E (|grad D| - 1)^2
  E          grad L_adv(E) + gamma_E grad L_rec,  L_adv(E) = -E D_z(E(x))
  G          grad L_adv(G) + gamma_G grad L_rec,  L_adv(G) = -E D_x(G(z))
  L_rec      relative perceptual L1 between x and G(E(x)), the anomaly score of an image

with gamma from medae_jax/methods/_gradient_norms.py. One call of `train_step` is a whole iteration: it reads
(n_critic + 1) batches of `config.train.batch_size` images, one for each critic step and one for E, G.

Two variants under one schema, chosen by `config.model.variant`: "2021" (the baseline of the DPA
paper, arXiv 2006.13265) and "2019" (the networks behind the PIAD paper's own tables). The other
differences are fields: method.policy.measure (norm / std), optim.lr (2e-4 / 1e-4),
optim.weight_decay (0 / 1e-8).

Deviations: policy and optimisers are in the checkpoint (the reference loses them on resume);
`method.ema` > 0 scores with an average of E and G over iterations (the reference uses the last
one); pixel maps. A critic with minibatch standard deviation (2019) sees the batch of all devices,
but with train.accum > 1 each slice by itself.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from medae_jax.core import method as method_lib, parallel
from medae_jax.core.device import loops
from medae_jax.core.errors import UserError
from medae_jax.core.method import BaseMethod, Need, Stage, State
from medae_jax.methods import _critics, _gradient_norms as gradient_norms
from medae_jax.methods._perceptual import Perceptual
from medae_jax.models import piad_nets
from medae_jax.optim import adam, schedules
from medae_jax.scores import reconstruction
from medae_jax.weights import piad as piad_weights

NETS = piad_nets.NETS
TORCH_NAMES = {"2021": dict(zip(NETS, ("enc", "dec", "ddis", "edis"))),
               "2019": dict(zip(NETS, ("enc", "gen", "image_dis", "latent_dis")))}
VARIANTS = ("2021", "2019")


class Method(BaseMethod):
  """See the module's docstring."""

  needs = {"image": Need("BHWC", low=-1, high=1)}
  frozen = ("vgg", reconstruction.NET)  # shared by runs that are trained together

  def __init__(self, config):
    super().__init__(config)
    m, method = config.model, config.method
    if m.variant not in VARIANTS:
      raise UserError(f"config.model.variant={m.variant!r}: use {' or '.join(VARIANTS)}")
    _check_policy(method)
    self.critics = {side: _critics.AdversarialLoss.of(method[f"adv_{side}"],
                                                      f"config.method.adv_{side}")
                    for side in ("image", "latent")}
    self.perceptual = Perceptual(method, (m.res,))
    self._scores = reconstruction.Reconstruction(config, self.needs["image"], plain=False)
    self.fits = self._scores.fits
    self.nets = piad_nets.build(m)
    self.n_critic = int(method.n_critic)
    if self.n_critic < 1:
      raise UserError(f"config.method.n_critic={self.n_critic}: at least one critic step is needed")
    if not 0 <= method.ema < 1:
      raise UserError(f"config.method.ema={method.ema}: use 0 (off) or a decay such as 0.999")
    o, total = config.optim, int(config.train.steps)
    decay = dict(b1=o.b1, b2=o.b2, weight_decay=o.weight_decay)
    self.tx = {"enc_dec": adam.adam(schedules.build(o, total), **decay),
               "critic_image": adam.adam(o.lr_critic_image, **decay),
               "critic_latent": adam.adam(o.lr_critic_latent, **decay)}

  def stages(self):
    """One stage; a step reads n_critic + 1 batches."""
    size = int(self.config.train.batch_size) * (self.n_critic + 1)
    return (Stage("main", int(self.config.train.steps), {"batch_size": size}),)

  def pretrained(self):
    return {**self.perceptual.pretrained(), **self._scores.pretrained()}

  def init(self, rng, batch):
    m = self.config.model
    if tuple(batch["image"].shape[1:]) != (m.res, m.res, m.channels):
      raise UserError(f"images are {tuple(batch['image'].shape[1:])}, config.model says "
                       f"({m.res}, {m.res}, {m.channels}); change model.res and model.channels or "
                       "config.data")
    image = jnp.zeros((1, m.res, m.res, m.channels))
    latent = jnp.zeros((1, m.latent_res, m.latent_res, m.latent_dim))
    inputs = {"enc": image, "dec": latent, "critic_image": image, "critic_latent": latent}
    params = {net: self.nets[net].init(jax.random.fold_in(rng, i), inputs[net])["params"]
              for i, net in enumerate(NETS)}
    frozen = {**self.perceptual.init_params(), **self._scores.init_params()}
    history = int(self.config.method.policy.history)
    stats = {"policy": {net: gradient_norms.init(params[net], history) for net in ("enc", "dec")},
             **self.perceptual.init_stats(m.res, self.perceptual.widths(frozen))}
    if self.config.method.ema:
      stats["ema"] = jax.tree.map(jnp.copy, {net: params[net] for net in ("enc", "dec")})
    opt = {name: tx.init(_of(params, name)) for name, tx in self.tx.items()}
    return State.create({**params, **frozen}, stats, opt)

  # ------------------------------------------------------------------------------- one iteration
  def train_step(self, state, batch, rng, *, stage, axis_name):
    return self.iterate(state, self.draw(batch, rng), axis_name)

  def draw(self, batch, rng) -> dict[str, jax.Array]:
    """What an iteration consumes: images, latents and mixing coefficients of every sub-batch.

    Returns:
      {"image" [K,B,R,R,C], "z" [K,B,r,r,d], "mix_image" [K-1,B], "mix_latent" [K-1,B],
      "index" [K,B]}, K = n_critic + 1; the last sub-batch is that of E and G.
    """
    kept = {k: v for k, v in batch.items() if k in ("image", "index") or k.startswith("feature/")}
    parts = _critics.sub_batches(kept, self.n_critic + 1)
    parts = jax.tree.map(lambda *x: jnp.stack(x), *parts)
    m = self.config.model
    keys = jax.vmap(lambda index: method_lib.example_keys(rng, index))(parts["index"])
    each = lambda salt, draw: jax.vmap(jax.vmap(lambda k: draw(jax.random.fold_in(k, salt))))(keys)
    shape = (m.latent_res, m.latent_res, m.latent_dim)
    return {**parts, "z": each(0, lambda k: jax.random.normal(k, shape)),
            "mix_image": each(1, jax.random.uniform)[:-1],
            "mix_latent": each(2, jax.random.uniform)[:-1]}

  def iterate(self, state: State, draws, axis_name=None):
    """One iteration on given draws (see `draw`)."""
    t = state.step + 1  # the reference counts iterations from 1
    critic = lambda s, d: self._critic_step(s, d, axis_name)
    critic_draws = {k: v[:self.n_critic] for k, v in draws.items()}
    state, parts = loops.scan(critic, state, critic_draws)
    last = {k: v[-1] for k, v in draws.items() if not k.startswith("mix")}
    grads, stats, losses = self._grads(state, last, axis_name)
    policy = self._policy(stats["policy"], grads, t)
    weights = {net: policy[net]["weight"] for net in policy}
    total = {net: jax.tree.map(lambda a, r, w=weights[net]: a + w * r, grads["adv"][net],
                               grads["rec"][net]) for net in ("enc", "dec")}
    old = _of(state.params, "enc_dec")
    updates, enc_dec = self.tx["enc_dec"].update(total, state.opt["enc_dec"], old)
    params = {**state.params, **optax.apply_updates(old, updates)}
    opt = {**state.opt, "enc_dec": enc_dec}
    stats = {**stats, "policy": policy}
    if "ema" in stats:
      decay = jnp.minimum(self.config.method.ema, (1 + t) / (10 + t))
      stats["ema"] = optax.incremental_update(_of(params, "enc_dec"), stats["ema"], 1 - decay)
    metrics = {**losses, **jax.tree.map(lambda x: x[-1], parts),
               "weight_enc": weights["enc"], "weight_dec": weights["dec"]}
    if self.config.method.loss_limit:  # the reference gives up here; the loop stops at infinity
      worst = jnp.stack([jnp.abs(v) for v in losses.values()]).max()
      metrics["loss"] = jnp.where(worst > self.config.method.loss_limit, jnp.inf, metrics["loss"])
    return state.replace(step=t, params=params, opt=opt, stats=stats), metrics

  def _critic_step(self, state, draws, axis_name):
    """Adam on D_x with (x, G(z)), then on D_z with (z, E(x)); E and G stand still meanwhile."""
    fakes = {"image": self._apply("dec", state.params, draws["z"]),
             "latent": self._apply("enc", state.params, draws["image"])}
    metrics = {}
    for side, real in (("image", "image"), ("latent", "z")):
      net = f"critic_{side}"
      batch = {"real": draws[real], "fake": fakes[side], "mix": draws[f"mix_{side}"]}
      params, opt, loss, parts = self.critics[side].update(
          self.tx[net], lambda p, x, net=net: self._apply(net, {net: p}, x, axis_name),
          state.params[net], state.opt[net], batch, accum=self.config.train.accum,
          axis_name=axis_name)
      state = state.replace(params={**state.params, net: params}, opt={**state.opt, net: opt})
      metrics[net] = loss
      metrics.update({f"{net}_{k}": v for k, v in parts.items()})
    return state, metrics

  def _grads(self, state, draws, axis_name):
    """({"adv", "rec"} gradients of E and G, stats with VGG averages, the three losses)."""
    res = self.config.model.res
    real = self.perceptual.cached(draws, draws["image"]) or self.perceptual.real(
        state.params, draws["image"], res, jnp.dtype(self.config.method.vgg_dtype))
    stats = self.perceptual.update_stats(state.stats, real, res, axis_name)
    batch = {**draws, "real": real}

    def rec_fn(nets, part, rng):
      del rng
      recon = self._apply("dec", nets, self._apply("enc", nets, part["image"]))
      loss = self.perceptual.losses(state.params, stats, part["image"], recon, res=res,
                                    real=part["real"]).mean()
      return loss, {}

    def adv_fn(nets, part, rng):
      del rng
      fake = {"image": self._apply("dec", nets, part["z"]),
              "latent": self._apply("enc", nets, part["image"])}
      # Each loss reaches one network: D_x only sees G(z), D_z only E(x).
      losses = {f"adv_{side}": self.critics[side].generator(self._apply(
          f"critic_{side}", state.params, fake[side], axis_name)) for side in fake}
      return losses["adv_image"] + losses["adv_latent"], losses
    nets = {net: state.params[net] for net in ("enc", "dec")}
    options = dict(accum=self.config.train.accum, axis_name=axis_name)
    (rec, _), rec_grads = parallel.value_and_grad(rec_fn, nets, batch, None, **options)
    (_, adv), adv_grads = parallel.value_and_grad(adv_fn, nets, batch, None, **options)
    return {"adv": adv_grads, "rec": rec_grads}, stats, {"loss": rec, **adv}

  def _policy(self, policy, grads, t):
    """The loss weights, refreshed every `policy.every` iterations before the update."""
    c = self.config.method.policy
    if c.name == "fixed":
      fixed = {"enc": c.weight_enc, "dec": c.weight_dec}
      return {net: {**p, "weight": jnp.asarray(fixed[net], p["weight"].dtype)}
              for net, p in policy.items()}

    def refreshed(policy):
      return {net: gradient_norms.refresh(
          policy[net], gradient_norms.measure(grads["adv"][net], c.measure),
          gradient_norms.measure(grads["rec"][net], c.measure), smooth=c.smooth, average=c.average)
              for net in policy}
    return jax.lax.cond(t % c.every == 0, refreshed, lambda p: p, policy)

  def _apply(self, net, params, x, axis_name=None):
    """One network; the critic of 2019 needs the axis for its batch statistic."""
    options = {"axis_name": axis_name} if net == "critic_image" else {}
    return self.nets[net].apply({"params": params[net]}, x, **options)

  def cache(self, state, arrays, stage):
    """Device-resident `arrays` with the features of the images, where config asks for them."""
    del stage
    if not self.config.method.cache_features:
      return arrays
    return self.perceptual.cache(state.params, arrays, res=self.config.model.res)

  # -------------------------------------------------------------------------- validation, scores
  def _reconstruct(self, state, image):
    nets = state.stats["ema"] if self.config.method.ema else state.params
    return self._apply("dec", nets, self._apply("enc", nets, image))

  def eval_step(self, state, batch, rng):
    """Reconstruction loss per example."""
    del rng
    recon = self._reconstruct(state, batch["image"])
    return {"loss": self.perceptual.losses(state.params, state.stats, batch["image"], recon,
                                           res=self.config.model.res)}

  def score(self, state, batch) -> dict[str, Any]:
    """Score loss of each image, its map over the pixels, and the reconstruction."""
    image, res = batch["image"], self.config.model.res
    recon = self._reconstruct(state, image)
    return self._scores.outputs(state, image, {
        "recon": recon, "map": self.perceptual.map(state.params, state.stats, image, recon, res=res),
        "score": self.perceptual.losses(state.params, state.stats, image, recon, res=res, score=True)})

  def finalize(self, state, batches):
    return self._scores.finalize(state, batches, lambda s, b: self._reconstruct(s, b["image"]))

  def inference_state(self, state):
    """Encoder and generator (with `method.ema` their averages) and what the score reads of VGG19."""
    nets, stats = {net: state.params[net] for net in ("enc", "dec")}, {}
    if self.config.method.ema:
      nets, stats = {}, {"ema": state.stats["ema"]}
    frozen, moments = self.perceptual.inference(state.params, state.stats, (self.config.model.res,))
    trunk, fitted = self._scores.inference(state)
    return state.replace(params={**nets, **frozen, **trunk}, stats={**stats, **moments}, extra=fitted, opt={})

  # ------------------------------------------------------------------------ published checkpoints
  def from_torch(self, tensors):
    """(params, stats) out of a file of the public codes: `enc.*`, `dec.*` (2019: `gen.*`), critics.

    Critics that a scoring model leaves out start fresh. VGG19 is taken from
    config.method.vgg_weights, never from such a file.
    """
    m = self.config.model
    image = {"image": jnp.zeros((1, m.res, m.res, m.channels))}
    fresh = method_lib.fresh_state(self, jax.random.key(self.config.seed), image)
    params = {k: v for k, v in fresh.params.items() if k not in ("enc", "dec")}
    for net, torch_name in TORCH_NAMES[m.variant].items():
      own = {k.removeprefix(f"{torch_name}."): tensors[k] for k in tensors
             if k.startswith(f"{torch_name}.")}
      if own:
        params[net] = piad_weights.convert(own, net, m.variant)
    return params, fresh.stats


def _of(params, name):
  """The parameters that the optimiser `name` changes."""
  return {net: params[net] for net in ("enc", "dec")} if name == "enc_dec" else params[name]


def _check_policy(method):
  c = method.policy
  if c.name not in ("gradient_norms", "fixed"):
    raise UserError(f"config.method.policy.name={c.name!r}: use gradient_norms or fixed")
  if c.measure not in gradient_norms.MEASURES or c.average not in gradient_norms.AVERAGES:
    raise UserError(f"config.method.policy: measure={c.measure!r} must be one of "
                    f"{gradient_norms.MEASURES}, average={c.average!r} one of "
                    f"{gradient_norms.AVERAGES}")
  if c.every < 1 or c.history < 1:
    raise UserError("config.method.policy: every and history must be at least 1")
