"""What the autoencoders share: networks and optimisers by name, one update, the residual as the score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from medae_jax.core import parallel
from medae_jax.core.errors import UserError
from medae_jax.core.method import BaseMethod, Need, State, example_keys
from medae_jax.methods.autoencoders._passes import Making, Pass
from medae_jax.optim import adam, schedules
from medae_jax.scores import reconstruction, residual


class Autoencoder(BaseMethod):
  """A method of one or several networks whose score is the residual of a reconstruction.

  Attributes:
    groups: {optimiser: networks it moves}.
    scored: networks that a reconstruction needs.
    least_latent: for config.model.latent.
  """

  needs: Mapping[str, Need] = {"image": Need("BHWC", low=0, high=1)}
  groups: Mapping[str, Sequence[str]] = {"net": ("enc", "dec")}
  scored: Sequence[str] = ("enc", "dec")
  frozen: Sequence[str] = (reconstruction.NET,)
  least_latent = 1

  def __init__(self, config):
    super().__init__(config)
    if config.model.latent < self.least_latent:
      raise UserError(f"config.model.latent={config.model.latent}: codes of {config.method.name} have "
                      f"{self.least_latent} number or more")
    if config.train.accum > 1 and config.model.get("norm", "none") == "batch":
      raise UserError("config.train.accum > 1 changes the statistics of batch normalisation: use accum=1, or "
                      "model.norm=frozen or group")
    self._scores = reconstruction.Reconstruction(config, self.needs["image"])
    self.fits = self._scores.fits
    o = config.optim
    self.schedule = schedules.build(o, int(config.train.steps))
    self.tx = adam.adam(self.schedule, b1=o.b1, b2=o.b2, eps=o.eps)

  # ------------------------------------------------------------------------- what a family defines
  def nets(self, shape) -> dict[str, Any]:
    """{name: module} for images of `shape` (H, W, C)."""
    raise NotImplementedError

  def visit(self, use, image) -> None:
    """Applies every network once, in the order of `nets`: how `init` makes their parameters."""
    raise NotImplementedError

  def reconstruct(self, use, image, noise=None) -> jax.Array:
    """[B,H,W,C] of an image by `use`; `noise` [1 or B, latent] where the code is drawn, None: its mean."""
    raise NotImplementedError

  # ----------------------------------------------------------------------------------- shared parts
  def use(self, state, image, params=None, *, train=False, axis_name=None) -> Pass:
    """The networks with `params` in place of the state's where given."""
    return Pass(self.nets(image.shape[1:]), {**state.params, **(params or {})}, state.stats, train, axis_name)

  def init(self, rng, batch):
    image = jnp.asarray(batch["image"][:1])
    making = Making(self.nets(image.shape[1:]), rng)
    self.visit(making, image)
    params = making.params
    opt = {name: self.tx.init({net: params[net] for net in nets}) for name, nets in self.groups.items()}
    return State.create({**params, **self._scores.init_params()}, {**making.stats, **self.counters()}, opt)

  def counters(self) -> dict[str, Any]:
    """{name: arrays} of State.stats besides the networks', as they begin."""
    return {}

  def pretrained(self):
    return self._scores.pretrained()

  def normals(self, rng, index, count: int) -> jax.Array:
    """N(0, I) of [count, B, config.model.latent], draws of their own for every example."""
    shape = (count, self.config.model.latent)
    drawn = jax.vmap(lambda k: jax.random.normal(k, shape))(example_keys(rng, index))
    return jnp.moveaxis(drawn, 1, 0)

  def update(self, group: str, loss_fn: Callable, state: State, part, axis_name):
    """One step of the optimiser `group`.

    Args:
      loss_fn: ({net: params}, examples of this device, None) -> (loss [], (terms {name: []}, stats)).
      part: {name: [B, ...]} for it.

    Returns:
      (state: its networks, statistics and this optimiser changed; loss [], terms, norm of the gradient []).
    """
    trained = {net: state.params[net] for net in self.groups[group]}
    (loss, (terms, stats)), grads = parallel.value_and_grad(
        loss_fn, trained, part, None, accum=self.config.train.accum, axis_name=axis_name)
    return self.move(group, state, grads, stats), loss, terms, adam.global_norm(grads)

  def move(self, group: str, state: State, grads, stats) -> State:
    """The state after a step of the optimiser `group` along `grads`, with these statistics."""
    trained = {net: state.params[net] for net in self.groups[group]}
    updates, opt = self.tx.update(grads, state.opt[group], trained)
    if "plateau" in state.stats:
      scale = state.stats["plateau"]["scale"]
      updates = jax.tree.map(lambda u: u * scale.astype(u.dtype), updates)
    params = {**state.params, **optax.apply_updates(trained, updates)}
    return state.replace(params=params, stats={**state.stats, **stats}, opt={**state.opt, group: opt})

  def kept(self, use: Pass) -> dict[str, Any]:
    """{network: statistics} after a training pass; {} where the batch does not change them."""
    if self.config.model.get("norm", "none") != "batch":
      return {}
    trained = {net for nets in self.groups.values() for net in nets}
    return {net: value for net, value in use.stats.items() if net in trained}

  # --------------------------------------------------------------------------------------- scores
  def fixed_noise(self, image):
    """What the code of a scored image is drawn with: None, or with `score.sample` one draw for all images."""
    if not self.config.method.score.get("sample", False):
      return None
    return jax.random.normal(jax.random.key(0), (1, self.config.model.latent), image.dtype)

  def score(self, state, batch):
    """{"recon" [B,H,W,C], "map" [B,H,W,1], "score" [B]}: the mean absolute residual by default."""
    image, s = batch["image"], self.config.method.score
    recon = self._recon(state, batch)
    anomaly = residual.residual_map(image - recon, weights_positive=s.weights_positive,
                                    weights_negative=s.weights_negative)
    found = {"recon": recon, "map": anomaly, "score": residual.image_score(anomaly, s.image_score)}
    return self._scores.outputs(state, image, found)

  def _recon(self, state, batch):
    image = batch["image"]
    return self.reconstruct(self.use(state, image), image, self.fixed_noise(image))

  def finalize(self, state, batches):
    return self._scores.finalize(state, batches, self._recon)

  def pictures(self, state, batch, rng):
    """{"recon"} [B,H,W,C] in [0,1]; where codes are drawn from N(0, I), "drawn": images of such codes."""
    image = batch["image"]
    use = self.use(state, image)
    found = {"recon": jnp.clip(self.reconstruct(use, image), 0, 1)}
    drawn = self.drawn(use, lambda: self.normals(rng, jnp.arange(image.shape[0]), 1)[0])
    return found if drawn is None else {**found, "drawn": jnp.clip(drawn, 0, 1)}

  def drawn(self, use, codes: Callable[[], jax.Array]):
    """Images of codes drawn from N(0, I), `codes()` [B, latent]; None where the model has no such prior."""
    del use, codes

  def inference_state(self, state):
    nets, fitted = self._scores.inference(state)
    return state.replace(params={**{net: state.params[net] for net in self.scored}, **nets}, extra=fitted,
                         stats={net: state.stats[net] for net in self.scored if net in state.stats}, opt={})
