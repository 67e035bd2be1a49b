"""Autoencoders without a prior: spatial (AE-S) and dense (AE-D) code, and the bare backbone of MorphAEus.

Baur et al., Medical Image Analysis 2021, as compared by Bercea et al. 2023 (MICCAI, LNCS 14224):

  AE-S   recon = dec(enc(x)), code [h,w,c]            `model.latent=0`
  AE-D   recon = dec(dense(enc(x))), code of `model.latent` numbers (models/autoencoders/dense.py)
  loss   an expression, mean L1 as published: l1, l2, ssim, perceptual, e.g. "l2 + 0.2*perceptual"

The published code never trains BatchNorm (`model.norm=frozen`) and its LeakyReLU has slope 1
(`model.slope=1`), which makes AE-S an affine map before its sigmoid. Seven levels of side 3 with
swish, `upsampling=resize` and loss l2 are MorphAEus without prior and deformation.
"""

from __future__ import annotations

import jax.numpy as jnp

from medae_jax.methods._perceptual import Perceptual
from medae_jax.methods.autoencoders._plain import Plain
from medae_jax.models import conv_ae
from medae_jax.models.autoencoders import dense
from medae_jax.scores import reconstruction
from medae_jax.weights import conv_ae as names
from medae_jax.weights.autoencoders import names as zoo_names, sizes


class Method(Plain):
  frozen = ("vgg", reconstruction.NET)
  least_latent = 0  # the code is a map

  def __init__(self, config):
    super().__init__(config)
    self.perceptual = Perceptual(config.method, (0,), low=0.0, high=1.0, mean=None, std=None)
    if config.model.latent:
      self.groups = {"net": ("enc", "dec", "dense")}
      self.scored = ("enc", "dec", "dense")

  def nets(self, shape):
    m = self.config.model
    shared = dict(channels=tuple(m.widths), strides=tuple(m.strides), size=m.kernel, norm=m.norm, act=m.act,
                  slope=m.slope, dtype=jnp.dtype(m.dtype))
    nets = {"enc": conv_ae.Encoder(**shared),
            "dec": conv_ae.Decoder(**shared, out=shape[-1], upsampling=m.upsampling)}
    if m.latent:
      nets["dense"] = dense.Dense(m.latent, m.squeeze, jnp.dtype(m.dtype))
    return nets

  def visit(self, use, image):
    self.reconstruct(use, image)

  def reconstruct(self, use, image, noise=None):
    del noise
    return use("dec", self.code(use, image)[0])[0]

  def code(self, use, image):
    """(what the decoder reads [B,h,w,c], the code: the same, or [B,latent])."""
    code, _ = use("enc", image)
    return use("dense", code) if self.config.model.latent else (code, code)

  def terms(self, use, state, part, mean):
    del mean
    image = part["image"]
    recon = self.reconstruct(use, image)
    loss = self.perceptual.losses(state.params, state.stats, image, recon, res=0)
    return {"loss": loss, "mse": ((image - recon) ** 2).mean((1, 2, 3))}

  def init(self, rng, batch):
    state = super().init(rng, batch)
    return state.replace(params={**state.params, **self.perceptual.init_params()})

  def pretrained(self):
    return {**self.perceptual.pretrained(), **super().pretrained()}

  def from_torch(self, tensors):
    """(params, stats) of a state dict of the public code; its VGG is taken from config.method.vgg_weights."""
    turned = ("dec",) if self.config.model.upsampling == "transposed" else ()
    params, stats = names.from_torch(tensors, turned, ("enc", "dec"))
    if self.config.model.latent:
      params.update(zoo_names.from_torch(tensors, zoo_names.DENSE)[0])
    return {**params, **self.pretrained()}, stats if self.config.model.norm in (
        "batch", "frozen") else {}

  def torch_fields(self, tensors):
    return sizes.ae(tensors)
