"""Fields of a PIAD experiment with the published defaults; configs/piad_*.py fill in the rest."""

import ml_collections

from configs import common
from configs.fields import dpa, scores, trunk
from data_pipelines.datasets import synthetic_textures
from data_pipelines.errors import UserError
from data_pipelines.fields import changed

_group = ml_collections.ConfigDict
# The ablations of the 2019 paper, each one step further: loss, layers, switches, policy.
ABLATIONS: dict[str, dict] = {
    "mse": dict(loss="perceptual", layers="image", policy="fixed"),
    "mse_gradient_norms": dict(loss="perceptual", layers="image", policy="gradient_norms"),
    "perceptual": dict(loss="perceptual", layers="", policy="gradient_norms"),
    "perceptual_l1": dict(loss="perceptual", layers="", policy="gradient_norms", normalize=True,
                          absolute=True),
    "": dict(loss="relative_perceptual_L1", layers="", policy="gradient_norms")}


def base() -> ml_collections.ConfigDict:
  """All groups but data, at the values of the 2021 code; vgg_weights must be given."""
  config = common.base()
  config.method = method = _group()
  method.name = "piad"
  method.loss = "relative_perceptual_L1"  # sum of l1, l2, perceptual, relative_perceptual_L1
  method.layers = "r42"            # VGG19 layers, "r32+r42"; "image" = ImageNet-normalised pixels
  # Switches of a plain "perceptual" term.
  method.normalize = method.absolute = method.relative = False
  method.update(trunk.defaults())
  method.cache_features = False    # with data.resident: features of real images computed once
  method.n_critic = 2              # critic steps an iteration, each with a batch of its own
  method.ema = 0.0                 # > 0: score with this average of E and G; 0 = the last ones
  method.loss_limit = 1e6          # training stops when a loss exceeds it; 0 = never
  method.adv_image, method.adv_latent = adversarial(), adversarial()

  method.policy = policy = _group()
  policy.name = "gradient_norms"   # gradient_norms, or fixed (weight_enc, weight_dec)
  policy.every = 100               # iterations between refreshes
  policy.history = 200             # refreshes kept
  policy.smooth = 0.05             # of the exponential smoothing
  policy.measure = "norm"          # of a kernel's gradient: norm (2021) or std (2019)
  policy.average = "median"        # over kernels and history; the paper's text says mean
  policy.weight_enc = 10.0         # fixed: of the reconstruction loss, for the encoder
  policy.weight_dec = 100.0        # ... and for the generator

  method.score = score = _group()
  score.loss = ""                  # anomaly score; "" = the training loss
  score.layers = ""                # "" = those of training
  scores.add(score)                # kind: another score of the same reconstruction

  config.model = model = _group()
  model.variant = "2021"           # networks: 2021 (residual9) or 2019
  model.res, model.channels = 32, 3  # of the images
  model.latent_dim = 256           # channels of the latent
  model.latent_res = 1             # its side: 1, or a power of two from 4
  model.enc = (64, 128, 256, 256)  # encoder widths, fine to coarse
  model.dec = (256, 256, 128, 64)  # generator widths, coarse to fine
  model.critic_image = (32, 64, 128, 128)  # image critic widths, fine to coarse
  model.critic_latent = (1024, 1024)  # hidden widths of the latent critic
  model.dtype = "float32"          # of the four networks: float32 or bfloat16

  config.optim = optim = _group()
  optim.lr, optim.schedule = 0.0002, "constant"  # Adam of encoder and generator
  optim.lr_critic_image = optim.lr_critic_latent = 0.0005
  optim.b1, optim.b2, optim.weight_decay = 0.5, 0.99, 0.0  # of all three Adams

  # Published runs train a fixed number of iterations and score with the last state.
  config.train.update(steps=100000, batch_size=32, eval_every=0, save_every=5000, log_every=100)
  config.eval.update(kind="anomaly", splits=("test",), checkpoint="last", batch_size=64)
  return config


def adversarial() -> ml_collections.ConfigDict:
  """One adversarial loss: wasserstein, logistic, least_squares; others' fields are not read."""
  return _group(dict(name="wasserstein", wasserstein_weight=1.0, gradient_penalty=10.0,
                     norm_penalty=0.001, target_gamma=1.0, reg_alpha=0.0, reg_type="real"))


def of_2019(config) -> None:
  """Changes a config into the code behind the tables of the PIAD paper."""
  config.model.variant = "2019"
  config.method.policy.measure = "std"
  config.optim.lr, config.optim.weight_decay = 0.0001, 1e-8


def ablate(config, name: str) -> None:
  """One row of the paper's ablation table; "" is the complete method.

  Raises:
    ValueError: an unknown name.
  """
  if name not in ABLATIONS:
    raise UserError(f"config argument ablation={name}: use "
                    f"{', '.join(k for k in ABLATIONS if k)}, or leave it out")
  switches = dict(ABLATIONS[name])
  config.method.policy.name = switches.pop("policy")
  layers = switches.pop("layers")
  config.method.update(switches)
  config.method.layers = layers or config.method.layers


def validate(config, fold: int, val: float) -> None:
  """A fold, or a final split with the share `val` of the training images held out for thresholds.

  PIAD has no early stopping; folds keep the published habit of choosing the number of iterations
  among saved states: the best by AUROC on the validation anomalies.
  """
  config.data.fold = fold
  config.data.val_fraction = val
  if fold >= 0:
    every = min(config.train.steps, 1000 if config.data.name == "camelyon" else 10000)
    config.data.val_from_test = True
    config.train.update(eval_every=every, best_metric="val/image_auroc", best_mode="max")
    config.eval.checkpoint = "best"
  elif val:
    config.data.val_anomalies = 20
    config.eval.splits = ("val", "test")


def finish(config) -> ml_collections.ConfigDict:
  """The locked config, with the size of the images where modes without data look for it."""
  config.data.image_size, config.data.channels = config.model.res, config.model.channels
  return config.lock()


def synthetic(config, *, smoke: bool) -> None:
  """The :demo and :smoke variants: synthetic textures, a narrow random trunk, CPU."""
  res = 16
  config.data = changed(
      synthetic_textures.defaults(), image_size=res, channels=config.model.channels,
      n_train=64 if smoke else 512, n_val=8 if smoke else 64, n_test=8 if smoke else 200)
  narrow = 4 if smoke else 16
  config.model.update(res=res, latent_dim=4 if smoke else 16, latent_res=1, enc=(narrow,) * 3,
                      dec=(narrow,) * 3, critic_image=(narrow,) * 3,
                      critic_latent=(8, 8) if smoke else (64, 64))
  if dpa.random_trunk(config.method):
    config.method.vgg_widths = (4, 6, 8, 8, 8) if smoke else (16, 32, 64, 64, 64)
  config.method.update(vgg_stats_steps=2 if smoke else 50, layers="r32")
  config.method.policy.update(every=2 if smoke else 10, history=3 if smoke else 200)
  config.train.update(steps=4 if smoke else 500, batch_size=8 if smoke else 16,
                      log_every=2 if smoke else 50, eval_every=2 if smoke else 100,
                      save_every=2 if smoke else 250, eval_batch_size=8 if smoke else 64,
                      best_metric="val/image_auroc", best_mode="max")
  config.eval.update(splits=("val", "test"), checkpoint="best", batch_size=8 if smoke else 64)
