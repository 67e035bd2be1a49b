"""Adversarial autoencoder (Pidhorskyi et al., NeurIPS 2018, GPND; Makhzani et al. 2016).

Encoder E, generator G, critics D of images and Z of codes, z ~ N(0, I) drawn anew in each of the first three
steps of a batch; H is the mean binary cross-entropy:

  D       H(D(x), 1) + H(D(G(z1)), 0)
  G       H(D(G(z2)), 1)
  Z       2 (H(Z(z3), 1) + H(Z(E(x)), 0))
  E, G    2 H(G(E(x)), x) + H(Z(E(x)), 1)

Four Adams (G is moved by two, each with moments of its own). Statistics of batch normalisation are learnt, in
the published code as well, in the order of the passes. Scored at G(E(x)). The published code draws E, G and D
as PyTorch does although it means N(0, 0.02^2): `model.init=torch`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medae_jax.core.errors import UserError
from medae_jax.losses.variational import cross_entropy
from medae_jax.methods.autoencoders._base import Autoencoder
from medae_jax.models.autoencoders import adversarial as networks
from medae_jax.models.autoencoders.parts import square_levels
from medae_jax.weights.autoencoders import names, sizes


class Method(Autoencoder):
  groups = {"critic_image": ("critic_image",), "dec": ("dec",), "critic_latent": ("critic_latent",),
            "autoencoder": ("enc", "dec")}

  def nets(self, shape):
    m = self.config.model
    if m.init not in ("dcgan", "torch"):
      raise UserError(f"config.model.init={m.init!r}: use dcgan or torch")
    d, dtype = m.width, jnp.dtype(m.dtype)
    shared = dict(norm=m.norm, init_std=m.init == "dcgan", dtype=dtype)
    return {"enc": networks.Down((d, d, 4 * d, 4 * d), m.latent, **shared),
            "dec": networks.Generator(d, square_levels(shape, 32), shape[-1], **shared),
            "critic_image": networks.Down((d, d, 2 * d, 4 * d), 1, **shared),
            "critic_latent": networks.LatentCritic(2 * d, dtype)}

  def visit(self, use, image):
    z = use("enc", image)
    use("dec", z)
    use("critic_image", image)
    use("critic_latent", z)

  def reconstruct(self, use, image, noise=None):
    del noise
    return jax.nn.sigmoid(use("dec", use("enc", image)))

  def drawn(self, use, codes):
    return jax.nn.sigmoid(use("dec", codes()))

  # ------------------------------------------------------------------------------------ training
  def train_step(self, state, batch, rng, *, stage, axis_name):
    del stage
    noise = self.normals(rng, batch["index"], 3).astype(batch["image"].dtype)
    return self.step(state, batch["image"], noise, axis_name)

  def step(self, state, image, noise, axis_name=None):
    """The four updates of a batch on given codes `noise` [3,B,latent]: (state, metrics)."""
    step, part = state.step, {"image": image, **{f"z{i + 1}": z for i, z in enumerate(noise)}}
    metrics = {}
    for group, loss_of in (("critic_image", self._critic_image), ("dec", self._generator),
                           ("critic_latent", self._critic_latent), ("autoencoder", self._autoencoder)):
      def loss_fn(nets, part, _, loss_of=loss_of, state=state):
        use = self.use(state, part["image"], nets, train=True, axis_name=axis_name)
        loss, terms = loss_of(use, part)
        return loss.mean(), ({k: v.mean() for k, v in terms.items()}, self.kept(use))
      state, loss, terms, norm = self.update(group, loss_fn, state, part, axis_name)
      metrics.update(terms)
    return state.replace(step=step + 1), {"loss": loss, **metrics, "grad_norm": norm,
                                          "lr": self.schedule(step)}

  def _critic_image(self, use, part):
    fake = jax.lax.stop_gradient(jax.nn.sigmoid(use("dec", part["z1"])))
    terms = {"critic_real": cross_entropy(use("critic_image", part["image"]), 1.0),
             "critic_fake": cross_entropy(use("critic_image", fake), 0.0)}
    return terms["critic_real"] + terms["critic_fake"], terms

  def _generator(self, use, part):
    loss = cross_entropy(use("critic_image", jax.nn.sigmoid(use("dec", part["z2"]))), 1.0)
    return loss, {"generator": loss}

  def _critic_latent(self, use, part):
    code = jax.lax.stop_gradient(use("enc", part["image"]))
    terms = {"latent_real": cross_entropy(use("critic_latent", part["z3"]), 1.0),
             "latent_fake": cross_entropy(use("critic_latent", code), 0.0)}
    return self.config.method.latent_weight * (terms["latent_real"] + terms["latent_fake"]), terms

  def _autoencoder(self, use, part):
    code = use("enc", part["image"])
    terms = {"rec": cross_entropy(use("dec", code), part["image"]),
             "encoder": cross_entropy(use("critic_latent", code), 1.0)}
    return self.config.method.rec_weight * terms["rec"] + terms["encoder"], terms

  def eval_step(self, state, batch, rng):
    """The weighted cross-entropy of the reconstruction: what chooses the checkpoint."""
    del rng
    image, use = batch["image"], self.use(state, batch["image"])
    logits = use("dec", use("enc", image))
    return {"loss": self.config.method.rec_weight * cross_entropy(logits, image),
            "mse": ((jax.nn.sigmoid(logits) - image) ** 2).mean((1, 2, 3))}

  def from_torch(self, tensors):
    """(params, stats) of a state dict with the prefixes E., G., D., ZD. of the public code."""
    params, stats = names.from_torch(tensors, names.AAE, ("dec",), self._used(tensors))
    return {**params, **self.pretrained()}, stats if self.config.model.norm in ("batch", "frozen") else {}

  def torch_fields(self, tensors):
    return sizes.aae(tensors)

  def _used(self, tensors):
    """Networks for the config's images as trees of shapes: published files hold layers that are not used."""
    size = self.config.data.image_size
    channels = next(v.shape[1] for k, v in tensors.items() if k.endswith("conv1_1.weight"))
    image = jnp.zeros((1, size, size, channels))
    return jax.eval_shape(lambda key: self.init(key, {"image": image}).params, jax.random.key(0))
