"""beta-VAE with a capacity (Higgins et al., ICLR 2017; Burgess et al. 2018, arXiv 1804.03599).

  (mu, lambda) = enc(x),  z = mu + e^(lambda/2) eps,  recon = dec(z),  KL = mean of KL(q(z|x) || N(0, I))
  loss = L(x, recon) + gamma w |KL - C|   `regulariser=capacity`, C = C_max min(t / T, 1), t = training steps
       = L(x, recon) + beta w KL          `regulariser=beta`

with w = 0.008 and L an expression, the mean squared error as published. With a capacity the checkpoint is
chosen by L alone, since C moves and with it what the rest is worth. Scored at z = mu; `score.sample` draws
the code once for all images (the published code draws anew at every test). The published t counts validation
batches too: `validation_calls` of them are added each time.
"""

from __future__ import annotations

import jax.numpy as jnp

from medae_jax.core.errors import UserError
from medae_jax.losses import variational
from medae_jax.methods._perceptual import Perceptual
from medae_jax.methods.autoencoders._plain import Plain
from medae_jax.models.autoencoders import variational as networks
from medae_jax.models.autoencoders.parts import square_levels
from medae_jax.scores import reconstruction
from medae_jax.weights.autoencoders import names, sizes


class Method(Plain):
  frozen = ("vgg", reconstruction.NET)
  draws = True

  def __init__(self, config):
    super().__init__(config)
    m = config.method
    if m.regulariser == "capacity" and config.train.accum > 1:
      raise UserError("config.train.accum > 1: |KL - C| is of the whole batch; use accum=1 or "
                      "method.regulariser=beta")
    self.perceptual = Perceptual(m, (0,), low=0.0, high=1.0, mean=None, std=None)

  def nets(self, shape):
    m = self.config.model
    options = dict(width=m.width, hidden=m.hidden, dtype=jnp.dtype(m.dtype))
    return {"enc": networks.BetaEncoder(m.latent, **options),
            "dec": networks.BetaDecoder(square_levels(shape, 4), shape[-1], **options)}

  def visit(self, use, image):
    self.reconstruct(use, image)

  def init(self, rng, batch):
    state = super().init(rng, batch)
    return state.replace(params={**state.params, **self.perceptual.init_params()})

  def counters(self):
    return {**super().counters(), "validation_calls": jnp.zeros((), jnp.int32)}

  def pretrained(self):
    return {**self.perceptual.pretrained(), **super().pretrained()}

  def reconstruct(self, use, image, noise=None):
    return self._forward(use, image, noise)[0]

  def _forward(self, use, image, noise):
    mean, log_var = use("enc", image)
    z = mean if noise is None else mean + jnp.exp(log_var / 2) * noise
    return use("dec", z), mean, log_var

  def drawn(self, use, codes):
    return use("dec", codes())

  def capacity(self, state):
    """C of the next step, in nats."""
    m = self.config.method
    calls = state.step + 1 + state.stats["validation_calls"]  # counted before use
    return variational.capacity(calls, m.max_capacity, m.capacity_steps)

  def terms(self, use, state, part, mean):
    m = self.config.method
    recon, code, log_var = self._forward(use, part["image"], part.get("noise"))
    rec = self.perceptual.losses(state.params, state.stats, part["image"], recon, res=0)
    kl = variational.kl_of_log_var(code, log_var)
    if m.regulariser == "beta":
      return {"loss": rec + m.beta * m.kl_weight * kl, "rec": rec, "kl": kl}
    limit = self.capacity(state).astype(kl.dtype)
    # |KL - C| of the mean over the global batch, written so that its parts can be averaged over devices
    distance = jnp.sign(mean(kl) - limit) * (kl - limit)
    return {"loss": rec + m.gamma * m.kl_weight * distance, "rec": rec, "kl": kl}

  def eval_step(self, state, batch, rng):
    terms = super().eval_step(state, batch, rng)
    return {**terms, "loss": terms["rec"]} if self.config.method.regulariser == "capacity" else terms

  def after_validation(self, state, values):
    state = super().after_validation(state, values)
    calls = state.stats["validation_calls"]
    more = jnp.asarray(int(calls) + int(self.config.method.validation_calls), calls.dtype)
    return state.replace(stats={**state.stats, "validation_calls": more})

  def from_torch(self, tensors):
    """(params, counters) of a state dict of the public code."""
    params, _ = names.from_torch(tensors, names.beta_rules(tensors), ("dec",))
    return {**params, **self.pretrained()}, self.counters()

  def torch_fields(self, tensors):
    return sizes.beta_vae(tensors)
