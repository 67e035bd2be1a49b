r"""PIAD on chest radiographs: NIH ChestX-ray14 (baseline of the DPA paper) and labelled folders.

  python launch.py --workdir=W \
    --config=configs/piad_nih.py:view=subset,root=nih_300,lists=folds,vgg=vgg19-dcbb9e9d.pth
root: the images scaled to 300x300; lists: the published lists (data_pipelines/datasets/nih.py).

Arguments: view=AP, PA or subset; exp=with_cv or reproduce; run=0..2 (published seed), seed;
fold=0..2; val=0.05 holds out patients for thresholds; mismatch=1 scores AP and subset with
equalised images, as the published with_cv runs did by mistake; folder=1: root is a folder with
labels.csv, for example the paediatric set of Kermany et al.
  (none)   the published run: 20,000 to 100,000 iterations of 3 x 32 images at 64 px. with_cv on
           subset: 40,000 iterations, 125 min on a T4; AUROC 0.880 (paper, as quoted in public),
           0.885 in an independent re-run.
  :small   labelled folder on the CPU, some minutes: a narrow *random* VGG19, 16 px.
  :demo    synthetic textures, 3-5 minutes on one CPU core.
  :smoke   synthetic textures, 4 iterations, seconds; learns nothing.
"""

from configs import common, piad_cifar10
from configs.fields import piad, trunk
from data_pipelines.datasets import nih
from data_pipelines.errors import UserError
from data_pipelines.fields import changed

TUNED = {"AP": ("r32+r42", 40000), "PA": ("r32+r42", 20000), "subset": ("r42", 40000)}
SEEDS = {"with_cv": {"AP": (2011, 4143, 1927), "PA": (2748, 4526, 8487),
                     "subset": (8439, 5375, 8189)},
         "reproduce": {"AP": (417, 4074, 9874), "PA": (4097, 780, 8329),
                       "subset": (1715, 197, 7763)}}


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring.

  Raises:
    ValueError: view, exp or run out of range.
  """
  args = common.parse_arg(arg, demo=False, smoke=False, small=False, view="subset", exp="with_cv",
                          run=0, seed=-1, fold=-1, val=0.0, mismatch=False, root="", lists="",
                          folder=False, vgg="")
  if args.view not in TUNED or args.exp not in SEEDS or not 0 <= args.run <= 2:
    raise UserError(f"config arguments view={args.view}, exp={args.exp}, run={args.run}: view is AP, "
                    "PA or subset, exp with_cv or reproduce, run 0 to 2")
  config = piad.base()
  config.seed = SEEDS[args.exp][args.view][args.run] if args.seed < 0 else args.seed
  layers, steps = TUNED[args.view] if args.exp == "with_cv" else ("r42", 100000)
  config.method.layers = layers
  trunk.choose(config.method, args.vgg)
  config.train.steps = steps
  config.model.update(res=64, channels=1, enc=(32, 64, 128, 256, 256), dec=(256, 256, 128, 64, 32),
                      critic_image=(32, 64, 128, 128, 128))
  wrong = args.mismatch and args.exp == "with_cv" and args.view != "PA"
  config.data = changed(
      nih.defaults(), layout="folder" if args.folder else "lists", view=args.view,
      image_root=args.root, root=args.root, lists_root=args.lists, equalize_hist_test=wrong)
  piad.validate(config, args.fold, args.val)
  if args.folder:
    config.eval.splits = ("val", "test")
  if args.small:
    piad_cifar10.small(config)
    config.model.update(res=16, latent_dim=32, enc=(16, 16, 32), dec=(32, 16, 16),
                        critic_image=(16, 16, 16), critic_latent=(64, 64))
    config.method.update(vgg_widths=(16, 32, 64, 64, 64), layers="r22")
    config.train.update(steps=500, eval_every=100, save_every=100)
    config.data.update(layout="folder", root=args.root, val_kind="virus", resize=16)
  if args.demo or args.smoke:
    piad.synthetic(config, smoke=args.smoke)
  return piad.finish(config)
