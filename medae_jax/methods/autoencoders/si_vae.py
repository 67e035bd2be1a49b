"""Soft-introspective VAE (Daniel & Tamar, CVPR 2021): encoder and decoder as each other's adversary.

r = dec(z) of x, f = dec(n) of noise n; rec(a, b) = sum (a - b)^2, KL of a code against N(0, I), s = `scale`:

  encoder   s (rec(x, r) + KL(x)) + (E(r) + E(f)) / 4,
            E(y) = mean exp(-2 s (rec(y, dec(enc(y))) + 256 KL(y)))
  decoder   s [ rec(x, r) + (KL(r) + KL(f)) / 2 + gamma/2 (rec(r, dec(z_r)) + rec(f, dec(z_f))) ]

Two Adams; the network that does not move is differentiated through. In the encoder's step r and f enter the
encoder as constants, while rec(r, .) still reaches it through r. Scored at z = mu. The published code freezes
BatchNorm at the variances a black image leaves (0.9 in the encoder: `model.norm=frozen`, `method.zero_pass`),
compares widths as objects (`model.skip_by_identity`), never lowers its rate, and draws codes at test
(`score.sample`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medae_jax.core import parallel
from medae_jax.core.errors import UserError
from medae_jax.losses import variational
from medae_jax.methods.autoencoders._base import Autoencoder
from medae_jax.models.autoencoders import soft_intro as networks
from medae_jax.models.autoencoders.parts import halved
from medae_jax.optim import adam
from medae_jax.weights.autoencoders import names, sizes

DRAWS = ("prior", "real", "rec", "fake", "rec_decoder", "fake_decoder")  # in their order


class Method(Autoencoder):
  groups = {"enc": ("enc",), "dec": ("dec",)}

  def __init__(self, config):
    super().__init__(config)
    if config.train.accum > 1:
      raise UserError("config.train.accum > 1: the decoder's step needs the codes of the encoder's; use 1")

  def nets(self, shape):
    m = self.config.model
    widths = tuple(m.widths)
    extent = halved(shape, len(widths), "config.model.widths")
    shared = dict(by_identity=m.skip_by_identity, norm=m.norm, dtype=jnp.dtype(m.dtype))
    return {"enc": networks.Encoder(widths, m.latent, **shared),
            "dec": networks.Decoder(widths, extent, shape[-1], **shared)}

  def visit(self, use, image):
    use("dec", use("enc", image)[0])

  def init(self, rng, batch):
    state = super().init(rng, batch)
    if not self.config.method.zero_pass or "enc" not in state.stats:
      return state
    # one training pass over a black image: every map is 0, so that each variance goes from 1 to 0.9
    fade = lambda path, x: 0.9 * x if path[-1].key == "var" else x
    stats = jax.tree_util.tree_map_with_path(fade, state.stats["enc"])
    return state.replace(stats={**state.stats, "enc": stats})

  def reconstruct(self, use, image, noise=None):
    mean, log_var = use("enc", image)
    return use("dec", mean if noise is None else self._drawn(mean, log_var, noise))

  def drawn(self, use, codes):
    return use("dec", codes())

  def _drawn(self, mean, log_var, noise):
    return mean + jnp.exp(log_var / 2) * noise

  # ------------------------------------------------------------------------------------ training
  def train_step(self, state, batch, rng, *, stage, axis_name):
    del stage
    noise = self.normals(rng, batch["index"], len(DRAWS)).astype(batch["image"].dtype)
    return self.step(state, batch["image"], noise, axis_name)

  def step(self, state, image, noise, axis_name=None):
    """Both updates of a batch on given draws `noise` [6,B,latent], as DRAWS says: (state, metrics)."""
    step, part = state.step, {"image": image, **dict(zip(DRAWS, noise))}
    state, metrics, part["code"] = self._phase("enc", self._encoder, state, part, axis_name)
    state, more, _ = self._phase("dec", self._decoder, state, part, axis_name)
    metrics = {"loss": metrics["enc_loss"], **metrics, **more, "lr": self.schedule(step)}
    return state.replace(step=step + 1), metrics

  def _phase(self, group, loss_of, state, part, axis_name):
    """(state, {name: []}, code of the images [B,latent] as it was drawn before the update)."""
    def loss_fn(nets):
      use = self.use(state, part["image"], nets, train=True, axis_name=axis_name)
      loss, terms, code = loss_of(use, part)
      return loss.mean(), ({k: v.mean() for k, v in terms.items()}, self.kept(use), code)
    trained = {net: state.params[net] for net in self.groups[group]}
    (loss, (terms, stats, code)), grads = jax.value_and_grad(loss_fn, has_aux=True)(trained)
    loss, terms, stats, grads = parallel.pmean((loss, terms, stats, grads), axis_name)
    terms = {"loss": loss, **terms, "grad_norm": adam.global_norm(grads)}
    return self.move(group, state, grads, stats), {f"{group}_{k}": v for k, v in terms.items()}, code

  def _scale(self, image):
    return 1 / (image.shape[1] * image.shape[2])

  def _encoder(self, use, part):
    m, image, stop = self.config.method, part["image"], jax.lax.stop_gradient
    scale = self._scale(image)
    fake = use("dec", part["prior"])
    mean, log_var = use("enc", image)
    code = self._drawn(mean, log_var, part["real"])
    recon = use("dec", code)
    terms = {"rec": variational.squared_error(image, recon), "kl": variational.kl_of_log_var(mean, log_var)}
    for name, picture in (("rec", recon), ("fake", fake)):
      mean, log_var = use("enc", stop(picture))
      again = use("dec", self._drawn(mean, log_var, part[name]))
      terms[f"{name}_rec"] = variational.squared_error(picture, again)
      terms[f"{name}_kl"] = variational.kl_of_log_var(mean, log_var)
      bound = m.beta_rec * terms[f"{name}_rec"] + m.beta_neg * terms[f"{name}_kl"]
      terms[f"{name}_exp"] = jnp.exp(-2 * scale * bound)  # underflows to 0 without harm: look at the metric
    loss = scale * (m.beta_rec * terms["rec"] + m.beta_kl * terms["kl"])
    return loss + (terms["rec_exp"] + terms["fake_exp"]) / 4, terms, code

  def _decoder(self, use, part):
    m, image, stop = self.config.method, part["image"], jax.lax.stop_gradient
    pictures = {"fake": use("dec", part["prior"]), "rec": use("dec", part["code"])}
    terms = {"rec": variational.squared_error(image, pictures["rec"])}
    codes = {}
    for name in ("rec", "fake"):
      mean, log_var = use("enc", pictures[name])
      terms[f"{name}_kl"] = variational.kl_of_log_var(mean, log_var)
      codes[name] = self._drawn(mean, log_var, part[f"{name}_decoder"])
    for name in ("rec", "fake"):
      again = use("dec", stop(codes[name]))
      terms[f"{name}_rec"] = variational.squared_error(stop(pictures[name]), again)
    loss = m.beta_rec * terms["rec"] + m.beta_kl * (terms["rec_kl"] + terms["fake_kl"]) / 2
    loss = loss + m.gamma * m.beta_rec * (terms["rec_rec"] + terms["fake_rec"]) / 2
    return self._scale(image) * loss, terms, part["code"]

  def eval_step(self, state, batch, rng):
    """Mean squared error: what chooses the checkpoint; with `score.sample` of a code that is drawn."""
    image, noise = batch["image"], None
    if self.config.method.score.sample:
      noise = self.normals(rng, batch["index"], 1)[0].astype(image.dtype)
    recon = self.reconstruct(self.use(state, image), image, noise)
    return {"loss": ((recon - image) ** 2).mean((1, 2, 3))}

  def from_torch(self, tensors):
    """(params, stats) of a state dict of the public code."""
    params, stats = names.from_torch(tensors, names.SOFT_INTRO)
    return {**params, **self.pretrained()}, stats if self.config.model.norm in ("batch", "frozen") else {}

  def torch_fields(self, tensors):
    return sizes.soft_intro(tensors)
