"""Every field of a DPA experiment with its published default; configs/dpa_*.py fill in the rest."""

import ml_collections

from configs import common
from data_pipelines.errors import UserError

_group = ml_collections.ConfigDict
EXPERIMENTS = ("wo_pg", "pg", "unsupervised", "L1_unsupervised", "with_L1", "with_adversarial",
               "with_adversarial_L1")


def base() -> ml_collections.ConfigDict:
  """All groups, without growing and adversarial term; vgg_weights must be given."""
  c = common.base()
  c.method = m = _group()
  m.name = "dpa"
  m.loss = "relative_perceptual_L1"  # a sum of l1, l2, perceptual and this one: "... + 0.1*l1"
  m.layers = "r32"                 # VGG19 layers: "r32+0.5*r42", or per stage "8:r12, 16:r22"
  m.normalize = m.absolute = m.relative = False  # switches of a plain "perceptual" term
  m.smooth_pg = False              # blend the losses of both resolutions in transitions
  m.vgg_weights = ""               # path of vgg19-dcbb9e9d.pth, or "random:SEED" by explicit choice
  m.vgg_stats = "published"        # published, running (for any other weights), or path of an .npz
  m.vgg_stats_steps = 100          # running: steps that are averaged in each stage, then frozen
  m.vgg_widths = (64, 128, 256, 512, 512)  # of a random trunk
  m.vgg_dtype = "float32"          # of the trunk in training: float32, or bfloat16 (faster)
  m.cache_features = False         # with data.resident: features of real images computed once
  m.parity = False                 # N or N + 1 steps in the last stage, as the public code's sum

  m.growing = g = _group()
  g.initial_res = 0                # first resolution; 0 = no growing
  g.trns_steps = 20000             # of each transition
  g.stab_steps = 20000             # of each stable stage but the last, which has train.steps
  g.steps_per_stage = ""           # exceptions: "trns_16:100, stab_32:50"
  g.batch_sizes = ""               # exceptions to train.batch_size: "8:128, 16:64"
  g.antialias = False              # down-scaling by area; the public code takes the central 2x2

  m.adversarial = a = _group()
  a.weight = 0.0                   # of the generator's loss; 0 = no discriminator
  a.name = "wasserstein"           # wasserstein, nnl or least_squared
  a.n_dis = 2                      # critic steps a training step, each with a batch of its own
  a.lambd, a.gradient_penalty, a.norm_penalty, a.target_gamma = 1.0, 10.0, 0.001, 1.0  # wasserstein
  a.reg_alpha, a.reg_type = 0.0, "real"  # nnl: weight and place (real, fake, real_fake)

  m.score = s = _group()
  s.loss = "relative_perceptual_L1"  # anomaly score, whatever the training loss; "" = the same
  s.layers = ""                    # "" = those of training

  c.model = m = _group()
  m.kind = "residual18"            # residual18, residual9 or regular
  m.max_res = 32                   # side of the images
  m.latent_dim, m.latent_res = 32, 1  # bottleneck: channels, side (1, or a power of two from 4)
  m.enc_widths = (32, 32, 32, 32)  # fine to coarse
  m.dec_widths = ()                # coarse to fine; () = the encoder's reversed
  m.dis_widths = ()                # of the discriminator; () = the encoder's
  m.allow_long_widths = False      # accept lists that are too long, as the public code does
  m.norm, m.pad = "none", "zero"   # none, bn, in, pixel; zero, reflect
  m.use_wscale = m.normalize_latents = False  # regular family only
  m.pool, m.upsample = "avg", "nearest"       # regular family only: avg, max; nearest, bilinear
  m.dtype = "float32"              # of the autoencoder: float32 or bfloat16

  c.optim = o = _group()
  o.lr = 0.002                     # of Adam; a fresh one each stage, no schedule
  o.lr_dis = 0.0                   # of the discriminator's; 0 = lr
  o.b1, o.b2, o.eps, o.weight_decay, o.clip = 0.9, 0.999, 1e-8, 0.0, 0.0

  c.data = d = _group()
  d.resident = False               # whole training set on the accelerator
  d.image_size, d.channels = 32, 3

  # Published runs train a fixed number of steps and keep the last state.
  c.train.update(batch_size=128, eval_every=0, save_every=1000, log_every=100)
  c.eval.update(kind="anomaly", splits=("test",), checkpoint="last", batch_size=32, components=0)
  return c


