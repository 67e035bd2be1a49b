"""Anomaly detection by recognising geometric transformations (Golan & El-Yaniv, NeurIPS 2018).

arXiv 1805.10917, in the form of the DPA benchmark (arXiv 2006.13265).

A wide residual network learns which of K = 72 transformations (mirror, shifts, quarter turns) a normal
image went through. For each transformation t a Dirichlet distribution is fitted to the softmax vectors of
the normal training images (`finalize`); a test image is usual where its K softmax vectors are likely:

  N(x) = 1/K sum_t sum_k (alpha_tk - 1) log(y_tk + 1e-6),  y_t = softmax(net(T_t x))       [normality]
  S(x) = 1/K sum_t y_tt                                             [simplified: needs no fit]

Both are normality scores in the paper; here as everywhere in this package a higher score is more
anomalous: `score` is -N, or -S with config.method.score.kind="simplified".

An example of training is a pair (image, transformation): the loop counts K examples an image, shuffles all
pairs of an epoch and adds "view", the number of the transformation, to the batch (BaseMethod.views).
Nothing is copied K times; the transformed image is gathered inside the compiled step. The loss is cross-
entropy plus L2 on every tensor, batch normalisation included, as part of the loss (through Adam).

Deviations from the public code: a batch may straddle two epochs (there each epoch ends with a shorter
one); Newton's method for the Dirichlet parameters, which converges where the fixed point stops after 1000
iterations; log-softmax instead of the logarithm of a softmax that may be 0. config.method.parity restores
the fixed point and the running variance of Keras 2.3.1.
"""

from __future__ import annotations

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np
import optax

from medae_jax.core import checks, method as method_lib, parallel
from medae_jax.core.errors import UserError
from medae_jax.core.method import BaseMethod, Need, State
from medae_jax.methods._transformations import Transformations
from medae_jax.models.wide_resnet import WideResNet
from medae_jax.optim import adam
from medae_jax.scores import dirichlet

_RULES = {
    "method.flip": checks.flag, "method.shift": checks.whole(0, 65536),
    "method.rotations": checks.choice(1, 2, 4), "method.views_at_once": checks.whole(1),
    "method.fit_images": checks.whole(0), "method.parity": checks.flag,
    "method.score.kind": checks.choice("dirichlet", "simplified"),
    "method.score.offset": checks.number(0, 1),
    "model.blocks": checks.whole(1, 100), "model.widen": checks.whole(1, 64), "optim.l2": checks.number(0)}


