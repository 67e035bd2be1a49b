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
from configs.fields import piad
from data_pipelines.errors import UserError

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
  a = common.parse_arg(arg, demo=False, smoke=False, small=False, exp="with_cv", run=0, seed=-1,
                       fold=-1, val=0.0, augment=False, root="", lists="", folder=False, vgg="")
  if a.exp not in PUBLISHED or not 0 <= a.run <= 2:
    raise UserError(f"config arguments exp={a.exp}, run={a.run}: exp is with_cv or reproduce, run "
                     "0 to 2")
  latent, enc, dec, critic, steps, seeds = PUBLISHED[a.exp]
  c = piad.base()
  c.seed = seeds[a.run] if a.seed < 0 else a.seed
  c.method.layers = "r42"
  piad.weights(c, a.vgg)
  c.train.steps = steps
  c.model.update(res=64, latent_dim=latent, enc=enc, dec=dec, critic_image=critic)
  c.data = dict(name="camelyon", layout="folder" if a.folder else "lists", image_root=a.root,
                root=a.root, lists_root=a.lists, folds="leakfree", fold_seed=0, n_folds=3,
                val_fraction=0.0, val_anomalies=0, crop_size=64, random_crop=a.augment,
                random_flip=a.augment, freeze_augmentation=False, resize=0, equalize_hist=False,
                cache=True, val_kind="", train_limit=0, val_from_test=False, resident=False)
  piad.validate(c, a.fold, a.val)
  if a.folder:
    c.eval.splits = ("val", "test")
  if a.small:
    piad_cifar10.small(c)
    c.model.res = c.data.crop_size = 32
    c.data.update(layout="folder", root=a.root, resize=48)
  if a.demo or a.smoke:
    piad.synthetic(c, smoke=a.smoke)
    if a.smoke:
      piad.of_2019(c)
  return piad.finish(c)
