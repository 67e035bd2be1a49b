"""Deep perceptual autoencoder (Shvetsova et al., IEEE Access 2021, arXiv 2006.13265).

A small convolutional autoencoder, trained on normal images alone. There is no pixel loss: the loss
is a relative L1 distance between VGG19 features of the image x and its reconstruction y,
  L(x, y) = sum_k w_k |f~_k(x) - f~_k(y)|_1 / |f~_k(x)|_1,   f~ = (f - mu) / sigma per channel,
and the same quantity of a test image is its anomaly score. With progressive growing resolution and VGG
depth rise together: stages (stable, r0), (transition, 2 r0), (stable, 2 r0) ... (stable, max_res). In a
transition alpha = (iterations done + 1) / N blends images, networks and losses; it is a traced number: a
stage compiles once. Each stage starts a fresh Adam over its own networks.

Ablations: L1, L2, sums of losses (config.method.loss), an adversarial term with `n_critic` critic steps
before each update (config.method.adversarial), where one global batch carries the examples of all
n_critic + 1 steps (_critics.sub_batches).

Deviations from the public code, on purpose: integer schedules (method.parity restores N or N+1 iterations of
the last stage); saved optimisers; a score apart from the training loss; validation on every image; maps of
pixels; no `use_mbstddev` in encoders (in no published run: a score would depend on its neighbours); states of
earlier stages score, too: the image is brought to the stage's resolution and the map back to the image's.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from medae_jax.core import method as method_lib, parallel
from medae_jax.core.errors import UserError
from medae_jax.core.method import BaseMethod, Need, State
from medae_jax.methods import _critics, _growing
from medae_jax.methods._growing import stage_of
from medae_jax.methods._perceptual import Perceptual
from medae_jax.models import dpa_family
from medae_jax.models.layers import resample
from medae_jax.optim import adam
from medae_jax.scores import reconstruction
from medae_jax.weights import dpa

DIVERGED = 1e6  # the public code stops above this loss


class Method(BaseMethod):
  needs = {"image": Need("BHWC", low=-1, high=1)}
  frozen = ("vgg", reconstruction.NET)  # one copy for all models that are trained side by side

  def __init__(self, config):
    super().__init__(config)
    self.adversarial = config.method.adversarial.weight > 0
    self._resolutions = _growing.resolutions(config.method.growing, config.model.max_res)
    dpa_family.check_model(config.model, first_res=self._resolutions[0], critic=self.adversarial)
    if self.adversarial:
      self._adversarial = _critics.AdversarialLoss.of(config.method.adversarial, "config.method.adversarial")
    if config.model.norm == "bn" and config.train.accum > 1:
      raise UserError("config.train.accum > 1 changes the statistics of batch normalisation; use accum=1, or "
                      "config.model.norm=none")
    self.perceptual = Perceptual(config.method, self._resolutions)
    self._scores = reconstruction.Reconstruction(config, self.needs["image"], plain=False)
    self.fits = self._scores.fits
    o = config.optim
    self._tx = {"ae": self._adam(o.lr), "critic": self._adam(o.lr_critic or o.lr)}

  def _adam(self, lr):
    o = self.config.optim
    return adam.adam(lr, b1=o.b1, b2=o.b2, eps=o.eps, weight_decay=o.weight_decay, clip=o.clip or None)

  # ---------------------------------------------------------------------------------------- stages
  def stages(self):
    """Stable and transition stages; a batch holds the examples of the critic's steps as well."""
    groups = 1 + (self.config.method.adversarial.n_critic if self.adversarial else 0)
    return _growing.stages(self.config, groups=groups)

  def _nets(self, channels, res, transition):
    """{net: module} of a stage."""
    return dpa_family.build(self.config.model, channels, res, transition, critic=self.adversarial)

  # ------------------------------------------------------------------------------ init and growing
  def pretrained(self):
    return {**self.perceptual.pretrained(), **self._scores.pretrained()}

  def init(self, rng, batch):
    first = method_lib.stages_of(self)[0]
    params, stats = self._fresh(rng, batch["image"].shape, first.name)
    params = {**params, **self.perceptual.init_params(), **self._scores.init_params()}
    stats.update(self._vgg_stats(params, self._resolutions[0]))
    return State.create(params, stats, self._fresh_opt(params))

  def grow(self, state, stage, rng, batch):
    """Keeps the blocks whose names stay, adds the new ones, and starts fresh optimisers."""
    keep = lambda new, old: {k: old.get(k, v) for k, v in new.items()}
    made, made_stats = self._fresh(rng, batch["image"].shape, stage.name)
    params = {**state.params, **{n: keep(p, state.params[n]) for n, p in made.items()}}
    stats = {**state.stats, **{n: keep(s, state.stats.get(n, {})) for n, s in made_stats.items()}}
    res = stage_of(params["enc"])[0]
    if f"vgg_{res}" not in stats:
      stats.update(self._vgg_stats(params, res))
    return state.replace(params=params, stats=stats, opt=self._fresh_opt(params))

  def _fresh(self, rng, shape, name):
    """(params, batch statistics) of a stage's networks; initial values depend on names alone."""
    m = self.config.model
    if shape[1] != m.max_res or shape[2] != m.max_res:
      raise UserError(f"images are {shape[1]}x{shape[2]}, config.model.max_res={m.max_res}: make both "
                      "one (config.data.image_size, or crop_size)")
    kind, res = name.split("_")
    res, params, stats = int(res), {}, {}
    for i, (net, module) in enumerate(self._nets(shape[3], res, kind == "transition").items()):
      size = (1, res, res, shape[3])
      if net == "dec":
        size = (1, m.latent_res, m.latent_res, m.latent_dim)
      made = module.init(jax.random.fold_in(rng, i), jnp.zeros(size))
      params[net] = made["params"]
      if "batch_stats" in made:
        stats[net] = made["batch_stats"]
    return params, stats

  def _vgg_stats(self, params, res):
    return self.perceptual.init_stats(res, self.perceptual.widths(params))

  def _fresh_opt(self, params):
    opt = {"ae": self._tx["ae"].init({n: params[n] for n in ("enc", "dec")})}
    if self.adversarial:
      opt["critic"] = self._tx["critic"].init(params["critic"])
    return opt

  # -------------------------------------------------------------------------------------- the step
  def _reconstruct(self, params, stats, image, alpha, *, train=False, axis_name=None):
    """(recon, updated batch statistics {net: ...}) of images at the stage's resolution."""
    res, transition = stage_of(params["enc"])
    nets = self._nets(image.shape[-1], res, transition)
    x, after = image, {}
    for net in ("enc", "dec"):
      variables = {"params": params[net], **({"batch_stats": stats[net]} if net in stats else {})}
      x, new = nets[net].apply(variables, x, alpha, train=train, axis_name=axis_name, mutable=["batch_stats"])
      if net in stats:
        after[net] = new["batch_stats"] if "batch_stats" in new else stats[net]
    return x, after

  def _critic(self, params, channels, alpha):
    """image -> score with the critic's `params` bound."""
    net = self._nets(channels, *stage_of(params))["critic"]
    return lambda image: net.apply({"params": params}, image, alpha)

  def _stage_image(self, params, image, alpha):
    """The image at the stage's resolution, blended in transitions."""
    res, transition = stage_of(params["enc"])
    return resample.mix_resolution(image, res, transition=transition, alpha=alpha,
                                     antialias=self.config.method.growing.antialias)

  def train_step(self, state, batch, rng, *, stage, axis_name):
    alpha = jnp.minimum((state.step - stage.begin + 1) / stage.steps, 1.0)
    metrics = {}
    if self.adversarial:
      groups = _critics.sub_batches(batch, 1 + self.config.method.adversarial.n_critic)
      for group in groups[:-1]:
        state, metrics = self._critic_step(state, group, rng, alpha, axis_name)
      batch = groups[-1]
    state, more = self._autoencoder_step(state, batch, rng, alpha, axis_name)
    if stage_of(state.params["enc"])[1]:
      more["alpha"] = alpha
    return state.replace(step=state.step + 1), {**metrics, **more}

  def _critic_step(self, state, batch, rng, alpha, axis_name):
    real = self._stage_image(state.params, batch["image"], alpha)
    fake, after = self._reconstruct(state.params, state.stats, real, alpha, train=True,
                                    axis_name=axis_name)
    mix = batch["mix"] if "mix" in batch else jax.vmap(jax.random.uniform)(
        method_lib.example_keys(rng, batch["index"]))
    params, opt, total, parts = self._adversarial.update(
        self._tx["critic"], lambda p, x: self._critic(p, x.shape[-1], alpha)(x),
        state.params["critic"], state.opt["critic"], {"real": real, "fake": fake, "mix": mix},
        axis_name=axis_name)
    state = state.replace(params={**state.params, "critic": params}, stats={**state.stats, **after},
                          opt={**state.opt, "critic": opt})
    return state, {"critic_loss": total, **{f"critic_{k}": v for k, v in parts.items()}}

  def _autoencoder_step(self, state, batch, rng, alpha, axis_name):
    res, _ = stage_of(state.params["enc"])
    dtype = jnp.dtype(self.config.method.vgg_dtype)
    image = self._stage_image(state.params, batch["image"], alpha)
    # Features of the real image do not depend on the networks: outside the differentiated function.
    real = self.perceptual.cached(batch, image) or self.perceptual.real(state.params, image, res, dtype)
    stats = self.perceptual.update_stats(state.stats, real, res, axis_name)

    def loss_fn(nets, b, _):
      params = {**state.params, **nets}
      recon, after = self._reconstruct(params, stats, b["image"], alpha, train=True, axis_name=axis_name)
      each = self._losses(params, stats, b["image"], recon, alpha, real=b["real"])
      parts = {"rec_loss": each.mean()}
      loss = parts["rec_loss"]
      if self.adversarial:
        scores = self._critic(state.params["critic"], recon.shape[-1], alpha)(recon)
        parts["adv_loss"] = self._adversarial.generator(scores)
        loss += self.config.method.adversarial.weight * parts["adv_loss"]
      return loss, (parts, after)

    nets = {n: state.params[n] for n in ("enc", "dec")}
    (loss, (parts, after)), grads = parallel.value_and_grad(
        loss_fn, nets, {"image": image, "real": real}, rng, accum=self.config.train.accum,
        axis_name=axis_name)
    updates, opt = self._tx["ae"].update(grads, state.opt["ae"], nets)
    nets = optax.apply_updates(nets, updates)
    state = state.replace(params={**state.params, **nets}, opt={**state.opt, "ae": opt},
                          stats={**stats, **after})
    # Infinity makes the loop stop where the public code does.
    loss = jnp.where(loss > DIVERGED, jnp.inf, loss)
    return state, {"loss": loss, **parts, "grad_norm": adam.global_norm(grads)}

  def _losses(self, params, stats, image, recon, alpha, *, real=None, score=False):
    """Training or score loss of each image [B] in the stage of `params`; transitions may blend."""
    res, transition = stage_of(params["enc"])
    if transition and self.config.method.smooth_pg:
      terms, dtype = self.perceptual.of(score, image)
      trunks = (self.perceptual.trunk(params, stats, r, dtype) for r in (res, res // 2))
      return _growing.blended_loss(terms, *trunks, image, recon, res=res, alpha=alpha, real=real or None)
    return self.perceptual.losses(params, stats, image, recon, res=res, real=real, score=score)

  def cache(self, state, arrays, stage):
    """`arrays` with VGG19 features, if config asks for them; a transition's images change with alpha."""
    res, transition = stage_of(state.params["enc"])
    if not self.config.method.cache_features or transition or res != self.config.model.max_res:
      return arrays
    return self.perceptual.cache(state.params, arrays, res=res)

  # ------------------------------------------------------------------------- validation and scores
  def eval_step(self, state, batch, rng):
    """Training loss of each image, reconstruction and generator part, in evaluation mode."""
    recon, image, alpha = self._recon(state, batch["image"])
    out = {"loss": self._losses(state.params, state.stats, image, recon, alpha)}
    if self.adversarial:
      scores = self._critic(state.params["critic"], recon.shape[-1], alpha)(recon)
      adv = jax.vmap(lambda s: self._adversarial.generator(s[None]))(scores)
      total = out["loss"] + self.config.method.adversarial.weight * adv
      out = {"loss": total, "rec_loss": out["loss"], "adv_loss": adv}
    return out

  def _recon(self, state, image):
    """(recon, image, alpha), both images at the resolution of the state's stage."""
    alpha = self.alpha(state)
    image = self._stage_image(state.params, image, alpha)
    return self._reconstruct(state.params, state.stats, image, alpha)[0], image, alpha

  def alpha(self, state):
    """How far the state's stage, read off the names of its parameters, is faded in: 0 to 1."""
    res, transition = stage_of(state.params["enc"])
    if not transition:
      return 1.0
    stage = next(s for s in method_lib.stages_of(self) if s.name == f"transition_{res}")
    return jnp.clip((state.step - stage.begin) / stage.steps, 0.0, 1.0)

  def score(self, state, batch):
    """{"recon" [B,H,W,C], "map" [B,H,W,1], "score" [B]} with the loss of config.method.score.

    The reconstruction is the decoder's linear output: it need not look like an image.
    """
    return self._scores.outputs(state, batch["image"], self._published(state, batch))

  def _published(self, state, batch):
    full = batch["image"]
    recon, image, alpha = self._recon(state, full)
    res, _ = stage_of(state.params["enc"])
    score = self._losses(state.params, state.stats, image, recon, alpha, score=True)
    anomaly = self.perceptual.map(state.params, state.stats, image, recon, res=res)
    if res != full.shape[1]:
      anomaly = jax.image.resize(anomaly, (*full.shape[:3], 1), "bilinear")
      recon = jax.image.resize(recon, full.shape, "bilinear")
    return {"recon": recon, "map": anomaly, "score": score}

  def finalize(self, state, batches):
    return self._scores.finalize(state, batches, lambda s, b: self._recon(s, b["image"])[0])

  def pictures(self, state, batch, rng):
    """Input, reconstruction and map of the state's stage at full size, for pictures: in [0,1]."""
    out = self._published(state, batch)
    shown = {"image": 0.5 * batch["image"] + 0.5, "recon": 0.5 * out["recon"] + 0.5, "map": out["map"] / 2}
    return {name: jnp.clip(value, 0, 1) for name, value in shown.items()}

  def inference_state(self, state):
    """Encoder, decoder and what the score loss reads of VGG19; neither critic nor optimisers."""
    res, transition = stage_of(state.params["enc"])
    resolutions = (res, res // 2) if transition and self.config.method.smooth_pg else (res,)
    frozen, moments = self.perceptual.inference(state.params, state.stats, resolutions)
    nets = {n: state.params[n] for n in ("enc", "dec")}
    trunk, fitted = self._scores.inference(state)
    return state.replace(params={**nets, **frozen, **trunk}, opt={}, extra=fitted,
                         stats={**{n: state.stats[n] for n in nets if n in state.stats}, **moments})

  # ------------------------------------------------------------------------- published checkpoints
  def from_torch(self, tensors):
    """(params, stats) out of the public code's scoring model: `enc.*`, `dec.*` and maybe `ddis.*`.

    VGG19 is taken from config.method.vgg_weights, never from such a file.

    Raises:
      UserError: config.method.vgg_stats="running", which such a model was not trained with.
    """
    if self.perceptual.running:
      raise UserError("a published model scores with fixed statistics: set config.method.vgg_stats=published "
                      "and vgg_weights to VGG19's file")
    params, stats = dpa.networks(tensors, self.config.model, critic=self.adversarial)
    return {**params, **self.pretrained()}, stats
