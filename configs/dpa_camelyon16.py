r"""Deep perceptual autoencoder on Camelyon16 patches (x10, 64 px; Shvetsova et al. 2021).

  python launch.py --workdir=W \
    --config=configs/dpa_camelyon16.py:root=camelyon16/x10,lists=folds,vgg=vgg19-dcbb9e9d.pth
root: the patches; lists: the published lists (data_pipelines/datasets/camelyon.py).

Arguments: exp=pg (growing from 16 px), wo_pg, unsupervised, L1_unsupervised, with_L1,
with_adversarial, with_adversarial_L1 (weight=0.1 or 1); run=0..2 (published seed), seed; fold=0..2;
select=auroc; folder=1: root is a folder with labels.csv; freeze=1: one crop and flip an image for
the whole run, as the published growing run had it; fast=1: bfloat16 VGG19, 20 steps a dispatch.
  (none)   the published run: exp=wo_pg 34,666 steps of 128 patches, exp=pg 88,666; AUROC 0.934 with
           growing (paper, as quoted in public).
  :demo    synthetic colour textures, two CPU cores, about 3 minutes.
  :smoke   synthetic colour textures with an adversarial term, seconds; learns nothing.
"""

from configs import common
from configs.fields import dpa
from data_pipelines.errors import UserError

SEEDS = {"wo_pg": (3139, 3851, 3528), "pg": (9722, 7602, 1941), "unsupervised": (2888, 5596, 5174),
         "L1_unsupervised": (6012, 345, 3972)}  # the other ablations as wo_pg


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring.

  Raises:
    ValueError: an unknown experiment, or run out of range.
  """
  a = common.parse_arg(arg, demo=False, smoke=False, exp="wo_pg", weight=0.1, run=0, seed=-1,
                       fold=-1, select="", root="", lists="", folder=False, freeze=False, vgg="",
                       fast=False)
  if not 0 <= a.run <= 2:
    raise UserError(f"config argument run={a.run}: use 0 to 2")
  c = dpa.base()
  c.seed = SEEDS.get(a.exp, SEEDS["wo_pg"])[a.run] if a.seed < 0 else a.seed
  c.model.update(max_res=64, latent_dim=4, latent_res=8, enc_widths=(4,) * 4, dis_widths=(4,) * 5)
  c.method.layers = "r42"
  dpa.weights(c, a.vgg)
  c.optim.lr = 0.001
  c.train.steps = 34666
  c.data.update(name="camelyon", layout="folder" if a.folder else "lists", image_root=a.root,
                root=a.root, lists_root=a.lists, folds="leakfree", fold_seed=0, n_folds=3,
                val_fraction=0.0, val_anomalies=0, crop_size=64, random_crop=True, random_flip=True,
                freeze_augmentation=a.freeze, resize=0, equalize_hist=False, cache=True,
                val_kind="", image_size=64, channels=3)
  dpa.experiment(c, a.exp, a.weight)
  if a.exp == "pg":
    dpa.grow(c, 16, "16:r32, 32:r32, 64:r42")
    c.train.steps = 8666
  elif a.exp == "unsupervised":
    c.model.update(latent_dim=64, latent_res=16, enc_widths=(64,) * 3)
    c.optim.lr, c.train.steps = 0.0001, 77000
  elif a.exp == "L1_unsupervised":
    c.model.update(latent_dim=32, latent_res=16, enc_widths=(32,) * 3)
    c.optim.lr, c.train.steps = 0.0002, 46000
  dpa.validate(c, select=a.select, fold=a.fold, limit=10**6 if a.exp == "pg" else 100000)
  if a.fast:
    dpa.fast(c, augmented=True)
  if a.demo or a.smoke:
    if a.smoke and a.exp == "wo_pg":
      dpa.experiment(c, "with_adversarial", 0.1)
    dpa.synthetic(c, smoke=a.smoke)
  return c.lock()
