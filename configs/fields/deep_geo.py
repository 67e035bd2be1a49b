"""Fields of a deep_geo experiment with the published defaults; configs/deep_geo_*.py fill in the rest."""

from collections.abc import Mapping

import ml_collections

from configs import common
from data_pipelines.datasets import synthetic_textures
from data_pipelines.errors import UserError
from data_pipelines.fields import changed

_group = ml_collections.ConfigDict
EXPERIMENTS = ("with_cv", "reproduce")


def base(large: bool) -> ml_collections.ConfigDict:
  """All groups but data.

  Args:
    large: the published form for 64 px (WRN-16-8, shifts of 16); else for 32 px (WRN-10-4, shifts of 8).
  """
  config = common.base()
  config.method = method = _group()
  method.name = "deep_geo"
  method.flip = True               # mirror images among the transformations
  method.shift = 16 if large else 8  # pixels of the shifts along rows and columns; 0 = none
  method.rotations = 4             # 4 quarter turns; 2 (0, 180 degrees) where images are not square; or 1
  method.views_at_once = 8         # transformations of a batch that are scored at a time: bounds memory
  method.fit_images = 0            # normal images of the Dirichlet fit; 0 = all
  method.parity = False            # the published fixed point and Keras's running variance
  method.score = _group(dict(
      kind="dirichlet",            # anomaly score: dirichlet, or simplified (needs no fit)
      offset=1e-6))                # added to probabilities before the logarithm, as the benchmark does

  config.model = model = _group()
  model.blocks = 2 if large else 1  # residual blocks a group; depth = 6 blocks + 4
  model.widen = 8 if large else 4  # times 16, 32, 64 channels
  model.dtype = "float32"          # of convolutions and activations: float32 or bfloat16

  config.optim = optim = _group()
  optim.lr, optim.b1, optim.b2, optim.eps = 0.001, 0.9, 0.999, 1e-7  # Adam, epsilon-hat form
  optim.l2 = 0.00025               # times the squares of all parameters, in the loss

  # Published runs train whole epochs (72 examples an image) and score with the last state.
  config.train.update(steps=0, epochs=3.0, batch_size=128, eval_every=0, save_every=2000, log_every=100)
  config.eval.update(kind="anomaly", splits=("test",), checkpoint="last", batch_size=64)
  return config


def seed(config, args, seeds) -> None:
  """The published seed of a run, or the one asked for.

  Raises:
    ValueError: an unknown experiment, run out of range.
  """
  if args.exp not in EXPERIMENTS or not 0 <= args.run <= 2:
    raise UserError(f"config arguments exp={args.exp}, run={args.run}: exp is with_cv or reproduce, run "
                    "0 to 2")
  config.seed = seeds[args.run] if args.seed < 0 else args.seed


def finish(config, args, *, limit: float, patience: int, small_data: Mapping | None = None):
  """What all configs end with: fold or held-out images, transformations, and the sizes that `args` ask for.

  Args:
    limit, patience: see `validate`. small_data: fields of config.data of the small variant.

  Returns:
    The locked config.
  """
  validate(config, args.fold, args.val, limit=limit, patience=patience)
  transformations(config, args.views)
  if args.get("folder", False):
    config.eval.splits = ("val", "test")
  if args.small:
    small(config)
    config.data.update(small_data or {})
  if args.fast:
    fast(config)
  if args.demo or args.smoke:
    synthetic(config, smoke=args.smoke)
  return config.lock()


def small(config) -> None:
  """Real images on two CPU cores: a narrow network, few steps, the fit on a part of the images."""
  config.model.update(blocks=1, widen=1)
  config.method.fit_images = 300
  config.method.shift = min(config.method.shift, 8)  # images are 32 px then
  config.train.update(steps=400, epochs=0.0, batch_size=64, eval_every=0, save_every=200,
                      eval_batch_size=50)
  config.data.update(val_fraction=0.1, val_anomalies=20)
  config.eval.update(splits=("val", "test"), batch_size=50)


def validate(config, fold: int, val: float, *, limit: float, patience: int) -> None:
  """A fold, or a final split with the share `val` of the training images held out for thresholds.

  Folds train as the published search did: at most `limit` epochs, a validation and a checkpoint an epoch,
  ended after `patience` epochs in a row whose loss is not better by more than 0.001. The published search
  then scores every epoch's checkpoint, and chooses the epochs by their AUROC; here the epoch with the best
  loss on normal images is scored, and every checkpoint is kept.
  """
  config.data.fold, config.data.val_fraction = fold, val
  if fold >= 0:
    config.train.update(epochs=limit, eval_every_epochs=1.0, save_every=0, save_every_epochs=1.0,
                        early_stop=patience, early_delta=0.001, keep=int(limit))
    config.eval.checkpoint = "best"
  elif val:
    config.data.val_anomalies = 20
    config.eval.splits = ("val", "test")


def transformations(config, count: int) -> None:
  """The set of 72, or the 8 of the code's simple variant (flip and quarter turns).

  Raises:
    ValueError: another number.
  """
  if count not in (8, 72):
    raise UserError(f"config argument views={count}: use 72 or 8; other sets are made of "
                    "config.method.flip, shift and rotations")
  if count == 8:
    config.method.shift = 0


def fast(config) -> None:
  """The published run as accelerators like it; the order then comes from the device's permutation."""
  config.model.dtype = "bfloat16"
  config.method.views_at_once = 24
  config.train.steps_per_call = 20
  config.data.resident = True


def synthetic(config, *, smoke: bool) -> None:
  """The :demo and :smoke variants: synthetic textures, a narrow network, CPU."""
  size = 16
  config.data = changed(
      synthetic_textures.defaults(), image_size=size, channels=config.data.channels,
      n_train=24 if smoke else 256, n_val=8 if smoke else 64, n_test=8 if smoke else 200)
  config.model.update(blocks=1, widen=1)
  config.method.update(shift=0 if smoke else 4)
  config.train.update(steps=4 if smoke else 600, epochs=0.0, batch_size=8 if smoke else 64,
                      log_every=2 if smoke else 50, eval_every=2 if smoke else 200,
                      save_every=2 if smoke else 200, save_every_epochs=0.0, eval_every_epochs=0.0,
                      early_stop=0, keep=2, eval_batch_size=8 if smoke else 64,
                      best_metric="val/image_auroc", best_mode="max")
  config.eval.update(splits=("val", "test"), checkpoint="last", batch_size=8 if smoke else 64)
