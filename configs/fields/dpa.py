"""Every field of a DPA experiment with its published default; configs/dpa_*.py fill in the rest."""

import ml_collections

from configs import common
from configs.fields import scores, trunk
from data_pipelines.datasets import synthetic_textures
from data_pipelines.errors import UserError
from data_pipelines.fields import changed

_group = ml_collections.ConfigDict
EXPERIMENTS = ("wo_pg", "pg", "unsupervised", "L1_unsupervised", "with_L1", "with_adversarial",
               "with_adversarial_L1")


def base() -> ml_collections.ConfigDict:
  """All groups but data, without growing and adversarial term; vgg_weights must be given."""
  config = common.base()
  config.method = method = _group()
  method.name = "dpa"
  method.loss = "relative_perceptual_L1"  # a sum of l1, l2, perceptual and this one: "... + 0.1*l1"
  method.layers = "r32"            # VGG19 layers: "r32+0.5*r42", or per stage "8:r12, 16:r22"
  # Switches of a plain "perceptual" term.
  method.normalize = method.absolute = method.relative = False
  method.smooth_pg = False         # blend the losses of both resolutions in transitions
  method.update(trunk.defaults())
  method.cache_features = False    # with data.resident: features of real images computed once
  method.parity = False            # N or N + 1 steps in the last stage, as the public code's sum

  method.growing = growing = _group()
  growing.initial_res = 0          # first resolution; 0 = no growing
  growing.transition_steps = 20000  # of each transition
  growing.stable_steps = 20000     # of each stable stage but the last, which has train.steps
  growing.steps_per_stage = ""     # exceptions: "transition_16:100, stable_32:50"
  growing.batch_sizes = ""         # exceptions to train.batch_size: "8:128, 16:64"
  growing.antialias = False        # down-scaling by area; the public code takes the central 2x2

  method.adversarial = adversarial = _group()
  adversarial.weight = 0.0         # of the generator's loss; 0 = no critic
  adversarial.name = "wasserstein"  # wasserstein, logistic or least_squares
  adversarial.n_critic = 2         # critic steps a training step, each with a batch of its own
  adversarial.wasserstein_weight, adversarial.gradient_penalty = 1.0, 10.0  # wasserstein
  adversarial.norm_penalty, adversarial.target_gamma = 0.001, 1.0  # wasserstein
  adversarial.reg_alpha = 0.0      # logistic: weight of the gradient penalty
  adversarial.reg_type = "real"    # logistic: its place (real, fake, real_fake)

  method.score = score = _group()
  score.loss = "relative_perceptual_L1"  # anomaly score, whatever the training loss; "" = the same
  score.layers = ""                # "" = those of training
  scores.add(score)                # kind: another score of the same reconstruction

  config.model = model = _group()
  model.kind = "residual18"        # residual18, residual9 or regular
  model.max_res = 32               # side of the images
  model.latent_dim = 32            # channels of the bottleneck
  model.latent_res = 1             # its side: 1, or a power of two from 4
  model.enc_widths = (32, 32, 32, 32)  # fine to coarse
  model.dec_widths = ()            # coarse to fine; () = the encoder's reversed
  model.critic_widths = ()         # of the critic; () = the encoder's
  model.allow_long_widths = False  # accept lists that are too long, as the public code does
  model.norm, model.pad = "none", "zero"  # none, bn, in, pixel; zero, reflect
  model.use_wscale = model.normalize_latents = False  # regular family only
  model.pool, model.upsample = "avg", "nearest"  # regular family only: avg, max; nearest, bilinear
  model.dtype = "float32"          # of the autoencoder: float32 or bfloat16

  config.optim = optim = _group()
  optim.lr = 0.002                 # of Adam; a fresh one each stage, no schedule
  optim.lr_critic = 0.0            # of the critic's; 0 = lr
  optim.b1, optim.b2, optim.eps, optim.weight_decay, optim.clip = 0.9, 0.999, 1e-8, 0.0, 0.0

  # Published runs train a fixed number of steps and keep the last state.
  config.train.update(batch_size=128, eval_every=0, save_every=1000, log_every=100)
  config.eval.update(kind="anomaly", splits=("test",), checkpoint="last", batch_size=32,
                     components=0)
  return config


def random_trunk(method) -> bool:
  """True where no file of weights is given: the trunk is random then, with its own statistics."""
  if method.vgg_weights and not method.vgg_weights.startswith("random:"):
    return False
  method.update(vgg_weights=method.vgg_weights or "random:0", vgg_stats="running")
  return True


