"""Meta-learned weights of noisy examples: which pixels' losses agree with a clean batch?

With per-pixel losses l_i(theta) of a noisy batch and the mean loss L_c of a clean one, the weight
of pixel i before rectification is, up to the learning rate (Ren et al. 2018; Mirikharaji et al.
2019),
  u_i = -1/lr d/d eps_i L_c(theta - lr grad sum_j eps_j l_j(theta)) at eps = 0
      = <grad L_c(theta), grad l_i(theta)> = d/ds l_i(theta + s grad L_c(theta)) at s = 0:
for all pixels at once *one* Jacobian-vector product of the logits z along g = grad L_c,
  u = (sigmoid(z) - mask) * dz[g].
No second copy of the network and no graph of a gradient; the learning rate cancels in the
normalisation and is left out. The reverse-over-reverse form is kept as the slow reference.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from medae_jax.core import parallel
from medae_jax.losses import pixel


def pixel_bce(logits, mask):
  """Binary cross-entropy with logits, [B,H,W,1] each, no reduction.

  max(z, 0) - z mask + log(1 + exp(-|z|)): nothing cancels for large logits of the right sign. The
  derivative is `slope` at exactly 0, too: what a black border gives while all biases are 0.
  """
  return jnp.maximum(logits, 0) - logits * mask + jnp.log1p(jnp.exp(-pixel.absolute(logits)))


def slope(logits, mask):
  """d pixel_bce / d logits."""
  return jax.nn.sigmoid(logits) - mask


def agreement(apply: Callable, params, image, mask, clean_grad):
  """u by one JVP, and the transposed linear map for the update: the forward pass is shared.

  Args:
    apply: (params, image) -> logits [B,H,W,1].
    clean_grad: g, the gradient of the mean clean loss at `params`.

  Returns:
    logits z [B,H,W,1], u [B,H,W,1], and pull: cotangent of z -> gradient of the parameters.
  """
  logits, push = jax.linearize(lambda p: apply(p, image), params)
  pull = jax.linear_transpose(push, params)
  return logits, slope(logits, mask) * push(clean_grad), lambda cotangent: pull(cotangent)[0]


def agreement_double_backward(apply: Callable, params, image, mask, clean_grad_at: Callable,
                              lr: float):
  """u as the published code computes it: through the graph of a virtual step's gradient.

  Args:
    clean_grad_at: params -> gradient of the mean clean loss there, averaged over devices. It is
      pulled back through the virtual step by hand: differentiating through a mean over devices
      would scale it by their number.
    lr: of the virtual step; cancels (eps = 0 leaves the parameters where they are).

  Returns:
    u [B,H,W,1], divided by lr.
  """
  def virtual(eps):
    weighted = lambda p: jnp.sum(eps * pixel_bce(apply(p, image), mask))
    return jax.tree.map(lambda p, d: p - lr * d, params, jax.grad(weighted)(params))
  moved, pull = jax.vjp(virtual, jnp.zeros_like(mask))
  return -pull(clean_grad_at(moved))[0] / lr


def rectify(u, per: str, normalise: str):
  """Unnormalised weights max(u, 0), [B,H,W,1].

  Args:
    per: "pixel" (Mirikharaji 2019) or "image" (Ren 2018): u summed over each image, rectified, and
      spread evenly over its pixels.
    normalise: "batch" leaves the scale of images to the sum over the batch; "image" first gives
      each image with any agreeing pixel the same total.
  """
  if per == "image":
    u = jnp.broadcast_to(jnp.mean(u, (1, 2, 3), keepdims=True), u.shape)
  raw = jnp.maximum(u, 0)
  if normalise == "image":
    raw = _divide(raw, jnp.sum(raw, (1, 2, 3), keepdims=True))
  return raw


def normalised(raw, axis_name, *, clip: float = 0.0, uniform_mix: float = 0.0):
  """Weights that sum to 1 over the batches of *all* devices; zeros where nothing agrees.

  Args:
    raw: [B,H,W,1], this device's rectified values.
    clip: largest weight, in units of the uniform one; 0 = none. The rest is not scaled up again.
    uniform_mix: k in (1-k) w + k/pixels; 0 is the paper.
  """
  uniform = 1 / parallel.psum(raw.size, axis_name)
  weight = _divide(raw, parallel.psum(jnp.sum(raw), axis_name))
  if clip:
    weight = jnp.minimum(weight, clip * uniform)
  return (1 - uniform_mix) * weight + uniform_mix * uniform if uniform_mix else weight


def _divide(value, total):
  """value / total, 0 where total is 0 (and no NaN in a derivative)."""
  return jnp.where(total > 0, value / jnp.where(total > 0, total, 1), 0)


# ------------------------------------------------------------- what training learnt of each example
def empty_track(capacity: int, size: int):
  """Running means for `capacity` noisy examples: relative weight maps, agreement, visits."""
  return {"weight": jnp.ones((capacity, size, size), jnp.float32),
          "agree": jnp.zeros((capacity,), jnp.float32), "seen": jnp.zeros((capacity,), jnp.float32)}


def update_track(track, noisy, relative, u, window: int, axis_name):
  """Folds one batch into the running means.

  Args:
    track: as `empty_track` makes it.
    noisy: the batch: "sample" int32 [B], the example's place in the noisy set (places below 0
      and beyond the capacity are dropped), and what the augmentation did: "flip" int32 [B,2]
      (rows, columns) and "crop" int32 [B,3] (top, left, margin): pixels cut off an image larger
      by `margin`, before the flip.
    relative: [B,H,W,1], weights in units of the uniform one.
    u: [B,H,W,1] before rectification; its share of positive pixels is the agreement.
    window: visits the mean reaches back over once there are as many.

  Returns:
    track; the same on all devices and in whatever way they share the batch.
  """
  size = track["weight"].shape[1]
  maps = jax.vmap(lambda w, flip, crop: _original_frame(w, flip, crop, size))(
      relative[..., 0], noisy["flip"], noisy["crop"])
  agree = jnp.mean(u > 0, (1, 2, 3))
  capacity = track["seen"].shape[0]
  sample = jnp.where(noisy["sample"] < 0, capacity, noisy["sample"])  # -1 would be the last one
  gathered = parallel.all_gather((sample, maps, agree), axis_name)

  def one(track, example):  # in order: an example can come twice in a batch, across epochs
    sample, weight, share = example
    rate = jnp.maximum(1 / (track["seen"][sample] + 1), 1 / window)
    blend = lambda old, new: old.at[sample].add(rate * (new - old[sample]), mode="drop")
    return {"weight": blend(track["weight"], weight), "agree": blend(track["agree"], share),
            "seen": track["seen"].at[sample].add(1, mode="drop")}, None
  return jax.lax.scan(one, track, gathered)[0]


def _original_frame(weight, flip, crop, size):
  """Undoes flip and crop of a weight map [H,W] and resizes it to [size,size].

  What lies outside the crop gets the map's mean.
  """
  weight = jnp.where(flip[0] > 0, weight[::-1], weight)
  weight = jnp.where(flip[1] > 0, weight[:, ::-1], weight)
  full = jnp.array(weight.shape, jnp.float32) + crop[2]
  place = lambda x: jax.image.scale_and_translate(
      x, (size, size), (0, 1), size / full, crop[:2] * size / full, "linear")
  inside = place(jnp.ones_like(weight)) > 0.5
  return jnp.where(inside, place(weight), jnp.mean(weight))
