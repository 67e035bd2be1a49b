r"""PIAD on Camelyon16 patches (x10, 64 px; baseline of the DPA paper, arXiv 2006.13265).

  python launch.py --workdir=W \
    --config=configs/piad_camelyon16.py:root=camelyon16/x10,lists=folds,vgg=vgg19-dcbb9e9d.pth
root: the patches; lists: the published lists (data_pipelines/datasets/camelyon.py).

Arguments: exp=with_cv or reproduce; run=0..2 (published seed), seed; fold=0..2; val=0.05 holds out
slides for thresholds; augment=1: random crops and flips as DPA has them (published: the centre of
each patch, which makes the comparison uneven); folder=1: root is a folder with labels.csv.
  (none)   the published run: with_cv 13,000, reproduce 100,000 iterations of 3 x 32 patches; AUROC
           0.906 (tuned; paper, as quoted in public).
  :small   labelled folder on two CPU cores, 4-6 minutes: a narrow *random* VGG19, 32 px.
  :demo    synthetic colour textures, two CPU cores, about 2 minutes.
  :smoke   synthetic colour textures, the networks of 2019, seconds; learns nothing.
"""

from configs import common, piad_cifar10
from configs.fields import piad, trunk
from data_pipelines.datasets import camelyon
from data_pipelines.errors import UserError
from data_pipelines.fields import changed

# experiment: (latent_dim, encoder, generator, image critic, iterations, seeds). The with_cv files
# list seven widths for five blocks; these are the ones in use.
PUBLISHED = {
    "with_cv": (128, (32, 64, 128, 128, 128), (128, 128, 128, 64, 32), (32, 64, 128, 128, 128),
                13000, (8489, 8775, 9478)),
    "reproduce": (256, (32, 64, 128, 256, 256), (256, 256, 128, 64, 32), (32, 64, 128, 128, 128),
                  100000, (435, 7863, 6589))}


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring.

  Raises:
    ValueError: exp or run out of range.
  """
  args = common.parse_arg(arg, demo=False, smoke=False, small=False, exp="with_cv", run=0, seed=-1,
                          fold=-1, val=0.0, augment=False, root="", lists="", folder=False, vgg="")
  if args.exp not in PUBLISHED or not 0 <= args.run <= 2:
    raise UserError(f"config arguments exp={args.exp}, run={args.run}: exp is with_cv or "
                    "reproduce, run 0 to 2")
  latent, enc, dec, critic, steps, seeds = PUBLISHED[args.exp]
  config = piad.base()
  config.seed = seeds[args.run] if args.seed < 0 else args.seed
  config.method.layers = "r42"
  trunk.choose(config.method, args.vgg)
  config.train.steps = steps
  config.model.update(res=64, latent_dim=latent, enc=enc, dec=dec, critic_image=critic)
  config.data = changed(
      camelyon.defaults(), layout="folder" if args.folder else "lists", image_root=args.root,
      root=args.root, lists_root=args.lists, random_crop=args.augment, random_flip=args.augment)
  piad.validate(config, args.fold, args.val)
  if args.folder:
    config.eval.splits = ("val", "test")
  if args.small:
    piad_cifar10.small(config)
    config.model.res = config.data.crop_size = 32
    config.data.update(layout="folder", root=args.root, resize=48)
  if args.demo or args.smoke:
    piad.synthetic(config, smoke=args.smoke)
    if args.smoke:
      piad.of_2019(config)
  return piad.finish(config)
