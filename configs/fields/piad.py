"""Fields of a PIAD experiment with the published defaults; configs/piad_*.py fill in the rest."""

import ml_collections

from configs import common
from data_pipelines.errors import UserError

_group = ml_collections.ConfigDict
# The ablations of the 2019 paper, each one step further: loss, layers, switches, policy.
ABLATIONS: dict[str, dict] = {
    "mse": dict(loss="perceptual", layers="image", policy="fixed"),
    "mse_gradnorm": dict(loss="perceptual", layers="image", policy="gradnorm"),
    "perceptual": dict(loss="perceptual", layers="", policy="gradnorm"),
    "perceptual_l1": dict(loss="perceptual", layers="", policy="gradnorm", normalize=True,
                          absolute=True),
    "": dict(loss="relative_perceptual_L1", layers="", policy="gradnorm")}


def base() -> ml_collections.ConfigDict:
  """All groups, at the values of the 2021 code; vgg_weights must be given."""
  c = common.base()
  c.method = m = _group()
  m.name = "piad"
  m.loss = "relative_perceptual_L1"  # sum of l1, l2, perceptual, relative_perceptual_L1
  m.layers = "r42"                 # VGG19 layers, "r32+r42"; "image" = ImageNet-normalised pixels
  m.normalize = m.absolute = m.relative = False  # switches of a plain "perceptual" term
  m.vgg_weights = ""               # path of vgg19-dcbb9e9d.pth, or "random:SEED" by explicit choice
  m.vgg_stats = "published"        # published, running (for any other weights), or path of an .npz
  m.vgg_stats_steps = 100          # running: steps that are averaged, then frozen
  m.vgg_widths = (64, 128, 256, 512, 512)  # of a random trunk
  m.vgg_dtype = "float32"          # of the trunk in training: float32, or bfloat16 (faster)
  m.cache_features = False         # with data.resident: features of real images computed once
  m.n_dis = 2                      # critic steps an iteration, each with a batch of its own
  m.ema = 0.0                      # > 0: score with this average of E and G; 0 = the last ones
  m.loss_limit = 1e6               # training stops when a loss exceeds it; 0 = never
  m.adv_image, m.adv_latent = adversarial(), adversarial()

  m.policy = p = _group()
  p.name = "gradnorm"              # gradnorm, or fixed (weight_enc, weight_dec)
  p.every = 100                    # iterations between refreshes
  p.history = 200                  # refreshes kept
  p.smooth = 0.05                  # of the exponential smoothing
  p.measure = "norm"               # of a kernel's gradient: norm (2021) or std (2019)
  p.average = "median"             # over kernels and history; the paper's text says mean
  p.weight_enc, p.weight_dec = 10.0, 100.0  # fixed: of the reconstruction loss for E and G

  m.score = s = _group()
  s.loss = ""                      # anomaly score; "" = the training loss
  s.layers = ""                    # "" = those of training

  c.model = m = _group()
  m.variant = "2021"               # networks: 2021 (residual9) or 2019
  m.res, m.channels = 32, 3        # of the images
  m.latent_dim, m.latent_res = 256, 1  # of the latent; latent_res 1, or a power of two from 4
  m.enc = (64, 128, 256, 256)      # encoder widths, fine to coarse
  m.dec = (256, 256, 128, 64)      # generator widths, coarse to fine
  m.critic_image = (32, 64, 128, 128)  # image critic widths, fine to coarse
  m.critic_latent = (1024, 1024)   # hidden widths of the latent critic
  m.dtype = "float32"              # of the four networks: float32 or bfloat16

  c.optim = o = _group()
  o.lr, o.schedule = 0.0002, "constant"  # Adam of encoder and generator
  o.lr_critic_image = o.lr_critic_latent = 0.0005
  o.b1, o.b2, o.weight_decay = 0.5, 0.99, 0.0  # of all three Adams

  # Published runs train a fixed number of iterations and score with the last state.
  c.train.update(steps=100000, batch_size=32, eval_every=0, save_every=5000, log_every=100)
  c.eval.update(kind="anomaly", splits=("test",), checkpoint="last", batch_size=64)
  return c


