r"""Frozen features on CIFAR-10, one class against the rest: nothing is trained, normal features are kept.

  python launch.py --workdir=W --config=configs/frozen_cifar10.py:cls=0,root=DATA,weights=vgg16.npz
DATA: a prepared TFDS folder, the official binary files, or an .npz (data_pipelines/datasets/natural.py);
weights: of the backbone (--mode=weights says where they can be had and converts them).

Nothing is trained: normal images are passed once, the taps are chosen on val (20 images of one other class,
10 % of the normal ones), the test split is scored once.
Arguments: cls=0..9 (normal class), run or seed (projections, forest, coreset), fold=0..2 with lists=FOLDER,
backbone (vgg16), maps=1 (PaDiM and PatchCore as well), and the sizes:
  (none)   450 normal and 2,000 test images: 37 CPU-seconds; AUROC of single classes 0.81 to 0.84
           with ImageNet's VGG16 (docs/frozen_features.md).
  :demo    synthetic textures, a *random* backbone, two CPU cores, about a minute.
  :smoke   synthetic textures, seconds.
"""

from configs import common
from configs.fields import frozen
from data_pipelines.datasets import natural
from data_pipelines.errors import UserError
from data_pipelines.fields import changed


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring."""
  return build(arg, "cifar10", gray=False)


def build(arg, dataset, gray):
  """The config of one class; SVHN shares it (configs/frozen_svhn.py).

  Raises:
    UserError: cls out of range.
  """
  args = common.parse_arg(arg, demo=False, smoke=False, cls=0, run=0, seed=-1, fold=-1, root="", lists="",
                          weights="", backbone="", maps=False)
  if not 0 <= args.cls <= 9:
    raise UserError(f"config argument cls={args.cls}: use 0 to 9")
  config = frozen.base()
  config.seed = args.run if args.seed < 0 else args.seed
  frozen.weights(config, args.backbone, args.weights)
  config.method.size = 48
  if not args.maps:
    frozen.without_maps(config)
  config.data = changed(
      natural.defaults(), dataset=dataset, root=args.root, lists_root=args.lists, normal_class=args.cls,
      to_grayscale=gray, channels=1 if gray else 3, folds="leakfree" if args.lists else "generated",
      fold=args.fold, val_fraction=0.1, val_anomalies=20)
  if args.demo or args.smoke:
    frozen.synthetic(config, smoke=args.smoke)
  return config.lock()
