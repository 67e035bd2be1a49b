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
from configs.fields import piad
from data_pipelines.errors import UserError

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
  a = common.parse_arg(arg, demo=False, smoke=False, small=False, view="subset", exp="with_cv",
                       run=0, seed=-1, fold=-1, val=0.0, mismatch=False, root="", lists="",
                       folder=False, vgg="")
  if a.view not in TUNED or a.exp not in SEEDS or not 0 <= a.run <= 2:
    raise UserError(f"config arguments view={a.view}, exp={a.exp}, run={a.run}: view is AP, PA or "
                     "subset, exp with_cv or reproduce, run 0 to 2")
  c = piad.base()
  c.seed = SEEDS[a.exp][a.view][a.run] if a.seed < 0 else a.seed
  layers, steps = TUNED[a.view] if a.exp == "with_cv" else ("r42", 100000)
  c.method.layers = layers
  piad.weights(c, a.vgg)
  c.train.steps = steps
  c.model.update(res=64, channels=1, enc=(32, 64, 128, 256, 256), dec=(256, 256, 128, 64, 32),
                 critic_image=(32, 64, 128, 128, 128))
  wrong = a.mismatch and a.exp == "with_cv" and a.view != "PA"
  c.data = dict(name="nih", layout="folder" if a.folder else "lists", view=a.view,
                image_root=a.root, root=a.root, lists_root=a.lists, folds="leakfree", fold_seed=0,
                n_folds=3, val_fraction=0.0, val_anomalies=0, crop_size=224, resize=64,
                equalize_hist=False, equalize_hist_test=wrong, cache=True, val_kind="",
                train_limit=0, val_from_test=False, resident=False)
  piad.validate(c, a.fold, a.val)
  if a.folder:
    c.eval.splits = ("val", "test")
  if a.small:
    piad_cifar10.small(c)
    c.model.update(res=16, latent_dim=32, enc=(16, 16, 32), dec=(32, 16, 16),
                   critic_image=(16, 16, 16), critic_latent=(64, 64))
    c.method.update(vgg_widths=(16, 32, 64, 64, 64), layers="r22")
    c.train.update(steps=500, eval_every=100, save_every=100)
    c.data.update(layout="folder", root=a.root, val_kind="virus", resize=16)
  if a.demo or a.smoke:
    piad.synthetic(c, smoke=a.smoke)
  return piad.finish(c)
