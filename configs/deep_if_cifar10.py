r"""Deep isolation forest on CIFAR-10, one class against the rest (Ouardini 2019; baseline of DPA).

  python launch.py --workdir=W \
    --config=configs/deep_if_cifar10.py:cls=0,root=DATA,weights=inceptionresnetv2-520b38e4.pth
DATA: a prepared TFDS folder, the official binary files, or an .npz
(data_pipelines/datasets/natural.py).

Arguments: cls=0..9 (normal class); exp=with_cv (layers chosen with one kind of validation anomaly) or
reproduce (all eleven layers); run=0..2 (published seed), seed (another one); fold=0..2 with
lists=FOLDER; val=0.1 holds out images for thresholds; backbone (vgg16, vgg19, efficientnet_lite0 ...)
with its weights=PATH or random:SEED, taps=r33+r43 and size=224; fast=1 (bfloat16 features, batches of
256).
  (none)   the published run: one pass over 5,000 images at 299 px, then 10,000 test images; minutes on
           one accelerator. Mean AUROC of the ten classes 0.882 (the paper of 2019).
  :demo    synthetic textures and a random VGG16, two CPU cores, about a minute.
  :smoke   synthetic textures, seconds.
"""

from configs.fields import deep_if
from data_pipelines.datasets import natural
from data_pipelines.errors import UserError
from data_pipelines.fields import changed

LAYERS = ("mixed_7a", "mixed_7a", "conv2d_7b", "mixed_7a", "concat", "concat", "mixed_7a", "conv2d_7b",
          "conv2d_7b", "mixed_7a")  # of with_cv, by class
SEEDS = {
    "with_cv": ((4808, 1971, 8623), (1077, 9692, 2249), (1808, 5246, 9918), (9410, 4762, 2005),
                (258, 8520, 804), (2226, 6699, 7751), (7418, 9052, 6203), (1365, 8246, 5369),
                (6809, 1142, 5416), (1554, 6545, 2176)),
    "reproduce": ((5632, 8274, 8610), (5630, 447, 5150), (4414, 11, 1689), (197, 18, 1440),
                  (4432, 3074, 3411), (9785, 9848, 5579), (6892, 9514, 6744), (3898, 822, 886),
                  (5635, 5182, 836), (1156, 1969, 559))}


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring."""
  return build(deep_if.arguments(arg, cls=0), LAYERS, SEEDS, "cifar10", gray=())


def build(args, layers, seeds, dataset, gray):
  """The locked config of one class; SVHN shares it (configs/deep_if_svhn.py).

  Args:
    gray: classes that with_cv reads in grey.

  Raises:
    ValueError: cls, run or exp out of range.
  """
  deep_if.check(args)
  if not 0 <= args.cls <= 9:
    raise UserError(f"config argument cls={args.cls}: use 0 to 9")
  tuned = args.exp == "with_cv"
  config = deep_if.base()
  config.seed = seeds[args.exp][args.cls][args.run] if args.seed < 0 else args.seed
  config.method.taps = layers[args.cls] if tuned else "concat"
  grey = tuned and args.cls in gray
  config.data = changed(
      natural.defaults(), dataset=dataset, root=args.root, lists_root=args.lists, normal_class=args.cls,
      to_grayscale=grey, channels=1 if grey else 3, folds="leakfree" if args.lists else "generated")
  return deep_if.finish(config, args)
