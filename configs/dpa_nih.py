r"""Deep perceptual autoencoder on chest radiographs: NIH ChestX-ray14 and labelled folders.

  python launch.py --workdir=W \
    --config=configs/dpa_nih.py:view=subset,root=nih_300,lists=folds,vgg=vgg19-dcbb9e9d.pth
root: the images scaled to 300x300; lists: the published lists (data_pipelines/datasets/nih.py).

Arguments: view=AP, PA or subset; exp=pg (growing from 8 px), wo_pg, unsupervised, L1_unsupervised,
with_L1, with_adversarial, with_adversarial_L1 (the last three with weight=0.1 or 1); run=0..2
(published seed), seed; fold=0..2; select=auroc (early stopping on a few anomalies of one kind);
folder=1: root is a folder with labels.csv, for example the paediatric set of Kermany et al.;
fast=1: bfloat16 VGG19, its features of the training images cached on the device.
  (none)   the published run. exp=wo_pg on subset: 16,000 steps of 128 images at 64 px, 71 min on a
           T4; AUROC 0.920 (paper, as quoted in public), 0.925 in an independent re-run. exp=pg:
           123,500 steps; 0.926 (paper, as quoted in public).
  :small   labelled folder on two CPU cores, 1-3 minutes a run: a narrow *random* VGG19 at 32 px;
           exp=pg grows from 8 px; loss=l1 or l2 to compare. docs/dpa.md has the table.
  :demo    synthetic textures with growing, two CPU cores, about 3 minutes.
  :smoke   synthetic textures with growing, seconds; learns nothing.
"""

from configs import common
from configs.fields import dpa, trunk
from data_pipelines.datasets import nih
from data_pipelines.errors import UserError
from data_pipelines.fields import changed

# view: wo_pg (steps, batch, lr, bottleneck channels and width, layers), equalise, pg (steps, lr,
# widths), seeds wo_pg, seeds pg.
_PG_LAYERS = "8:r12, 16:r22, 32:r32, 64:{}"
PUBLISHED = {
    "AP": dict(steps=27000, batch=56, lr=0.0005, width=64, layers="r32", equalize=True,
               pg_steps=7000, pg_lr=0.0005, pg_widths=(32, 32, 64, 64, 64)),
    "PA": dict(steps=33000, batch=128, lr=0.002, width=16, layers="r32", equalize=False,
               pg_steps=10000, pg_lr=0.001, pg_widths=(16,) * 5),
    "subset": dict(steps=16000, batch=128, lr=0.002, width=16, layers="r42", equalize=False,
                   pg_steps=3500, pg_lr=0.001, pg_widths=(16,) * 5)}
SEEDS = {  # experiment: view: seeds; the rest as wo_pg
    "wo_pg": {"AP": (8350, 3255, 6638), "PA": (2489, 5709, 9424), "subset": (813, 4535, 5080)},
    "pg": {"AP": (9449, 6402, 8696), "PA": (7983, 5260, 4011), "subset": (5159, 6472, 7581)},
    "unsupervised": {"AP": (4874, 2952, 4560), "PA": (1810, 748, 3013),
                     "subset": (9066, 4129, 2258)},
    "L1_unsupervised": {"AP": (1835, 7514, 4572), "PA": (9821, 5264, 3338),
                        "subset": (5107, 8447, 6076)},
    **{exp: {"subset": (8681, 2355, 8817)}
       for exp in ("with_L1", "with_adversarial", "with_adversarial_L1")}}
UNSUPERVISED = {"AP": (57666, 28333), "PA": (64333, 31000), "subset": (24333, 32333)}  # , with L1


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring.

  Raises:
    ValueError: an unknown view or experiment, or run out of range.
  """
  args = common.parse_arg(arg, demo=False, smoke=False, small=False, view="subset", exp="wo_pg",
                          weight=0.1, run=0, seed=-1, fold=-1, select="", root="", lists="",
                          folder=False, vgg="", loss="", fast=False)
  if args.view not in PUBLISHED or not 0 <= args.run <= 2:
    raise UserError(f"config arguments view={args.view}, run={args.run}: view is AP, PA or subset, "
                    "run 0 to 2")
  published = PUBLISHED[args.view]
  config = dpa.base()
  seeds = SEEDS.get(args.exp, {}).get(args.view) or SEEDS["wo_pg"][args.view]
  config.seed = seeds[args.run] if args.seed < 0 else args.seed
  width = published["width"]
  config.model.update(max_res=64, latent_dim=width, enc_widths=(width,) * 5)
  config.method.layers = published["layers"]
  trunk.choose(config.method, args.vgg)
  config.optim.lr = published["lr"]
  config.train.update(steps=published["steps"], batch_size=published["batch"])
  config.data = changed(
      nih.defaults(), view=args.view, image_root=args.root, lists_root=args.lists,
      equalize_hist=published["equalize"])
  if args.folder:
    config.data.update(layout="folder", root=args.root)
  _experiment(config, args, published)
  if args.loss:
    config.method.loss = args.loss
    config.method.score.loss = args.loss if args.loss in ("l1", "l2") else config.method.score.loss
  dpa.validate(config, select=args.select, fold=args.fold,
               limit=10**6 if args.exp == "pg" else 100000)
  if args.small:
    small(config, args)
  if args.fast:
    dpa.fast(config)
  if args.demo or args.smoke:
    dpa.synthetic(config, smoke=args.smoke, growing=True)
  return config.lock()


def _experiment(config, args, published):
  dpa.experiment(config, args.exp, args.weight)
  if args.exp == "pg":
    dpa.grow(config, 8, _PG_LAYERS.format(published["layers"]))
    config.model.enc_widths, config.optim.lr = published["pg_widths"], published["pg_lr"]
    config.train.steps = published["pg_steps"]
  elif args.exp.endswith("unsupervised"):  # the bottleneck chosen by reconstruction: the largest
    config.model.update(latent_dim=64, latent_res=4, enc_widths=(64,) * 5)
    config.data.equalize_hist = False
    config.optim.lr = 0.0005
    config.train.update(steps=UNSUPERVISED[args.view][args.exp.startswith("L1")], batch_size=56)
  elif args.exp == "with_L1" and args.view == "subset":
    config.method.layers = "r32+r42"  # the published ablation changes the layers here, too


def small(config, args):
  """A labelled folder at 32 px on two CPU cores: random narrow trunk (not VGG19's weights)."""
  growing = args.exp == "pg"
  if dpa.random_trunk(config.method):
    config.method.vgg_widths = (16, 32, 64, 128, 128)
  config.method.layers = "8:r12, 16:r22, 32:r32" if growing else "r32"
  config.method.growing.update(transition_steps=150, stable_steps=150)
  config.model.update(max_res=32, enc_widths=(16,) * 4, latent_dim=16)
  config.optim.lr = 0.002
  config.train.update(steps=300, batch_size=32, eval_every=100, save_every=150, eval_batch_size=60,
                      keep=20 if growing else 2)
  if config.data.fold < 0:  # a fold stops on its normal images
    config.train.update(best_metric="val/image_auroc", best_mode="max")
  config.data.update(layout="folder", root=args.root, resize=32, image_size=32, val_kind="virus",
                     equalize_hist=False)
  config.eval.update(splits=("val", "test"), checkpoint="best", batch_size=60)
