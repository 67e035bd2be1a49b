"""Segmentation from noisy annotations (Mirikharaji, Yan, Hamarneh, MIL3ID 2019, arXiv 1906.03815).

Many images with cheap masks (stream "noisy") and a few with expert masks ("clean"). One step:
  g   = grad mean BCE(f(theta, clean))                          mean over all devices
  u_i = <g, grad l_i>, l_i = BCE of noisy pixel i               one JVP of the noisy logits along g
  w_i = max(u_i, 0) / sum max(u, 0)                             sum over the batches of all devices
  theta <- SGD(momentum 0.99, L2 5e-5)(grad sum_i w_i l_i)      w constant
The JVP form equals the published double-backward form to rounding (medae_jax/methods/_reweighting.py);
config.method.meta = "double_backward" runs the latter. config.method.baseline chooses among
  pixel_reweight  the above;
  image_reweight  one weight an image (Ren et al., ICML 2018): u summed over each image;
  plain           mean BCE of the noisy stream;
  supervised      mean BCE of the clean stream;
  finetune        plain for the first steps, then supervised with a fresh optimiser.

Deviations, all off by default: clip and uniform_mix of the weights, normalise per image,
clean_weight (adds that multiple of the clean loss: its gradient g is there already). The clean
batch's own size, ignored by the published code, is honoured; its folders are not swapped.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medae_jax.core import parallel
from medae_jax.core.device import loops
from medae_jax.core.errors import UserError
from medae_jax.core.method import BaseMethod, Need, Stage, State
from medae_jax.methods import _reweighting as reweighting
from medae_jax.models import noisy_unet
from medae_jax.optim import adam, schedules
from medae_jax.weights import noisy_annotation as noisy_annotation_weights

BASELINES = ("pixel_reweight", "image_reweight", "plain", "supervised", "finetune")


class Method(BaseMethod):
  needs = {f"{stream}/{name}": Need(dims, low=low, high=1) for stream in ("noisy", "clean")
           for name, dims, low in (("image", "BHWC", -1), ("mask", "BHW1", 0))}  # -1: less a mean image
  # In evaluation of the noisy set: where the learnt weights of an example are kept.
  score_optional = ("sample",)

  def __init__(self, config):
    super().__init__(config)
    m = config.method
    _choose(m.baseline, BASELINES, "config.method.baseline")
    _choose(m.meta, ("jvp", "double_backward"), "config.method.meta")
    _choose(m.normalise, ("batch", "image"), "config.method.normalise")
    _choose(config.optim.name, ("sgd", "adam"), "config.optim.name")
    if config.train.accum > 1 and (m.clip or m.uniform_mix or m.meta != "jvp"):
      raise UserError("config.train.accum > 1 adds up unnormalised weights: it works with "
                       "config.method.meta='jvp', clip=0 and uniform_mix=0 only")

  # ------------------------------------------------------------------ network, optimiser, stages
  def _apply(self, params, image, dtype=None):
    """Logits [B,H,W,1] of images in [0,1], standardised here so that an export holds it all."""
    m = self.config.model
    if len(m.mean) not in (1, image.shape[-1]) or len(m.std) != len(m.mean):
      raise UserError(f"config.model.mean and std have {len(m.mean)} and {len(m.std)} values for "
                       f"images of {image.shape[-1]} channels: give one, or one a channel")
    image = (image - jnp.asarray(m.mean, image.dtype)) / jnp.asarray(m.std, image.dtype)
    # Parameters in float64 (tests of exactness) are computed in float64.
    widest = jnp.promote_types(dtype or m.dtype, _float64_or(jnp.bfloat16, params))
    net = noisy_unet.NoisyUNet(m.width, widest, m.precision or None, m.sides)
    return net.apply({"params": params}, image)

  def stages(self):
    """"reweight", "noisy" or "clean" name the loss; fine-tuning has two stages."""
    steps, baseline = int(self.config.train.steps), self.config.method.baseline
    if baseline == "finetune":
      tuned = round(steps * self.config.method.finetune_share)
      return (Stage("noisy", steps - tuned), Stage("clean", tuned))
    return (Stage({"plain": "noisy", "supervised": "clean"}.get(baseline, "reweight"), steps),)

  def _optimizer(self, stage):
    """(transformation, schedule of the stage's own step count)."""
    o = self.config.optim.copy_and_resolve_references()
    if self.config.method.baseline == "finetune" and stage.name == "clean":
      with o.unlocked():
        o.lr = o.lr * self.config.method.finetune_lr
    schedule = schedules.build(o, max(stage.steps, 1))
    if o.name == "adam":
      return adam.adam(schedule, b1=o.momentum, weight_decay=o.weight_decay), schedule
    return adam.sgd(schedule, momentum=o.momentum, weight_decay=o.weight_decay), schedule

  def init(self, rng, batch):
    m, image = self.config.model, jnp.asarray(batch["noisy"]["image"][:1])
    net = noisy_unet.NoisyUNet(m.width, sides=m.sides)
    params = noisy_unet.initial_params(net, rng, image, m.init)
    opt = {"net": self._optimizer(self.stages()[0])[0].init(params)}
    return State.create({"net": params}, self._stats(), opt)

  def _stats(self):
    capacity = self.config.method.track
    if not capacity or self.stages()[0].name != "reweight":
      return {}
    return {"track": reweighting.empty_track(capacity, self.config.method.track_size)}

  def grow(self, state, stage, rng, batch):
    """Fine-tuning starts with a fresh velocity: 0.99 would carry the noisy gradient for long."""
    return state.replace(opt={"net": self._optimizer(stage)[0].init(state.params["net"])})

  # ------------------------------------------------------------------------------------ training
  def train_step(self, state, batch, rng, *, stage, axis_name):
    params, accum = state.params["net"], self.config.train.accum
    tx, schedule = self._optimizer(stage)
    stats = state.stats
    if stage.name == "reweight":
      grads, metrics, learnt = self._reweighted(params, batch, accum, axis_name)
      if "track" in stats and "sample" in batch["noisy"]:
        stats = {"track": reweighting.update_track(
            stats["track"], batch["noisy"], *learnt, self.config.method.track_window, axis_name)}
    else:
      _check_slices(batch[stage.name]["image"], accum, stage.name)
      grad_fn = lambda name: parallel.value_and_grad(
          self._mean_loss, params, batch[name], rng, accum=accum, axis_name=axis_name)
      (loss, _), grads = grad_fn(stage.name)
      metrics = {"loss": loss}
      if stage.name == "noisy" and self.config.method.clean_weight:
        (metrics["clean_loss"], _), clean = grad_fn("clean")
        grads = _add(grads, clean, self.config.method.clean_weight)
    updates, opt = tx.update(grads, state.opt["net"], params)
    metrics |= {"grad_norm": adam.global_norm(grads), "lr": schedule(state.step - stage.begin)}
    params = jax.tree.map(jnp.add, params, updates)
    return state.replace(step=state.step + 1, params={"net": params}, stats=stats,
                         opt={"net": opt}), metrics

  def _mean_loss(self, params, batch, rng, dtype=None):
    del rng
    logits = self._apply(params, batch["image"], dtype)
    return jnp.mean(reweighting.pixel_bce(logits, batch["mask"])), {}

  def _reweighted(self, params, batch, accum, axis_name):
    """Gradient, metrics and (relative weights, u) [B,H,W,1] of one step."""
    m, noisy = self.config.method, batch["noisy"]
    for name in ("noisy", "clean"):
      _check_slices(batch[name]["image"], accum, name)

    def clean_grad(at, slices=accum):
      loss = lambda p, b, r: self._mean_loss(p, b, r, m.meta_dtype)
      (value, _), grad = parallel.value_and_grad(loss, at, batch["clean"], None, accum=slices,
                                                 axis_name=axis_name)
      return value, grad
    clean_loss, direction = clean_grad(params)

    if accum == 1:
      logits, u, pull = self._agreement(params, noisy, direction, clean_grad)
      raw = reweighting.rectify(u, self._per, m.normalise)
      weight = reweighting.normalised(raw, axis_name, clip=m.clip, uniform_mix=m.uniform_mix)
      grads = pull(weight * reweighting.slope(logits, noisy["mask"]))
      loss = jnp.sum(weight * reweighting.pixel_bce(logits, noisy["mask"]))
      grads, loss = parallel.psum((grads, loss), axis_name)
    else:
      grads, loss, raw, u = self._accumulated(params, noisy, direction, accum, axis_name)
      weight = reweighting.normalised(raw, axis_name)
    if m.clean_weight:
      grads = _add(grads, direction, m.clean_weight)
    pixels = parallel.psum(weight.size, axis_name)
    share = lambda x: parallel.psum(jnp.sum(x, dtype=jnp.float32), axis_name) / pixels
    metrics = {"loss": loss, "clean_loss": clean_loss, "zero_weights": share(weight <= 0),
               "agreement": share(u > 0)}
    return grads, metrics, (weight * pixels, u)

  @property
  def _per(self):
    return "image" if self.config.method.baseline == "image_reweight" else "pixel"

  def _agreement(self, params, noisy, direction, clean_grad):
    """z, u and pull of reweighting.agreement, in the dtypes and the form that the config names."""
    m, dtype = self.config.method, self.config.model.dtype
    image, mask = noisy["image"], noisy["mask"]
    meta = lambda p, x: self._apply(p, x, m.meta_dtype)
    if m.meta == "jvp" and jnp.dtype(m.meta_dtype) == jnp.dtype(dtype):
      return reweighting.agreement(meta, params, image, mask, direction)
    if m.meta == "jvp":
      _, u, _ = reweighting.agreement(meta, params, image, mask, direction)
    else:
      u = reweighting.agreement_double_backward(
          meta, params, image, mask, lambda at: clean_grad(at)[1], self.config.optim.lr)
    logits, pull = jax.vjp(lambda p: self._apply(p, image), params)
    return logits, u, lambda cotangent: pull(cotangent)[0]

  def _accumulated(self, params, noisy, direction, accum, axis_name):
    """Sums of unnormalised slices, divided once by the sum of all weights of all devices."""
    m = self.config.method
    noisy = {k: noisy[k] for k in ("image", "mask")}
    slices = jax.tree.map(lambda x: x.reshape(accum, x.shape[0] // accum, *x.shape[1:]), noisy)

    def one(total, part):
      logits, u, pull = self._agreement(params, part, direction, None)
      raw = reweighting.rectify(u, self._per, m.normalise)
      sums = (pull(raw * reweighting.slope(logits, part["mask"])), jnp.sum(raw),
              jnp.sum(raw * reweighting.pixel_bce(logits, part["mask"])))
      return jax.tree.map(jnp.add, total, sums), (raw, u)
    zero = jnp.zeros((), slices["mask"].dtype)
    begin = (jax.tree.map(jnp.zeros_like, params), zero, zero)
    (grads, total, loss), per_pixel = loops.scan(one, begin, slices)
    grads, total, loss = parallel.psum((grads, total, loss), axis_name)
    scale = jnp.where(total > 0, 1 / jnp.where(total > 0, total, 1), 0)
    raw, u = (x.reshape(noisy["mask"].shape) for x in per_pixel)
    return jax.tree.map(lambda g: g * scale, grads), loss * scale, raw, u

  # ---------------------------------------------------------------------- validation and scoring
  def eval_step(self, state, batch, rng):
    """{"loss": mean BCE [B], "dice": at 0.5 [B], 1 where mask and prediction are both empty}."""
    logits = self._apply(state.params["net"], batch["image"])
    found, mask = logits > 0, batch["mask"] > 0.5
    count = lambda x: jnp.sum(x, (1, 2, 3), dtype=jnp.float32)
    both = count(found) + count(mask)
    dice = jnp.where(both > 0, 2 * count(found & mask) / jnp.maximum(both, 1), 1)
    return {"loss": jnp.mean(reweighting.pixel_bce(logits, batch["mask"]), (1, 2, 3)), "dice": dice}

  def score(self, state, batch):
    """{"map": lesion probability [B,H,W,1], "logit" [B,H,W,1], "score": mean probability [B]}.

    Where batch has "sample" and training tracked weights: "weight" [B,s,s,1] (1 = uniform), "agree"
    [B] and "seen" [B] of that noisy example; seen is 0 beyond the capacity config.method.track.
    """
    logits = self._apply(state.params["net"], batch["image"])
    prob = jax.nn.sigmoid(logits)
    out = {"map": prob, "logit": logits, "score": jnp.mean(prob, (1, 2, 3))}
    if "sample" in batch and "track" in state.stats:
      track, sample = state.stats["track"], batch["sample"]
      known = (sample >= 0) & (sample < len(track["seen"]))
      place = jnp.where(known, sample, 0)
      out |= {"weight": track["weight"][place][..., None], "agree": track["agree"][place],
              "seen": jnp.where(known, track["seen"][place], 0)}
    return out

  def inference_state(self, state):
    """The network. What training learnt of each noisy example is read with the key "sample" only."""
    return state.replace(stats={}, opt={})

  def from_torch(self, tensors):
    """(params, stats) from the published state dictionary (key "state_dict" of its checkpoints)."""
    return {"net": noisy_annotation_weights.from_torch(tensors)}, self._stats()

  def torch_fields(self, tensors):
    """The width of the network that the file holds."""
    return {"model.width": int(tensors["down1.layer.0.weight"].shape[0])} if (
        "down1.layer.0.weight" in tensors) else {}


def _choose(value, known, field):
  if value not in known:
    raise UserError(f"{field}={value!r}: use {', '.join(known)}")


def _check_slices(image, accum, stream):
  if image.shape[0] % accum:
    field = "config.train.batch_size" if stream == "noisy" else "config.data.batch_sizes.clean"
    raise UserError(f"a device's share of {image.shape[0]} {stream} images is not divisible by "
                     f"config.train.accum={accum}; change {field}")


def _float64_or(other, params):
  return jnp.float64 if jax.tree.leaves(params)[0].dtype == jnp.float64 else other


def _add(grads, more, factor):
  return jax.tree.map(lambda a, b: a + factor * b, grads, more)
