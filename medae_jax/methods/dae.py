"""Denoising autoencoder with coarse noise (Kascenas, Pugeault, O'Neil, MIDL 2022).

A U-Net f learns to remove noise from healthy slices: x~ = x + m u, where u is Gaussian noise drawn
on a coarse grid (16x16), upsampled bilinearly (align_corners) and rolled, and m = 1[sum_c x > 0.01]
the foreground. Loss: sum m (f(x~) - x)^2 / (B C H W). An anomaly is what f removes:
  map = median5x5( mean_c |x - f(x)| e ),  e = the foreground eroded by a 5x5 box.
Optimiser: clip 0.5 -> + 1e-5 theta -> AMSGrad, periodic cosine (optim/adam.py, optim/schedules.py).

Options that the reference lacks, all off by default (config.method.score):
  residual signs and weights   map = mean_c (w+_c max(x - f, 0) + w-_c max(f - x, 0)); evaluate can
                               fit them on the validation split (config.eval.fit_residual).
  test_noise_draws, test_noise_std   average the residual over fixed noise fields at test time.
  test_noise_mirror            every second of them on the image mirrored along this axis (0: none).
  erosion, median              sizes of the two filters; foreground=False: e is 1 before it is eroded.
  saturation, guided, gaussian   further steps after them: scores/residual.py, scores/guided.py.
  kind                         another score of the same reconstruction: scores/reconstruction.py.
config.method.loss (l1, l2, ssim, with factors) takes an expression over all pixels instead of the masked
squared error, and config.method.noise the noise of data sets that say nothing of it. On chest radiographs
(Bercea et al. 2023, MICCAI; docs/ae_zoo.md) the score is the mean absolute residual of all pixels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core import parallel
from medae_jax.core.errors import UserError, of_field
from medae_jax.core.method import BaseMethod, Need, State
from medae_jax.losses import perceptual, pixel
from medae_jax.methods import _coarse_noise as noise
from medae_jax.models import dae_unet
from medae_jax.models.layers import joined_kernels
from medae_jax.optim import adam, schedules
from medae_jax.scores import reconstruction, residual as scores
from medae_jax.weights import dae as dae_weights


def build_optimizer(config, total_steps: int):
  """The public code's update rule: AMSGrad (Reddi et al. 2018) of the clipped gradient + L2 term."""
  o = config.optim
  return adam.adam(schedules.build(o, total_steps), b1=o.b1, b2=o.b2, eps=o.eps,
                    weight_decay=o.weight_decay, clip=o.clip, amsgrad=o.amsgrad, own=dae_unet.is_standardised)


def _pixel_terms(text: str):
  """Terms of config.method.loss; () for "", the masked squared error."""
  with of_field("method.loss", text):
    terms = perceptual.parse(text, layers="") if text else ()
  wrong = [t.name for t in terms if t.name not in perceptual.PIXEL]
  if wrong:
    raise UserError(f"config.method.loss={text!r}: this method takes {', '.join(perceptual.PIXEL)}")
  return terms


