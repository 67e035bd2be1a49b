r"""Deep perceptual autoencoder on Camelyon16 patches (x10, 64 px; Shvetsova et al. 2021).

  python launch.py --workdir=W \
    --config=configs/dpa_camelyon16.py:root=camelyon16/x10,lists=folds,vgg=vgg19-dcbb9e9d.pth
root: the patches; lists: the published lists (data_pipelines/datasets/camelyon.py).

Arguments: exp=pg (growing from 16 px), wo_pg, unsupervised, L1_unsupervised, with_L1,
with_adversarial, with_adversarial_L1 (weight=0.1 or 1); run=0..2 (published seed), seed; fold=0..2;
select=auroc; folder=1: root is a folder with labels.csv; slides=1: of whole
slides (docs/slides.md); freeze=1: one crop and flip an image for the whole run, as the published
growing run had it; fast=1: bfloat16 VGG19, 20 steps a dispatch.
  (none)   the published run: exp=wo_pg 34,666 steps of 128 patches, exp=pg 88,666; AUROC 0.934 with
           growing (paper, as quoted in public).
  :demo    synthetic colour textures, two CPU cores, about 3 minutes.
  :smoke   synthetic colour textures with an adversarial term, seconds; learns nothing.
"""

from configs import common
from configs.fields import dpa, trunk
from data_pipelines.datasets import camelyon, slides
from data_pipelines.errors import UserError
from data_pipelines.fields import changed

SEEDS = {"wo_pg": (3139, 3851, 3528), "pg": (9722, 7602, 1941), "unsupervised": (2888, 5596, 5174),
         "L1_unsupervised": (6012, 345, 3972)}  # the other ablations as wo_pg


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring.

  Raises:
    ValueError: an unknown experiment, or run out of range.
  """
  args = common.parse_arg(arg, demo=False, smoke=False, exp="wo_pg", weight=0.1, run=0, seed=-1,
                          fold=-1, select="", root="", lists="", folder=False, slides=False, freeze=False,
                          vgg="", fast=False)
  if not 0 <= args.run <= 2:
    raise UserError(f"config argument run={args.run}: use 0 to 2")
  config = dpa.base()
  config.seed = SEEDS.get(args.exp, SEEDS["wo_pg"])[args.run] if args.seed < 0 else args.seed
  config.model.update(max_res=64, latent_dim=4, latent_res=8, enc_widths=(4,) * 4,
                      critic_widths=(4,) * 5)
  config.method.layers = "r42"
  trunk.choose(config.method, args.vgg)
  config.optim.lr = 0.001
  config.train.steps = 34666
  config.data = changed(
      camelyon.defaults(), layout="folder" if args.folder else "lists", image_root=args.root,
      root=args.root, lists_root=args.lists, random_crop=True, random_flip=True,
      freeze_augmentation=args.freeze)
  dpa.experiment(config, args.exp, args.weight)
  if args.exp == "pg":
    dpa.grow(config, 16, "16:r32, 32:r32, 64:r42")
    config.train.steps = 8666
  elif args.exp == "unsupervised":
    config.model.update(latent_dim=64, latent_res=16, enc_widths=(64,) * 3)
    config.optim.lr, config.train.steps = 0.0001, 77000
  elif args.exp == "L1_unsupervised":
    config.model.update(latent_dim=32, latent_res=16, enc_widths=(32,) * 3)
    config.optim.lr, config.train.steps = 0.0002, 46000
  dpa.validate(config, select=args.select, fold=args.fold,
               limit=10**6 if args.exp == "pg" else 100000)
  if args.fast:
    dpa.fast(config, augmented=True)
  if args.slides:
    config.data = changed(slides.defaults(), root=args.root)
  if args.demo or args.smoke:
    if args.smoke and args.exp == "wo_pg":
      dpa.experiment(config, "with_adversarial", 0.1)
    dpa.synthetic(config, smoke=args.smoke)
  return config.lock()
