r"""Deep isolation forest on chest radiographs: NIH ChestX-ray14 and labelled folders (Ouardini 2019).

  python launch.py --workdir=W \
    --config=configs/deep_if_nih.py:root=nih_300,lists=folds,weights=inceptionresnetv2-520b38e4.pth
root: the images scaled to 300x300; lists: the published lists (data_pipelines/datasets/nih.py).

Arguments: view=AP, PA or subset; exp=with_cv (layers chosen with one kind of validation anomaly) or
reproduce (all eleven layers); run=0..2 (published seed), seed; fold=0..2; val=0.1 holds out patients
for thresholds; folder=1: root is a folder with labels.csv, for example the paediatric set of Kermany
et al.; native=1: the crop at its own resolution, not shrunk to 64 px as published; backbone (vgg16,
efficientnet_lite0 ...) with its weights=PATH or random:SEED, taps=r33+r43 and size=224; fast=1.
  (none)   the published run: one pass over the images at 299 px, which were shrunk to 64 px first, to
           compare with the other methods. AUROC on subset 0.873 (with_cv), 0.766 (reproduce) (the DPA
           paper, as quoted in public); 0.760 in an independent re-run of the latter.
  :demo    synthetic textures and a random VGG16, two CPU cores, about a minute.
  :smoke   synthetic textures, seconds.
"""

from configs.fields import deep_if
from data_pipelines.datasets import nih
from data_pipelines.errors import UserError
from data_pipelines.fields import changed

TUNED = {"AP": ("mixed_7a", 224, True), "PA": ("conv2d_1a", 300, True),  # layer, crop, equalise
         "subset": ("mixed_7a", 224, False)}
SEEDS = {"with_cv": {"AP": (3150, 903, 4509), "PA": (703, 1162, 9708), "subset": (2746, 2548, 8119)},
         "reproduce": {"AP": (7990, 8813, 544), "PA": (6497, 7446, 5068), "subset": (7821, 7434, 4336)}}


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring.

  Raises:
    ValueError: view, exp or run out of range.
  """
  args = deep_if.arguments(arg, view="subset", folder=False, native=False)
  deep_if.check(args)
  if args.view not in TUNED:
    raise UserError(f"config argument view={args.view}: use AP, PA or subset")
  config = deep_if.base()
  config.seed = SEEDS[args.exp][args.view][args.run] if args.seed < 0 else args.seed
  layer, crop, equal = TUNED[args.view] if args.exp == "with_cv" else ("concat", 224, False)
  config.method.taps = layer
  side = crop if args.native else 64
  config.data = changed(
      nih.defaults(), layout="folder" if args.folder else "lists", view=args.view, image_root=args.root,
      root=args.root, lists_root=args.lists, crop_size=crop, resize=side, image_size=side,
      equalize_hist=equal)
  if args.folder:
    config.eval.splits = ("val", "test")
  return deep_if.finish(config, args)