def weights(c, vgg: str) -> None:
  """Sets the VGG19 weights; random ones, by explicit choice, bring their own statistics."""
  c.method.vgg_weights = vgg
  if vgg.startswith("random:"):
    c.method.vgg_stats = "running"


def adversarial() -> ml_collections.ConfigDict:
  """One adversarial loss: wasserstein, nnl or least_squared; fields of the others are not read."""
  return _group(dict(name="wasserstein", lambd=1.0, gradient_penalty=10.0, norm_penalty=0.001,
                     target_gamma=1.0, reg_alpha=0.0, reg_type="real"))


def of_2019(c) -> None:
  """Changes a config into the code behind the tables of the PIAD paper."""
  c.model.variant = "2019"
  c.method.policy.measure = "std"
  c.optim.lr, c.optim.weight_decay = 0.0001, 1e-8


def ablate(c, name: str) -> None:
  """One row of the paper's ablation table; "" is the complete method.

  Raises:
    ValueError: an unknown name.
  """
  if name not in ABLATIONS:
    raise UserError(f"config argument ablation={name}: use "
                     f"{', '.join(k for k in ABLATIONS if k)}, or leave it out")
  a = dict(ABLATIONS[name])
  c.method.policy.name = a.pop("policy")
  layers = a.pop("layers")
  c.method.update(a)
  c.method.layers = layers or c.method.layers


def validate(c, fold: int, val: float) -> None:
  """A fold, or a final split with the share `val` of the training images held out for thresholds.

  PIAD has no early stopping; folds keep the published habit of choosing the number of iterations
  among saved states: the best by AUROC on the validation anomalies.
  """
  c.data.fold = fold
  c.data.val_fraction = val
  if fold >= 0:
    every = min(c.train.steps, 1000 if c.data.name == "camelyon" else 10000)
    c.data.val_from_test = True
    c.train.update(eval_every=every, best_metric="val/image_auroc", best_mode="max")
    c.eval.checkpoint = "best"
  elif val:
    c.data.val_anomalies = 20
    c.eval.splits = ("val", "test")


def finish(c) -> ml_collections.ConfigDict:
  """The locked config, with the size of the images where modes without data look for it."""
  c.data.image_size, c.data.channels = c.model.res, c.model.channels
  return c.lock()


def synthetic(c, *, smoke: bool) -> None:
  """The :demo and :smoke variants: synthetic textures, a narrow random trunk, CPU."""
  res = 16
  c.data = _group(dict(name="synthetic_textures", image_size=res, channels=c.model.channels,
                       data_seed=0, n_train=64 if smoke else 512, n_val=8 if smoke else 64,
                       n_test=8 if smoke else 200, resident=False))
  narrow = 4 if smoke else 16
  c.model.update(res=res, latent_dim=4 if smoke else 16, latent_res=1, enc=(narrow,) * 3,
                 dec=(narrow,) * 3, critic_image=(narrow,) * 3,
                 critic_latent=(8, 8) if smoke else (64, 64))
  c.method.update(vgg_weights="random:0", vgg_stats="running", vgg_stats_steps=2 if smoke else 50,
                  vgg_widths=(4, 6, 8, 8, 8) if smoke else (16, 32, 64, 64, 64), layers="r32")
  c.method.policy.update(every=2 if smoke else 10, history=3 if smoke else 200)
  c.train.update(steps=4 if smoke else 500, batch_size=8 if smoke else 16,
                 log_every=2 if smoke else 50, eval_every=2 if smoke else 100,
                 save_every=2 if smoke else 250, eval_batch_size=8 if smoke else 64,
                 best_metric="val/image_auroc", best_mode="max")
  c.eval.update(splits=("val", "test"), checkpoint="best", batch_size=8 if smoke else 64)
