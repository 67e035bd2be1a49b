r"""Deep GEO on Camelyon16 patches (x10, centre 64 px; baseline of the DPA paper, arXiv 2006.13265).

  python launch.py --workdir=W --config=configs/deep_geo_camelyon16.py:root=camelyon16/x10,lists=folds
root: the patches; lists: the published lists (data_pipelines/datasets/camelyon.py).

Arguments: exp=with_cv (2 epochs) or reproduce (3); run=0..2 (published seed), seed; fold=0..2; val=0.05
holds out slides for thresholds; views=8; folder=1: root is a folder with labels.csv; fast=1: bfloat16,
images on the device, 20 steps a dispatch.
  (none)   the published run: WRN-16-8 (11.1 million parameters), 4,282 steps of 128 examples an epoch.
           The paper's cell could not be confirmed and is not repeated.
  :small   labelled folder on two CPU cores, minutes: WRN-10-1 at 32 px, 400 steps of 64.
  :demo    synthetic colour textures, two CPU cores, about 3 minutes.
  :smoke   synthetic colour textures, 4 steps, seconds; learns nothing.
"""

from configs import common
from configs.fields import deep_geo
from data_pipelines.datasets import camelyon
from data_pipelines.fields import changed

EPOCHS = {"with_cv": 2.0, "reproduce": 3.0}
SEEDS = {"with_cv": (6899, 2781, 6279), "reproduce": (3578, 1984, 4948)}


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring.

  Raises:
    ValueError: exp, run or views out of range.
  """
  args = common.parse_arg(arg, demo=False, smoke=False, small=False, exp="with_cv", run=0, seed=-1, fold=-1,
                          val=0.0, views=72, root="", lists="", folder=False, fast=False)
  config = deep_geo.base(large=True)
  deep_geo.seed(config, args, SEEDS.get(args.exp, ()))
  config.train.epochs = EPOCHS[args.exp]
  config.data = changed(
      camelyon.defaults(), layout="folder" if args.folder else "lists", image_root=args.root, root=args.root,
      lists_root=args.lists, crop_size=64)
  return deep_geo.finish(config, args, limit=10.0, patience=1, small_data=dict(
      layout="folder", root=args.root, resize=48, crop_size=32, image_size=32))
