"""A method of one's own, for own_method.ipynb: a bottleneck autoencoder whose residual is the anomaly map.

Four members are needed; all others have defaults (CONTRIBUTING.md, "A method").
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from medae_jax.core import parallel
from medae_jax.core.method import BaseMethod, State


class Net(nn.Module):
  """Three halvings down to `width` channels, and three doublings back up."""
  width: int

  @nn.compact
  def __call__(self, image):
    x = image
    for _ in range(3):
      x = nn.relu(nn.Conv(self.width, (3, 3), strides=2)(x))
    for _ in range(3):
      x = nn.relu(nn.ConvTranspose(self.width, (4, 4), strides=(2, 2))(x))
    return nn.Conv(image.shape[-1], (3, 3))(x)


class Method(BaseMethod):
  """Trained on healthy images by the mean squared error."""

  def _recon(self, params, image):
    return Net(self.config.model.width).apply(params, image)

  def init(self, rng, batch):
    params = Net(self.config.model.width).init(rng, batch["image"])
    return State.create({"net": params}, opt={"net": optax.adam(self.config.optim.lr).init(params)})

  def train_step(self, state, batch, rng, *, stage, axis_name):
    loss_of = lambda p: jnp.mean((batch["image"] - self._recon(p, batch["image"])) ** 2)
    loss, grads = jax.value_and_grad(loss_of)(state.params["net"])
    loss, grads = parallel.pmean((loss, grads), axis_name)
    updates, opt = optax.adam(self.config.optim.lr).update(grads, state.opt["net"])
    params = optax.apply_updates(state.params["net"], updates)
    return state.replace(step=state.step + 1, params={"net": params}, opt={"net": opt}), {"loss": loss}

  def eval_step(self, state, batch, rng):
    error = (batch["image"] - self._recon(state.params["net"], batch["image"])) ** 2
    return {"loss": error.mean((1, 2, 3))}

  def score(self, state, batch):
    recon = self._recon(state.params["net"], batch["image"])
    amap = jnp.mean(jnp.abs(batch["image"] - recon), -1, keepdims=True)
    return {"recon": recon, "map": amap, "score": amap.mean((1, 2, 3))}