class Method(BaseMethod):
  needs = {"image": Need("BHWC", low=0, note="background exactly 0")}
  frozen = (reconstruction.NET,)

  def __init__(self, config):
    super().__init__(config)
    self._schedule = schedules.build(config.optim, config.train.steps)
    self._tx = build_optimizer(config, config.train.steps)
    self._scores = reconstruction.Reconstruction(config, self.needs["image"])
    self.fits = self._scores.fits
    self._terms = _pixel_terms(config.method.get("loss", ""))

  def _net(self, channels: int) -> dae_unet.UNet:
    m = self.config.model
    return dae_unet.UNet(channels, m.depth, m.wf, jnp.dtype(m.dtype), m.precision or None, m.remat,
                         m.get("norm_kernel", "plain"))

  def _apply(self, params, image):
    net = self._net(image.shape[-1])
    if joined_kernels.wanted():
      net, params = net.clone(ready=True), dae_unet.standardised(params, net.dtype)
    return net.apply({"params": params}, image)

  def init(self, rng, batch):
    image = jnp.asarray(batch["image"][:1])
    params = self._net(image.shape[-1]).init(rng, image)["params"]
    return State.create({"net": params, **self._scores.init_params()}, opt={"net": self._tx.init(params)})

  def pretrained(self):
    return self._scores.pretrained()

  def corrupt(self, batch, rng):
    """The noised image [B,H,W,C] and the foreground [B,H,W,1] of a batch.

    Uses batch["noise"] and batch["roll"] from the pipeline, else draws on the device.
    """
    image = batch["image"]
    if "noise" in batch:
      coarse, roll = batch["noise"], batch["roll"]
    else:
      d = self.config.method.get("noise", None) or self.config.data
      coarse, roll = noise.draw(rng, batch["index"], image.shape[1:], d.noise_res, d.noise_std,
                                d.noise_roll)
    mask = pixel.foreground(image)
    return image + mask * noise.upsample_and_roll(coarse, roll, *image.shape[1:3]), mask

  def _losses(self, params, batch, rng):
    noised, mask = self.corrupt(batch, rng)
    recon = self._apply(params, noised)
    if self._terms:
      return perceptual.per_image(self._terms, None, batch["image"], recon)
    return pixel.masked_squared_error(batch["image"], recon, mask, self.config.method.loss_over)

  def train_step(self, state, batch, rng, *, stage, axis_name):
    del stage
    loss_fn = lambda p, b, r: (jnp.mean(self._losses(p, b, r)), {})
    (loss, _), grads = parallel.value_and_grad(loss_fn, state.params["net"], batch, rng,
                                               accum=self.config.train.accum, axis_name=axis_name)
    updates, opt = self._tx.update(grads, state.opt["net"], state.params["net"])
    params = jax.tree.map(jnp.add, state.params["net"], updates)
    metrics = {"loss": loss, "grad_norm": adam.global_norm(grads), "lr": self._schedule(state.step)}
    params = {**state.params, "net": params}
    return state.replace(step=state.step + 1, params=params, opt={"net": opt}), metrics

  def eval_step(self, state, batch, rng):
    return {"loss": self._losses(state.params["net"], batch, rng)}

  def pictures(self, state, batch, rng):
    """{"noised", "recon"} [B,H,W,C]: training-like input and what the network makes of it, in [0,1]."""
    noised, _ = self.corrupt(batch, rng)
    recon = self._apply(state.params["net"], noised)
    return {"noised": jnp.clip(noised, 0, 1), "recon": jnp.clip(recon, 0, 1)}

  def finalize(self, state, batches):
    return self._scores.finalize(state, batches, lambda s, b: self._apply(s.params["net"], b["image"]))

  def score(self, state, batch):
    """{"recon" [B,H,W,C], "map" [B,H,W,1], "score" [B]}; config.method.score has the options."""
    image, s = batch["image"], self.config.method.score
    mask = pixel.foreground(image)
    recon = self._apply(state.params["net"], image)
    residual = image - recon
    if s.test_noise_draws:
      residual = self._noisy_residual(state, image, mask)
      recon = image - residual  # the mean of the draws: what the map is made of
    kept = scores.inside(mask, s)
    finish = lambda raw: scores.finished(raw, image, kept, s)
    anomaly = finish(scores.residual_map(residual, weights_positive=s.weights_positive,
                                         weights_negative=s.weights_negative))
    out = {"recon": recon, "map": anomaly, "score": scores.image_score(anomaly, s.image_score, mask)}
    return self._scores.outputs(state, image, out, finish, mask)

  def _noisy_residual(self, state, image, mask):
    """Mean of x - f(x + noise) over fixed noise fields, the same for every image."""
    s, shape = self.config.method.score, image.shape[1:]
    axis = s.test_noise_mirror
    # Not `where` of a flag: ONNX's has no such form. Images are finite.
    turned = lambda a, mirrored: mirrored * jnp.flip(a, axis) + (1 - mirrored) * a if axis else a
    fields = noise.fixed(s.test_noise_draws, shape, s.test_noise_res, s.test_noise_std)
    mirrored = np.arange(s.test_noise_draws, dtype=np.float32) % 2

    def one(total, draw):
      field, mirrored = noise.upsample(*draw[:3]), draw[3]
      # +field and -field cancel the part of the residual that is the network's echo of the noise
      view, inside = turned(image, mirrored), turned(mask, mirrored)
      plus = self._apply(state.params["net"], view + inside * field)
      minus = self._apply(state.params["net"], view - inside * field)
      return total + turned(view - (plus + minus) / 2, mirrored), None
    total, _ = jax.lax.scan(one, jnp.zeros_like(image), (*fields, mirrored))
    return total / s.test_noise_draws

  def inference_state(self, state):
    nets, fitted = self._scores.inference(state)
    return state.replace(params={"net": state.params["net"], **nets}, extra=fitted, opt={})

  def from_torch(self, tensors):
    """{net: params} from a state dict of the public code (AntanasKascenas/DenoisingAE)."""
    return {"net": dae_weights.from_torch(tensors, self.config.model.depth), **self.pretrained()}

  def torch_fields(self, tensors):
    """Config fields that a state dict of the reference reveals; `convert` sets them."""
    sizes = dae_weights.torch_sizes(tensors)
    return {"model.depth": sizes["depth"], "model.wf": sizes["wf"],
            "data.channels": sizes["channels"]}
