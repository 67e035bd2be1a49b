r"""Deep isolation forest on Camelyon16 patches (Ouardini 2019; baseline of the DPA paper).

  python launch.py --workdir=W \
    --config=configs/deep_if_camelyon16.py:root=x40,lists=folds,weights=inceptionresnetv2-520b38e4.pth
root: the patches of x40 (exp=with_cv) or x10 (reproduce); lists: the published lists
(data_pipelines/datasets/camelyon.py).

Arguments: exp=with_cv (conv2d_7b of a 256 px centre at x40) or reproduce (all eleven layers of a 64 px
centre at x10); run=0..2 (published seed), seed; fold=0..2; val=0.1 holds out slides for thresholds;
folder=1: root is a folder with labels.csv; crop=96: side of the centre for other patches; backbone
(vgg16, efficientnet_lite0 ...) with its weights=PATH or random:SEED, taps=r33+r43 and size=224; fast=1.
  (none)   the published run: one pass over the patches at 299 px.
  :demo    synthetic colour textures and a random VGG16, two CPU cores, about a minute.
  :smoke   synthetic colour textures, seconds.
"""

from configs.fields import deep_if
from data_pipelines.datasets import camelyon
from data_pipelines.fields import changed

PUBLISHED = {"with_cv": ("conv2d_7b", 256, (9662, 2862, 9240)),  # layers, crop, seeds
             "reproduce": ("concat", 64, (5254, 7978, 258))}


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring.

  Raises:
    ValueError: exp or run out of range.
  """
  args = deep_if.arguments(arg, folder=False, crop=0)
  deep_if.check(args)
  layers, crop, seeds = PUBLISHED[args.exp]
  config = deep_if.base()
  config.seed = seeds[args.run] if args.seed < 0 else args.seed
  config.method.taps, side = layers, args.crop or crop
  config.data = changed(
      camelyon.defaults(), layout="folder" if args.folder else "lists", image_root=args.root,
      root=args.root, lists_root=args.lists, crop_size=side, image_size=side)
  if args.folder:
    config.eval.splits = ("val", "test")
  return deep_if.finish(config, args)
