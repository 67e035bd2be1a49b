"""Every field of a deep_if experiment with its published default; configs/deep_if_*.py fill in the rest."""

import ml_collections

from configs import common
from data_pipelines.datasets import synthetic_textures
from data_pipelines.errors import UserError
from data_pipelines.fields import changed

_group = ml_collections.ConfigDict
EXPERIMENTS = ("reproduce", "with_cv")


def base() -> ml_collections.ConfigDict:
  """All groups but data; backbone_weights must be given."""
  config = common.base()
  config.method = method = _group()
  method.name = "deep_if"
  method.backbone = "inception_resnet_v2"  # vgg16, vgg19, efficientnet_lite0 ...: models/backbone.py
  method.backbone_weights = ""     # path of its weights, or "random:SEED" by explicit choice
  method.taps = "concat"           # layers joined by +; default = the last one, concat = all
  method.size = 299                # side to which images are resized on the device; 0 = as they are
  method.eight_bit = True          # ... to grey levels, as Pillow does with 8-bit images
  method.dtype = "float32"         # of the backbone: float32, or bfloat16 (faster on accelerators)
  method.cache = ""                # folder that keeps features: more seeds and layers cost no pass of
                                   # the backbone over the same images; "" = nothing is kept

  method.forest = forest = _group()
  forest.trees = 100
  forest.samples = 256             # images a tree is grown on

  method.score = _group()          # nothing to choose
  config.model, config.optim = _group(), _group()  # nothing is trained

  config.train.update(steps=0, batch_size=32, eval_batch_size=32, eval_every=0, save_every=0)
  config.eval.update(kind="anomaly", splits=("test",), checkpoint="last", batch_size=32, components=0)
  return config


def arguments(arg, **own):
  """The arguments of all four configs; `own` are those of one."""
  return common.parse_arg(arg, demo=False, smoke=False, exp="with_cv", run=0, seed=-1, fold=-1, val=0.0,
                          root="", lists="", backbone="", weights="", taps="", size=-1, fast=False, **own)


def check(args) -> None:
  """Raises UserError for an experiment or run that does not exist."""
  if args.exp not in EXPERIMENTS or not 0 <= args.run <= 2:
    raise UserError(f"config arguments exp={args.exp}, run={args.run}: exp is {' or '.join(EXPERIMENTS)}, "
                    "run 0 to 2")


def finish(config, args) -> ml_collections.ConfigDict:
  """The locked config: backbone, fold or held-out images, speed and size, as `args` say.

  Another backbone than the paper's brings its own layers: all of them, unless taps=... says which.
  """
  method = config.method
  if args.backbone:
    method.update(backbone=args.backbone, taps="concat")
  method.backbone_weights = args.weights
  method.taps = args.taps or method.taps
  method.size = args.size if args.size >= 0 else method.size
  config.data.fold, config.data.val_fraction = args.fold, args.val
  if args.val and args.fold < 0:
    config.data.val_anomalies = 20
  if args.val or args.fold >= 0:
    config.eval.splits = ("val", "test")
  if args.fast:
    method.dtype = "bfloat16"
    config.train.eval_batch_size = config.eval.batch_size = 256
  if args.demo or args.smoke:
    synthetic(config, args)
  return config.lock()


def synthetic(config, args) -> None:
  """The :demo and :smoke variants: synthetic textures, a random VGG16, CPU."""
  smoke, channels = args.smoke, config.data.channels
  config.data = changed(
      synthetic_textures.defaults(), image_size=32, channels=channels,
      n_train=32 if smoke else 256, n_val=8 if smoke else 64, n_test=8 if smoke else 200)
  method = config.method
  if not args.weights:
    method.update(backbone=args.backbone or "vgg16", backbone_weights="random:0",
                  taps=args.taps or ("r22" if smoke else "r22+r33"))
  method.size = args.size if args.size >= 0 else 32
  method.forest.update(trees=10 if smoke else 100)
  size = 8 if smoke else 64
  config.train.update(batch_size=8, eval_batch_size=size)
  config.eval.update(splits=("val", "test"), batch_size=size)
