r"""Frozen features on Camelyon16 patches (x10, 64 px) and labelled folders of histology.

  python launch.py --workdir=W \
    --config=configs/frozen_camelyon16.py:root=camelyon16/x10,lists=folds,weights=vgg16.npz
root: the patches; lists: the published lists (data_pipelines/datasets/camelyon.py).

Arguments: folder=1: root is a folder with labels.csv; slides=1: of whole slides
(docs/slides.md); seed; fold=0..2; size to which patches are resized for
the backbone (96); backbone (vgg16).
  (none)   one pass over the normal patches, then val and test.
  :demo    synthetic colour textures, a *random* backbone, two CPU cores, about a minute.
  :smoke   synthetic colour textures, seconds.
"""

from configs import common
from configs.fields import frozen
from data_pipelines.datasets import camelyon, slides
from data_pipelines.fields import changed


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring."""
  args = common.parse_arg(arg, demo=False, smoke=False, run=0, seed=-1, fold=-1, root="", lists="",
                          folder=False, slides=False, size=96, weights="", backbone="")
  config = frozen.base()
  config.seed = args.run if args.seed < 0 else args.seed
  frozen.weights(config, args.backbone, args.weights)
  config.method.size = args.size
  config.data = changed(
      camelyon.defaults(), layout="folder" if args.folder else "lists", image_root=args.root,
      root=args.root, lists_root=args.lists, fold=args.fold)
  if not args.folder:
    config.data.update(val_fraction=0.2, val_anomalies=20)
  if args.slides:
    config.data = changed(slides.defaults(), root=args.root)
  if args.demo or args.smoke:
    frozen.synthetic(config, smoke=args.smoke)
  return config.lock()