def experiment(config, name: str, weight: float, *, score_layers: str = "") -> None:
  """Changes a wo_pg config into one of the published ablations.

  Args:
    name: one of EXPERIMENTS.
    weight: of the L1 and of the adversarial term.
    score_layers: layers of the score where training has another loss.

  Raises:
    ValueError: an unknown name.
  """
  if name not in EXPERIMENTS:
    raise UserError(f"config argument exp={name}: use {', '.join(EXPERIMENTS)}")
  if name == "L1_unsupervised":    # published with the training loss as the score
    config.method.loss = config.method.score.loss = "l1"
    config.method.layers = ""
  if name.endswith("_L1"):
    config.method.loss = f"relative_perceptual_L1 + {weight:g}*l1"
    config.method.score.layers = score_layers
  if "adversarial" in name:
    config.method.adversarial.weight = weight
    config.optim.lr = 0.0002


def grow(config, initial_res: int, layers: str) -> None:
  """Progressive growing with the published stage lengths."""
  config.method.growing.initial_res = initial_res
  config.method.layers, config.method.smooth_pg = layers, True


def validate(config, *, select: str, fold: int, limit: int) -> None:
  """Early stopping and choice of the best state, for folds and for select=auroc.

  Args:
    select: "" = the published fixed length (folds: validation loss); "auroc" = image AUROC on a
      few validation anomalies of one kind.
    fold: -1 = the final split.
    limit: largest number of steps of the last stage then.

  Raises:
    ValueError: another `select`.
  """
  if select not in ("", "auroc"):
    raise UserError(f"config argument select={select}: use auroc, or leave it out")
  config.data.fold = fold
  if fold < 0 and not select:
    return
  config.train.update(steps=limit, eval_every=1000, early_stop=4,  # the fourth in a row without
                      early_delta=0.001)  # this gain
  config.eval.checkpoint = "best"
  if select:
    if fold < 0:
      config.data.update(val_fraction=0.2, val_anomalies=20)
      config.eval.splits = ("val", "test")
    config.train.update(best_metric="val/image_auroc", best_mode="max")


def fast(config, *, augmented: bool = False) -> None:
  """The published run as accelerators like it: bfloat16 VGG19, 20 steps a dispatch.

  Without augmentation the training set and the VGG19 features of its images stay on the device
  (their order then comes from the device's permutation). Scores remain float32.
  """
  config.method.vgg_dtype = "bfloat16"
  config.train.steps_per_call = 20
  if not augmented:
    config.data.resident = config.method.cache_features = True


def synthetic(config, *, smoke: bool, growing: bool = False) -> None:
  """The :demo and :smoke variants: synthetic textures, a narrow random trunk, CPU."""
  res, channels = config.model.max_res // 2, config.data.channels
  config.data = changed(
      synthetic_textures.defaults(), image_size=res, channels=channels,
      n_train=32 if smoke else 512, n_val=8 if smoke else 64, n_test=8 if smoke else 200)
  coarse = 4 if config.model.latent_res == 1 else config.model.latent_res
  config.model.max_res = res
  config.model.enc_widths = tuple(config.model.enc_widths)[-((res // coarse).bit_length()):]
  if config.model.critic_widths:
    config.model.critic_widths = tuple(config.model.critic_widths)[-((res // 4).bit_length()):]
  method = config.method
  if random_trunk(method):  # a file that is given is read, at its own widths
    method.vgg_widths = (4, 6, 8, 8, 8) if smoke else (16, 32, 64, 64, 64)
  if smoke:
    config.model.enc_widths = (4,) * len(config.model.enc_widths)
    config.model.latent_dim = 4
    config.model.critic_widths = (4,) * len(config.model.critic_widths)
  if method.loss != "l1":
    layer = "r32"
    method.layers = f"{res // 2}:r22, {res}:{layer}" if growing else layer
  if growing:
    method.growing.initial_res = res // 2
    method.growing.update(transition_steps=2 if smoke else 100, stable_steps=2 if smoke else 200)
  config.optim.lr = 0.002
  config.train.update(steps=4 if smoke else 400, batch_size=8 if smoke else 32, early_stop=0,
                      log_every=2 if smoke else 50, eval_every=2 if smoke else 100,
                      save_every=2 if smoke else 200, eval_batch_size=8 if smoke else 64,
                      best_metric="val/image_auroc", best_mode="max")
  config.eval.update(splits=("val", "test"), checkpoint="best", batch_size=8 if smoke else 64)
