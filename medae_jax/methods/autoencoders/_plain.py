"""Autoencoders with one loss and one optimiser: a step, a validation, the plateau schedule."""

from __future__ import annotations

from collections.abc import Callable

import jax

from medae_jax.core import parallel
from medae_jax.methods.autoencoders._base import Autoencoder
from medae_jax.optim import plateau


class Plain(Autoencoder):
  """A family defines `nets`, `visit`, `reconstruct` of Autoencoder, and `terms`."""

  draws = False  # whether training draws the code

  def terms(self, use, state, part, mean: Callable) -> dict[str, jax.Array]:
    """{"loss" [B], others [B]} of the examples {"image", perhaps "noise" [B, latent]}.

    Args:
      mean: [B] -> mean over the global batch, [], without gradient; at validation its argument itself.
    """
    raise NotImplementedError

  def counters(self):
    return {"plateau": plateau.init()} if self.config.optim.get("plateau_patience", 0) else {}

  def train_step(self, state, batch, rng, *, stage, axis_name):
    del stage
    part = {"image": batch["image"]}
    if self.draws:
      part["noise"] = self.normals(rng, batch["index"], 1)[0].astype(batch["image"].dtype)
    return self.step(state, part, axis_name)

  def step(self, state, part, axis_name=None):
    """One update on given draws: (state, metrics)."""
    mean = lambda x: jax.lax.stop_gradient(parallel.pmean(jax.lax.stop_gradient(x).mean(), axis_name))

    def loss_fn(nets, part, _):
      use = self.use(state, part["image"], nets, train=True, axis_name=axis_name)
      terms = {k: v.mean() for k, v in self.terms(use, state, part, mean).items()}
      return terms.pop("loss"), (terms, self.kept(use))
    new, loss, terms, norm = self.update("net", loss_fn, state, part, axis_name)
    return new.replace(step=state.step + 1), {"loss": loss, **terms, "grad_norm": norm,
                                              "lr": self.rate(state)}

  def rate(self, state):
    """Learning rate of the next step, []."""
    rate = self.schedule(state.step)
    return rate * state.stats["plateau"]["scale"] if "plateau" in state.stats else rate

  def eval_step(self, state, batch, rng):
    """The training criterion of each example; with `score.sample` its code is drawn."""
    part = {"image": batch["image"]}
    if self.draws and self.config.method.score.get("sample", False):
      part["noise"] = self.normals(rng, batch["index"], 1)[0].astype(batch["image"].dtype)
    return self.terms(self.use(state, batch["image"]), state, part, jax.lax.stop_gradient)

  def after_validation(self, state, values):
    o = self.config.optim
    if "plateau" not in state.stats:
      return state
    new = plateau.update(state.stats["plateau"], float(values[self.config.train.best_metric]),
                         patience=o.plateau_patience, factor=o.plateau_factor)
    return state.replace(stats={**state.stats, "plateau": new})