class Method(BaseMethod):
  """See the module's docstring."""

  needs = {"image": Need("BHWC", low=-1, high=1)}
  fits = True

  def __init__(self, config):
    super().__init__(config)
    checks.apply(config, _RULES)
    m, o = config.method, config.optim
    self.transformations = Transformations(m.flip, m.shift, m.rotations)
    self.views = len(self.transformations)
    if self.views < 2:
      raise UserError("config.method: flip=False, shift=0 and rotations=1 leave one transformation, and "
                      "nothing to recognise; set one of them")
    if config.train.accum > 1:
      raise UserError("config.train.accum > 1 changes the statistics of batch normalisation: use accum=1")
    self.net = WideResNet(config.model.blocks, config.model.widen, self.views,
                          keras_variance=m.parity, dtype=config.model.dtype)
    self.tx = adam.adam(o.lr, b1=o.b1, b2=o.b2, eps=o.eps, eps_hat=True)

  def init(self, rng, batch):
    image = batch["image"][:1]
    self.transformations.check(*image.shape[1:3])
    made = self.net.init(rng, image)
    return State.create({"net": made["params"]}, {"net": made["batch_stats"]},
                        {"net": self.tx.init(made["params"])})

  # ------------------------------------------------------------------------------------ training
  def train_step(self, state, batch, rng, *, stage, axis_name):
    image = self.transformations.apply(batch["image"], batch["view"])

    def loss_fn(params, part, _):
      logits, after = self.net.apply({"params": params, "batch_stats": state.stats["net"]}, part["image"],
                                     train=True, axis_name=axis_name, mutable=["batch_stats"])
      each = optax.softmax_cross_entropy_with_integer_labels(logits, part["view"])
      ce, right = each.mean(), jnp.mean(logits.argmax(-1) == part["view"])
      return ce + self._l2(params), (ce, right, after["batch_stats"])

    params = state.params["net"]
    (loss, (ce, right, after)), grads = parallel.value_and_grad(
        loss_fn, params, {"image": image, "view": batch["view"]}, rng, axis_name=axis_name)
    updates, opt = self.tx.update(grads, state.opt["net"], params)
    state = state.replace(step=state.step + 1, params={"net": optax.apply_updates(params, updates)},
                          stats={"net": after}, opt={"net": opt})
    return state, {"loss": loss, "cross_entropy": ce, "accuracy": right,
                   "grad_norm": adam.global_norm(grads)}

  def _l2(self, params):
    """config.optim.l2 times the squares of every parameter, of batch normalisation as well."""
    return self.config.optim.l2 * sum(jnp.sum(x**2) for x in jax.tree.leaves(params))

  def eval_step(self, state, batch, rng):
    """Means over all transformations of each image: what training minimises, and the accuracy."""
    log_p = self.log_probabilities(state, batch["image"])
    own = jnp.arange(self.views)
    ce = -log_p[:, own, own].mean(-1)
    return {"loss": ce + self._l2(state.params["net"]), "cross_entropy": ce,
            "accuracy": jnp.mean(log_p.argmax(-1) == own, -1)}

  # --------------------------------------------------------------------------------- fit, scores
  def log_probabilities(self, state, image) -> jax.Array:
    """Log-softmax of every image under every transformation, [B,H,W,C] -> float32 [B,K,K].

    config.method.views_at_once transformations (or the largest divisor of K below that) go through
    the network at a time: memory is bounded by that times B images.
    """
    b, k = image.shape[0], self.views
    at_once = max(n for n in range(1, k + 1) if k % n == 0 and n <= self.config.method.views_at_once)
    variables = {"params": state.params["net"], "batch_stats": state.stats["net"]}

    def some(views):
      shown = self.transformations.each(image, views).reshape(b * at_once, *image.shape[1:])
      return jax.nn.log_softmax(self.net.apply(variables, shown)).reshape(b, at_once, k)
    parts = jax.lax.map(some, jnp.arange(k, dtype=jnp.int32).reshape(-1, at_once))
    return parts.transpose(1, 0, 2, 3).reshape(b, k, k)

  def finalize(self, state, batches):
    """Dirichlet parameters of every transformation, by maximum likelihood over the normal images.

    config.method.fit_images > 0 takes the first so many images only (K passes through the network an image).
    """
    model = state.replace(opt={})
    if jax.process_count() > 1:
      model = parallel.to_host(model)
    compiled = parallel.per_example_fn(lambda s, b: self.log_probabilities(s, b["image"]))
    moments, most = dirichlet.Moments(), self.config.method.fit_images
    for batch in batches:
      log_p = np.asarray(compiled(model, {"image": batch["image"]}))[np.asarray(batch["valid"])]
      moments.add(log_p[:most - moments.n] if most else log_p)
      if most and moments.n >= most:
        break
    solve = dirichlet.fixed_point if self.config.method.parity else dirichlet.fit
    fit = solve(*moments.means())
    said = logging.info if fit.converged.all() else logging.warning
    said("Dirichlet fit on %d images: %d of %d transformations converged, %d to %d iterations, sum of "
         "alpha %.3g to %.3g", moments.n, fit.converged.sum(), len(fit.alpha), fit.steps.min(),
         fit.steps.max(), fit.alpha.sum(1).min(), fit.alpha.sum(1).max())
    return state.replace(extra={
        "alpha": jnp.asarray(fit.alpha, jnp.float32), "fit_steps": jnp.asarray(fit.steps, jnp.int32),
        "fit_converged": jnp.asarray(fit.converged)})

  def score(self, state, batch):
    """{"score" [B], "contributions" [B,K], "score_simplified" [B], "score_dirichlet" [B] once fitted}.

    All are the negative of the paper's normality: higher is more anomalous. The score is the mean of the
    contributions, one a transformation. A state that `finalize` has not seen yet (validation during
    training) is scored by the simplified score.
    """
    log_p = self.log_probabilities(state, batch["image"])
    own = jnp.arange(self.views)
    each = {"simplified": -jnp.exp(log_p[:, own, own])}
    if "alpha" in state.extra:
      each["dirichlet"] = -dirichlet.log_density(state.extra["alpha"], log_p, self.config.method.score.offset)
    kind = self.config.method.score.kind
    chosen = each[kind if kind in each else "simplified"]
    return {"score": chosen.mean(-1), "contributions": chosen,
            **{f"score_{name}": value.mean(-1) for name, value in each.items()}}

  def inference_state(self, state):
    """The classifier and the Dirichlet parameters, without the report of the fit."""
    return state.replace(opt={}, extra={k: v for k, v in state.extra.items() if k == "alpha"})

  def pictures(self, state, batch, rng):
    """What the classifier is shown: each image under a transformation drawn for it, in [0,1]."""
    keys = method_lib.example_keys(rng, batch["index"])
    view = jax.vmap(lambda key: jax.random.randint(key, (), 0, self.views))(keys)
    return {"transformed": jnp.clip(0.5 * self.transformations.apply(batch["image"], view) + 0.5, 0, 1)}
