"""Variational autoencoder (Zimmerer et al., MICCAI 2019 code base; Kingma & Welling 2014).

  (mu, l) = enc(x),  z = mu + e^l eps,  recon = dec(z)
  loss = mean over examples of [ KL(N(mu, e^l) || N(0, I)) - log N(x; recon, e^rho) ],  rho = `rec_log_std`

with sums over pixels and codes. Scored and validated at z = mu. The published code hands s = e^l on under
the name of a log standard deviation, so that its divergence has the deviation e^s (`method.kl=published`),
and trains in evaluation mode, z = mu (`method.sample=False`): an autoencoder with a penalty on mu.
"""

from __future__ import annotations

import jax.numpy as jnp

from medae_jax.losses import variational
from medae_jax.methods.autoencoders._plain import Plain
from medae_jax.models.autoencoders import variational as networks
from medae_jax.models.autoencoders.parts import halved
from medae_jax.weights.autoencoders import names, sizes


class Method(Plain):
  def __init__(self, config):
    super().__init__(config)
    self.draws = bool(config.method.sample)

  def nets(self, shape):
    m = self.config.model
    widths, dtype = tuple(m.widths), jnp.dtype(m.dtype)
    extent = halved(shape, len(widths), "config.model.widths")
    return {"enc": networks.Encoder(widths, m.latent, dtype),
            "dec": networks.Decoder(widths, extent, shape[-1], dtype)}

  def visit(self, use, image):
    self.reconstruct(use, image)

  def reconstruct(self, use, image, noise=None):
    return self._forward(use, image, noise)[0]

  def _forward(self, use, image, noise):
    mean, log_std = use("enc", image)
    z = mean if noise is None else mean + jnp.exp(log_std) * noise
    return use("dec", z), mean, log_std

  def drawn(self, use, codes):
    return use("dec", codes())

  def divergence(self, mean, log_std):
    """KL of each example, [B], or what the published code takes for it."""
    published = self.config.method.kl == "published"
    return variational.kl_of_log_std(mean, jnp.exp(log_std) if published else log_std)

  def terms(self, use, state, part, mean):
    del state, mean
    recon, code, log_std = self._forward(use, part["image"], part.get("noise"))
    rec = variational.gaussian_nll(part["image"], recon, self.config.method.rec_log_std)
    kl = self.divergence(code, log_std)
    return {"loss": rec + kl, "rec": rec, "kl": kl}

  def from_torch(self, tensors):
    """(params, counters) of a state dict of the public code."""
    params, _ = names.from_torch(tensors, names.VAE, ("dec",))
    return {**params, **self.pretrained()}, self.counters()

  def torch_fields(self, tensors):
    return sizes.vae(tensors)
