"""Annotation removal: erase calipers, arrows and text burnt into scans (dtronmans/denoising-autoencoder).

A network p = f(a) maps an annotated image a to its clean partner c. With the mask m of the drawn
pixels and weights w = alpha m + beta (1 - m),
  L = mse_weight * sum w (c - p)^2 / sum w + ssim_weight * (1 - SSIM(p, c)),
both sums over the whole global batch (normalised over all devices). Optimiser: Adam, constant rate.

Beyond the reference, `model.head=gated` lets the network say where marks are: it predicts an image q
and a probability g, p = g q + (1 - g) a, and g is also trained towards m by cross-entropy
(`mark_weight`). q need not repeat the tissue between the marks, nor cancel a mark to the last grey level.

What reaches the user is the composite: where the evidence of a mark (the predicted change
max_c |p - a|, or g) passes a threshold that evaluation calibrates on the validation split, p is
taken, elsewhere a, untouched.

`method.parity` repeats what the reference does: m is 1 where a and c differ at all, per channel; the
similarity term rewards keeping the marks (it is taken against a); the running variance of BatchNorm
is the unbiased one; networks have the published number of output channels. Without it the networks
have as many output channels as the data.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from medae_jax.core import parallel
from medae_jax.core.errors import UserError
from medae_jax.core.method import BaseMethod, Need, State
from medae_jax.losses import pixel, ssim
from medae_jax.models import annotation_nets as nets
from medae_jax.optim import adam, schedules
from medae_jax.scores import marks
from medae_jax.weights import annotation

_PUBLISHED = {"autoencoder": ("sigmoid", 3), "autoencoder_skip": ("sigmoid", 3),
              "basic_unet": ("linear", None), "jung_unet": ("sigmoid", 1)}


class Method(BaseMethod):
  needs = {"image": Need("BHWC", low=0, high=1, note="with annotations"),
           "clean": Need("BHWC", low=0, high=1, note="without"),
           "mask": Need("BHW1", low=0, high=1)}

  def __init__(self, config):
    super().__init__(config)
    self._check(config)
    o = config.optim
    self._schedule = schedules.build(o, config.train.steps)
    self._tx = adam.adam(self._schedule, b1=o.b1, b2=o.b2, eps=o.eps, weight_decay=o.weight_decay,
                          clip=o.clip)

  @staticmethod
  def _check(config):
    m, net = config.model, config.model.network
    if net not in nets.NETWORKS:
      raise UserError(f"config.model.network={net!r}: use {', '.join(nets.NETWORKS)}")
    for field, owner in (("bilinear", "basic_unet"), ("full_skip", "autoencoder_skip")):
      if m[field] and net != owner:
        raise UserError(f"config.model.{field}=True works with network={owner}, not {net}")
    if config.train.accum > 1 and net in ("basic_unet", "jung_unet"):
      raise UserError(f"config.train.accum > 1 changes the statistics of {net}'s batch normalisation: use "
                      "accum=1, or network=autoencoder or autoencoder_skip")
    if m.head not in ("gated", "residual", "sigmoid", "linear", "published"):
      raise UserError(f"config.model.head={m.head!r}: use gated, residual, sigmoid, linear or published")
    fill = config.method.score.fill
    if fill not in ("network", "harmonic"):
      raise UserError(f"config.method.score.fill={fill!r}: use network or harmonic")
    if m.head == "gated" and config.method.parity:
      raise UserError("config.model.head=gated is no form of the reference: set method.parity=False")

  # ------------------------------------------------------------------------------------- network
  def _net(self, channels: int, train: bool, axis_name=None):
    m = self.config.model
    published_head, published_channels = _PUBLISHED[m.network]
    outputs = channels
    if self.config.method.parity and published_channels:
      outputs = published_channels
      if outputs != channels:
        raise UserError(f"a published {m.network} has {outputs} output channels, the data have "
                         f"{channels}: set config.data.channels={outputs} or config.method.parity=False")
    head = {"gated": "linear", "residual": "linear", "published": published_head}.get(m.head, m.head)
    kw = {"out_channels": outputs + (m.head == "gated"), "width": m.width, "head": head,
          "dtype": jnp.dtype(m.dtype), "train": train}
    if m.network in ("basic_unet", "jung_unet"):
      kw.update(axis_name=axis_name, unbiased=self.config.method.parity)
    if m.network == "basic_unet":
      kw["bilinear"] = m.bilinear
    if m.network == "autoencoder_skip":
      kw["full_skip"] = m.full_skip
    return nets.NETWORKS[m.network](**kw)

  def _apply(self, params, stats, image, train: bool, axis_name=None):
    """({"recon" [B,H,W,C] not clipped, with a gate "logit" [B,H,W,1]}, statistics after the pass)."""
    net = self._net(image.shape[-1], train, axis_name)
    height, width = image.shape[1:3]
    grow = [(0, -n % net.stride) for n in (height, width)]
    x = jnp.pad(image, [(0, 0), *grow, (0, 0)], mode="edge")  # sides the poolings divide
    out, new = net.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])
    out = out[:, :height, :width]
    stats = new.get("batch_stats", {})
    if self.config.model.head == "gated":
      fill, logit = out[..., :-1], out[..., -1:]
      gate = jax.nn.sigmoid(logit)
      return {"recon": gate * fill + (1 - gate) * image, "logit": logit}, stats
    if self.config.model.head == "residual":
      out = image + out
    return {"recon": out}, stats

  def init(self, rng, batch):
    image = jnp.asarray(batch["image"][:1])
    net = self._net(image.shape[-1], False)
    side = [-(-n // net.stride) * net.stride for n in image.shape[1:3]]
    variables = net.init(rng, jnp.zeros((1, *side, image.shape[-1])))
    params, stats = variables["params"], variables.get("batch_stats", {})
    return State.create({"net": params}, {"net": stats}, {"net": self._tx.init(params)})

  # ------------------------------------------------------------------------------------- training
  def _weight(self, batch):
    m, mask = self.config.method, batch["mask"]
    if m.parity:
      mask = (batch["image"] != batch["clean"]).astype(jnp.float32)
    return pixel.mask_weight(mask, m.alpha, m.beta)

  def _terms(self, out, batch, norm):
    """{name: [B]} of the weighted terms of the loss; `norm` [] or [B] divides the squared error."""
    m, recon = self.config.method, out["recon"]
    error = pixel.weighted_squared_error(batch["clean"], recon, self._weight(batch), norm)
    terms = {"mse": m.mse_weight * error}
    if m.ssim_weight:
      target = batch["image"] if m.parity else batch["clean"]
      terms["ssim"] = m.ssim_weight * ssim.ssim_loss(recon, target, m.ssim_window)
    if "logit" in out:
      entropy = optax.sigmoid_binary_cross_entropy(out["logit"], batch["mask"])
      terms["mark"] = m.mark_weight * jnp.mean(entropy, (1, 2, 3))
    return terms

  def train_step(self, state, batch, rng, *, stage, axis_name):
    del stage
    # The normaliser belongs to the global batch: known before the gradient, so that devices and
    # accumulated slices may simply average.
    norm = parallel.pmean(
        pixel.mean_weight(self._weight(batch), batch["clean"].shape[-1]), axis_name)

    def loss_fn(params, batch, rng):
      del rng
      out, stats = self._apply(params, state.stats["net"], batch["image"], True, axis_name)
      terms = {k: jnp.mean(v) for k, v in self._terms(out, batch, norm).items()}
      return sum(terms.values()), {"stats": stats, "terms": terms}
    (loss, aux), grads = parallel.value_and_grad(loss_fn, state.params["net"], batch, rng,
                                                 accum=self.config.train.accum, axis_name=axis_name)
    updates, opt = self._tx.update(grads, state.opt["net"], state.params["net"])
    params = jax.tree.map(jnp.add, state.params["net"], updates)
    metrics = {"loss": loss, **{f"loss_{k}": v for k, v in aux["terms"].items()},
               "grad_norm": adam.global_norm(grads), "lr": self._schedule(state.step)}
    return state.replace(step=state.step + 1, params={"net": params}, stats={"net": aux["stats"]},
                         opt={"net": opt}), metrics

  def eval_step(self, state, batch, rng):
    """The loss of each example by itself, and its terms."""
    del rng
    out, _ = self._apply(state.params["net"], state.stats["net"], batch["image"], False)
    weight = self._weight(batch)
    norm = jnp.sum(weight, (1, 2, 3)) * (batch["clean"].shape[-1] // weight.shape[-1])
    terms = self._terms(out, batch, norm)
    return {"loss": sum(terms.values()), **{f"loss_{k}": v for k, v in terms.items()}}

  def pictures(self, state, batch, rng):
    """{"recon"} and, where the batch has it, {"clean"}, [B,H,W,C] in [0,1]."""
    del rng
    out, _ = self._apply(state.params["net"], state.stats["net"], batch["image"], False)
    return {"recon": jnp.clip(out["recon"], 0, 1), **({"clean": batch["clean"]} if "clean" in batch else {})}

  # -------------------------------------------------------------------------------------- scoring
  def score(self, state, batch):
    """What evaluate, predict and export use.

    Returns:
      "recon" [B,H,W,C] in [0,1], the network's image; "map" [B,H,W,1], evidence of a mark; "marks"
      [B,H,W,1] 0 or 1, map >= threshold grown by `dilate` pixels; "restored" [B,H,W,C], recon on the
      marks and the image elsewhere; "score" [B], share of pixels on marks.
    """
    image, s = batch["image"], self.config.method.score
    out, _ = self._apply(state.params["net"], state.stats["net"], image, False)
    recon = jnp.clip(out["recon"], 0.0, 1.0)
    if "logit" in out:
      evidence = jax.nn.sigmoid(out["logit"])
    else:
      evidence = jnp.max(jnp.abs(recon - image), -1, keepdims=True)
    marked = marks.find(evidence, s.threshold, s.dilate)
    found = marked.astype(jnp.float32)
    return {"recon": recon, "map": evidence, "marks": found,
            "restored": jnp.where(marked, recon, image),
            "score": jnp.mean(found, (1, 2, 3))}

  # ----------------------------------------------------------------------------------- conversion
  def from_torch(self, tensors):
    """({net: params}, {net: statistics}) from a published state dictionary."""
    channels = self.torch_fields(tensors)["data.channels"]
    like = jax.eval_shape(self.init, jax.random.key(0),
                          {"image": jnp.zeros((1, 32, 32, channels))})
    params, stats = annotation.from_reference(
        self.config.model.network, tensors, like.params["net"], like.stats["net"])
    return {"net": params}, {"net": stats}

  def torch_fields(self, tensors):
    """Config fields that a published state dictionary reveals; `convert` sets them."""
    return annotation.fields(tensors)
