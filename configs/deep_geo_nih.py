r"""Deep GEO on chest radiographs: NIH ChestX-ray14 (baseline of the DPA paper) and labelled folders.

  python launch.py --workdir=W --config=configs/deep_geo_nih.py:view=subset,root=nih_300,lists=folds
root: the images scaled to 300x300; lists: the published lists (data_pipelines/datasets/nih.py).

Arguments: view=AP, PA or subset; exp=with_cv or reproduce; run=0..2 (published seed), seed; fold=0..2;
val=0.05 holds out patients for thresholds; views=8; folder=1: root is a folder with labels.csv, for example
the paediatric set of Kermany et al.; fast=1: bfloat16, images on the device, 20 steps a dispatch.
  (none)   the published run: WRN-16-8 on 64 px, 1 to 3 epochs of 72 examples an image (subset: 2,397
           steps of 128 an epoch). Most published with_cv files train on a left-over private fold; here
           all train on the full list. The paper's cells could not be confirmed and are not repeated.
  :small   labelled folder on two CPU cores, minutes: WRN-10-1 at 32 px, 400 steps of 64.
  :demo    synthetic textures, two CPU cores, about 3 minutes.
  :smoke   synthetic textures, 4 steps, seconds; learns nothing.
"""

from configs import common
from configs.fields import deep_geo
from data_pipelines.datasets import nih
from data_pipelines.errors import UserError
from data_pipelines.fields import changed

# view: epochs, crop, equalise of with_cv; reproduce: 3 epochs, crop 224, as they are.
TUNED = {"AP": (2.0, 224, False), "PA": (1.0, 224, True), "subset": (1.0, 300, False)}
SEEDS = {"with_cv": {"AP": (2276, 4944, 8649), "PA": (818, 2751, 2264), "subset": (9893, 3935, 1884)},
         "reproduce": {"AP": (7455, 4407, 4118), "PA": (4440, 7661, 7758), "subset": (8295, 2756, 9348)}}


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring.

  Raises:
    ValueError: view, exp, run or views out of range.
  """
  args = common.parse_arg(arg, demo=False, smoke=False, small=False, view="subset", exp="with_cv", run=0,
                          seed=-1, fold=-1, val=0.0, views=72, root="", lists="", folder=False, fast=False)
  if args.view not in TUNED:
    raise UserError(f"config argument view={args.view}: use AP, PA or subset")
  config = deep_geo.base(large=True)
  deep_geo.seed(config, args, SEEDS.get(args.exp, {}).get(args.view, ()))
  epochs, crop, equalise = TUNED[args.view] if args.exp == "with_cv" else (3.0, 224, False)
  config.train.epochs = epochs
  config.data = changed(
      nih.defaults(), layout="folder" if args.folder else "lists", view=args.view, image_root=args.root,
      root=args.root, lists_root=args.lists, crop_size=crop, equalize_hist=equalise)
  return deep_geo.finish(config, args, limit=20.0, patience=1, small_data=dict(
      layout="folder", root=args.root, crop_size=224, resize=32, image_size=32, val_kind="virus"))
