r"""Frozen features on chest radiographs: NIH ChestX-ray14 and labelled folders.

  python launch.py --workdir=W \
    --config=configs/frozen_nih.py:view=subset,root=nih_300,lists=folds,weights=vgg16.npz
  python launch.py --workdir=W --config=configs/frozen_nih.py:folder=1,root=chest_xray,weights=vgg16.npz
root: the images scaled to 300x300; lists: the published lists (data_pipelines/datasets/nih.py).

Arguments: view=AP, PA or subset; folder=1: root is a folder with labels.csv, kind the subtype of its
anomalies that val may see (virus, "" = all); seed; fold=0..2; size (96 px); backbone (vgg16).
  (none)   one pass over the images; chest_xray, 300 normal images: about a minute on two CPU cores, test
           AUROC about 0.86 with ImageNet's VGG16 (docs/frozen_features.md).
  :demo    synthetic textures, a *random* backbone, 73 CPU-seconds; test AUROC 0.63, pixel
           AP 0.11 (a threshold on intensity 0.04).
  :smoke   synthetic textures, seconds.
"""

from configs import common
from configs.fields import frozen
from data_pipelines.datasets import nih
from data_pipelines.errors import UserError
from data_pipelines.fields import changed


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring.

  Raises:
    UserError: an unknown view.
  """
  args = common.parse_arg(arg, demo=False, smoke=False, view="subset", run=0, seed=-1, fold=-1, root="",
                          lists="", folder=False, kind="", size=96, weights="", backbone="")
  if args.view not in ("AP", "PA", "subset"):
    raise UserError(f"config argument view={args.view}: use AP, PA or subset")
  config = frozen.base()
  config.seed = args.run if args.seed < 0 else args.seed
  frozen.weights(config, args.backbone, args.weights)
  config.data = changed(
      nih.defaults(), view=args.view, image_root=args.root, lists_root=args.lists, resize=args.size,
      image_size=args.size, fold=args.fold, val_fraction=0.2, val_anomalies=20)
  if args.folder:
    config.data.update(layout="folder", root=args.root, val_kind=args.kind, val_fraction=0.0, val_anomalies=0)
  if args.demo or args.smoke:
    frozen.synthetic(config, smoke=args.smoke)
  return config.lock()