def weights(c, vgg: str) -> None:
  """Sets the VGG19 weights; random ones, by explicit choice, bring their own statistics."""
  c.method.vgg_weights = vgg
  if vgg.startswith("random:"):
    c.method.vgg_stats = "running"


def experiment(c, name: str, weight: float, *, score_layers: str = "") -> None:
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
  if name == "L1_unsupervised":  # published with the training loss as the score
    c.method.loss = c.method.score.loss = "l1"
    c.method.layers = ""
  if name.endswith("_L1"):
    c.method.loss = f"relative_perceptual_L1 + {weight:g}*l1"
    c.method.score.layers = score_layers
  if "adversarial" in name:
    c.method.adversarial.weight = weight
    c.optim.lr = 0.0002


def grow(c, initial_res: int, layers: str) -> None:
  """Progressive growing with the published stage lengths."""
  c.method.growing.initial_res = initial_res
  c.method.layers, c.method.smooth_pg = layers, True


def validate(c, *, select: str, fold: int, limit: int) -> None:
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
  c.data.fold = fold
  if fold < 0 and not select:
    return
  c.train.update(steps=limit, eval_every=1000, early_stop=4,  # the fourth in a row without
                 early_delta=0.001)                               # this gain
  c.eval.checkpoint = "best"
  if select:
    if fold < 0:
      c.data.update(val_fraction=0.2, val_anomalies=20)
      c.eval.splits = ("val", "test")
    c.train.update(best_metric="val/image_auroc", best_mode="max")


def fast(c, *, augmented: bool = False) -> None:
  """The published run as accelerators like it: bfloat16 VGG19, 20 steps a dispatch.

  Without augmentation the training set and the VGG19 features of its images stay on the device
  (their order then comes from the device's permutation). Scores remain float32.
  """
  c.method.vgg_dtype = "bfloat16"
  c.train.steps_per_call = 20
  if not augmented:
    c.data.resident = c.method.cache_features = True


def synthetic(c, *, smoke: bool, growing: bool = False) -> None:
  """The :demo and :smoke variants: synthetic textures, a narrow random trunk, CPU."""
  res, channels = c.model.max_res // 2, c.data.channels
  c.data = _group(dict(name="synthetic_textures", image_size=res, channels=channels, data_seed=0,
                       n_train=32 if smoke else 512, n_val=8 if smoke else 64,
                       n_test=8 if smoke else 200, resident=False))
  coarse = 4 if c.model.latent_res == 1 else c.model.latent_res
  c.model.max_res = res
  c.model.enc_widths = tuple(c.model.enc_widths)[-((res // coarse).bit_length()):]
  if c.model.dis_widths:
    c.model.dis_widths = tuple(c.model.dis_widths)[-((res // 4).bit_length()):]
  m = c.method
  m.update(vgg_weights="random:0", vgg_stats="running", vgg_widths=(16, 32, 64, 64, 64))
  if smoke:
    m.vgg_widths = (4, 6, 8, 8, 8)
    c.model.enc_widths = (4,) * len(c.model.enc_widths)
    c.model.latent_dim = 4
    c.model.dis_widths = (4,) * len(c.model.dis_widths)
  if m.loss != "l1":
    layer = "r32"
    m.layers = f"{res // 2}:r22, {res}:{layer}" if growing else layer
  if growing:
    m.growing.initial_res = res // 2
    m.growing.update(trns_steps=2 if smoke else 100, stab_steps=2 if smoke else 200)
  c.optim.lr = 0.002
  c.train.update(steps=4 if smoke else 400, batch_size=8 if smoke else 32, early_stop=0,
                 log_every=2 if smoke else 50, eval_every=2 if smoke else 100,
                 save_every=2 if smoke else 200, eval_batch_size=8 if smoke else 64,
                 best_metric="val/image_auroc", best_mode="max")
  c.eval.update(splits=("val", "test"), checkpoint="best", batch_size=8 if smoke else 64)
