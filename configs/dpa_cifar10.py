r"""Deep perceptual autoencoder on CIFAR-10, one class against the rest (Shvetsova et al. 2021).

  python launch.py --workdir=W \
    --config=configs/dpa_cifar10.py:cls=0,root=DATA,vgg=vgg19-dcbb9e9d.pth
DATA: a prepared TFDS folder, the official binary files, or an .npz (data_pipelines/datasets/natural.py).

Arguments: cls=0..9 (normal class), run=0..2 (published seed), seed (another one), fold=0..2 with
lists=FOLDER, select=auroc (early stopping on 20 anomalies of one other class), fast=1
(bfloat16 VGG19, its features of the training images cached on the device), and the sizes:
  (none)   the published run: 3,666 to 8,000 steps of 128 images; minutes on one accelerator. The
           paper reports DPA level with or below Deep GEO and Deep IF here; its per-class numbers
           could not be confirmed and are not repeated.
  :small   real data on two CPU cores, about a minute a run: a narrow *random* VGG19, loss=l1, l2 or
           relative_perceptual_L1 to compare. docs/dpa.md has the table.
  :demo    synthetic textures, two CPU cores, about 2 minutes; test AUROC 0.8 or better.
  :smoke   synthetic textures, 4 steps, seconds; learns nothing.
"""

from configs import common
from configs.fields import dpa
from data_pipelines.errors import UserError

# class: (bottleneck, layer, steps, seeds); width and learning rate go with the bottleneck.
PUBLISHED = {
    0: (32, "r32", 5666, (7970, 9042, 8942)), 1: (8, "r42", 7333, (2255, 7178, 3109)),
    2: (16, "r42", 5000, (4930, 8728, 9511)), 3: (256, "r32", 4666, (7712, 8880, 5958)),
    4: (16, "r32", 6666, (7322, 7735, 4610)), 5: (8, "r42", 4666, (9693, 3407, 4064)),
    6: (64, "r32", 3666, (3231, 8188, 7677)), 7: (8, "r42", 7666, (7749, 1934, 4050)),
    8: (8, "r42", 8000, (7159, 9433, 7116)), 9: (8, "r42", 5000, (2058, 9145, 5694))}
# bottleneck: (encoder widths, fine to coarse; learning rate)
PAIRED = {8: ((8,) * 4, 0.01), 16: ((16,) * 4, 0.005), 32: ((32,) * 4, 0.002),
          64: ((32, 64, 64, 64), 0.001), 256: ((32, 64, 128, 256), 0.0002)}


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring."""
  a = common.parse_arg(arg, demo=False, smoke=False, small=False, cls=0, run=0, seed=-1, fold=-1,
                       select="", root="", lists="", vgg="", loss="relative_perceptual_L1",
                       fast=False)
  return build(a, PUBLISHED, "cifar10", gray=False).lock()


def build(a, published, dataset, gray):
  """The config of one class; SVHN shares it (configs/dpa_svhn.py).

  Raises:
    ValueError: cls or run out of range.
  """
  if a.cls not in published or not 0 <= a.run <= 2:
    raise UserError(f"config arguments cls={a.cls}, run={a.run}: cls is 0 to 9, run 0 to 2")
  latent, layers, steps, seeds = published[a.cls]
  c = dpa.base()
  c.seed = seeds[a.run] if a.seed < 0 else a.seed
  c.method.layers, c.method.loss = layers, a.loss
  dpa.weights(c, a.vgg)
  if a.loss in ("l1", "l2"):
    c.method.score.loss = a.loss
  c.model.latent_dim = latent
  c.model.enc_widths, c.optim.lr = PAIRED[latent]
  c.train.steps = steps
  c.data.update(name="natural", dataset=dataset, root=a.root, normal_class=a.cls, to_grayscale=gray,
                channels=1 if gray else 3, equalize_hist=False, lists_root=a.lists,
                folds="leakfree" if a.lists else "generated", fold_seed=0, val_class=-1,
                val_fraction=0.0, val_anomalies=0, train_limit=0)
  dpa.validate(c, select=a.select, fold=a.fold, limit=20000)
  if a.small:
    small(c)
  if a.fast:
    dpa.fast(c)
  if a.demo or a.smoke:
    dpa.synthetic(c, smoke=a.smoke)
  return c


def small(c):
  """Real images on two CPU cores: random narrow trunk (not VGG19's weights), fewer steps."""
  c.method.update(vgg_weights="random:0", vgg_stats="running", vgg_widths=(16, 32, 64, 128, 128))
  c.model.enc_widths, c.model.latent_dim, c.optim.lr = (16,) * 4, 16, 0.002
  c.train.update(steps=300, batch_size=32, eval_every=100, save_every=300, eval_batch_size=100,
                 best_metric="val/image_auroc", best_mode="max")
  c.data.update(val_fraction=0.1, val_anomalies=20)
  c.eval.update(splits=("val", "test"), checkpoint="best", batch_size=100)
