r"""Deep GEO on CIFAR-10, one class against the rest (Golan & El-Yaniv 2018; baseline of the DPA paper).

  python launch.py --workdir=W --config=configs/deep_geo_cifar10.py:cls=0,root=DATA
DATA: a prepared TFDS folder, the official binary files, or an .npz (data_pipelines/datasets/natural.py).

Arguments: cls=0..9 (normal class); exp=with_cv (epochs chosen with one kind of validation anomaly) or
reproduce (the authors' 3 epochs); run=0..2 (published seed), seed (another); fold=0..2 with lists=FOLDER
(the search: early stopping); val=0.05 holds out images for thresholds; views=8 (flip and quarter turns
only); fast=1 (bfloat16, images on the device, 20 steps a dispatch); and the sizes:
  (none)   the published run: WRN-10-4, 1 to 4 epochs of 72 x 5,000 examples, 2,813 steps of 128 each.
           Mean AUROC over the ten classes 0.860 (the paper, 200 epochs / 72 as here); per-class rows of
           the DPA paper could not be confirmed and are not repeated.
  :small   real data on two CPU cores: WRN-10-1, 400 steps of 64, fit on 300 images: about 5 minutes.
  :demo    synthetic textures, two CPU cores, about 3 minutes.
  :smoke   synthetic textures, 4 steps, seconds; learns nothing.
"""

from configs import common
from configs.fields import deep_geo
from data_pipelines.datasets import natural
from data_pipelines.errors import UserError
from data_pipelines.fields import changed

EPOCHS = (3, 3, 3, 4, 4, 1, 2, 2, 2, 2)
SEEDS = {
    "with_cv": ((6856, 5456, 8487), (5970, 2182, 7541), (1287, 4739, 4154), (1706, 3005, 89),
                (9944, 676, 7525), (2984, 2405, 7701), (5686, 7294, 731), (6588, 4521, 229),
                (1858, 6027, 7953), (1339, 9900, 447)),
    "reproduce": ((4050, 6833, 3038), (1219, 4777, 4414), (9646, 3432, 9026), (2561, 6359, 7888),
                  (6690, 6520, 8513), (6210, 5934, 5213), (636, 9074, 4483), (5042, 5077, 7401),
                  (154, 7264, 6420), (6674, 1198, 6538))}


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring."""
  return build(arguments(arg), EPOCHS, SEEDS, "cifar10", gray=())


def arguments(arg):
  """The arguments that CIFAR-10 and SVHN share."""
  return common.parse_arg(arg, demo=False, smoke=False, small=False, cls=0, exp="with_cv", run=0, seed=-1,
                          fold=-1, val=0.0, views=72, root="", lists="", fast=False)


def build(args, epochs, seeds, dataset, gray):
  """The locked config of one class; SVHN shares it (configs/deep_geo_svhn.py).

  Args:
    epochs: of with_cv, for each class. gray: classes that with_cv reads in grey.

  Raises:
    ValueError: cls, run, exp or views out of range.
  """
  if not 0 <= args.cls <= 9:
    raise UserError(f"config argument cls={args.cls}: use 0 to 9")
  config = deep_geo.base(large=False)
  deep_geo.seed(config, args, seeds.get(args.exp, seeds["with_cv"])[args.cls])
  tuned = args.exp == "with_cv"
  config.train.epochs = float(epochs[args.cls]) if tuned else 3.0
  grey = tuned and args.cls in gray
  config.data = changed(
      natural.defaults(), dataset=dataset, root=args.root, normal_class=args.cls, to_grayscale=grey,
      channels=1 if grey else 3, lists_root=args.lists)
  return deep_geo.finish(config, args, limit=100.0, patience=3)
