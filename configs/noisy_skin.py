r"""Skin lesions from noisy masks: meta-learned weights and the baselines of the paper.

  python launch.py --config=configs/noisy_skin.py --config.data.dir=FOLDER --workdir=W --mode=train
FOLDER holds a fully labelled set with labels.csv (data.layout "manifest"; the noisy masks are made
from the true ones) or noisy_img, noisy_gt, clean_img, clean_gt, ... (data.layout "folders").

Arguments: noise=polygon:3 (data_pipelines/masks/label_noise.py lists the kinds), clean=10 (number of
images whose expert mask is used), baseline=pixel_reweight | image_reweight | plain | supervised |
finetune, seed, and the sizes:
  (none)   the paper's: 96x96, width 64, 31 M parameters, 300 epochs of 1990 images (R: Mirikharaji
           et al. 2019 report about three days on a 12 GB card; scores there are not repeated here).
  :small   48x48, width 8, 0.49 M parameters, 600 steps of Adam: two CPU cores, 2 minutes a run.
           The table of docs/noisy_annotation.md was made with it, on ISIC 2017.
  :demo    synthetic lesions, two CPU cores, about 2 minutes; validation Dice about 0.9.
  :smoke   synthetic lesions, 4 steps, seconds; learns nothing.
"""

from configs import common

# Mean and standard deviation of the lesion photographs, as published with the method.
_MEAN = (0.70769376, 0.59134567, 0.54666793)
_STD = (0.15497926, 0.16345601, 0.17852926)


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring."""
  a = common.parse_arg(arg, demo=False, smoke=False, small=False, noise="polygon:3", clean=10,
                       baseline="pixel_reweight", seed=0, steps=0)
  c = common.base("segmentation")
  c.seed = a.seed

  c.method = m = _group()
  m.name = "noisy_annotation"
  m.baseline = a.baseline          # pixel_reweight, image_reweight, plain, supervised, finetune
  m.meta = "jvp"                   # jvp, or double_backward: equal numbers, a third more time
  m.meta_dtype = "float32"         # of the clean gradient and of the derivative along it
  m.normalise = "batch"            # batch (the paper) or image: each image gets the same total
  m.clip = 0.0                     # largest weight in units of the uniform one; 0 = none
  m.uniform_mix = 0.0              # k in (1-k) w + k uniform; 0 is the paper
  m.clean_weight = 0.0             # adds this multiple of the clean loss; 0 is the paper
  m.finetune_share = 0.25          # last share of the steps, on clean images (finetune only)
  m.finetune_lr = 0.1              # factor on the learning rate there
  m.track = 2048                   # noisy examples whose learnt weights are kept; 0 = none
  m.track_size = 32                # side of their weight maps
  m.track_window = 10              # visits that the running mean reaches back over
  m.score = _group()               # nothing to choose: the score is the lesion's area

  c.model = m = _group()
  m.width = 64                     # channels of the first block
  m.init = "torch"                 # torch (the reference's default) or he
  m.dtype = "float32"              # float32 or bfloat16, of z and of the update
  m.precision = ""                 # of products: "" = the device's default, or highest
  m.sides = "pad"                  # sides not divisible by 16: pad, or ceil (the reference's)
  m.mean, m.std = _MEAN, _STD      # standardisation of images in [0,1], per channel

  c.data = d = _group()
  d.name = "segmentation"          # data_pipelines/datasets/segmentation.py
  d.dir = ""                       # folder of the data set
  d.layout = "manifest"            # manifest, folders or synthetic
  d.manifest = "labels.csv"        # its table: columns image, mask, split (and image_id, group)
  d.image_size = 96                # images and masks are resized to this side
  d.channels = 3
  d.noise = a.noise                # how the noisy masks are made; "" = the folder's own
  d.noise_seed = 0                 # of the noise: fixed, so that all seeds see the same masks
  d.clean = a.clean                # images with expert masks; the others get noisy ones
  d.clean_seed = a.seed            # which images these are
  d.noisy_includes_clean = a.baseline in ("plain", "finetune")  # "all": clean images among them
  d.limit = 0                      # first n training images only; 0 = all
  d.val_from_clean = 0             # layout folders without val_img: clean images held out for it
  d.soft_masks = False             # accept grey values in masks as soft targets (the reference)
  d.mean_image = ""                # .npy file [H,W,C] in [0,1] to subtract; "" = none
  d.flip = True                    # random flips of image and mask
  d.crop = 0                       # random crops out of images larger by so many pixels
  d.batch_sizes = _group()         # of streams beside the first, whose size is train.batch_size
  d.batch_sizes.clean = 6          # the paper says 10 (R), the published code really uses 6

  c.optim = o = _group()
  o.name = "sgd"                   # sgd (the reference) or adam (momentum is then its b1)
  o.lr = 1e-4                      # of the virtual and the real step
  o.momentum = 0.99                # hard-coded in the published code
  o.weight_decay = 5e-5            # L2, biases too
  o.schedule = "piecewise"         # constant, cosine, piecewise
  o.boundaries = (99, 199)         # epochs after which lr falls to a tenth
  o.epoch_steps = 332              # ceil(1990 / 6)

  c.train.steps = 300 * 332
  c.train.batch_size = 6           # noisy images
  c.train.eval_every = 5 * 332
  c.train.save_every = 5 * 332
  c.train.best_metric, c.train.best_mode = "val/dice", "max"
  c.eval.splits = ("val", "test", "noisy", "clean")  # noisy: the annotation-quality view; clean:
                                   # the expert masks trained on, to see overfitting
  if a.small or a.demo:
    _small(c, a)
  if a.demo or a.smoke:
    d.layout, d.dir, d.name = "synthetic", "", "segmentation"
    d.synthetic_counts = (160, 24, 40)  # synthetic train, val and test images
  if a.smoke:
    _smoke(c)
  if a.steps:
    c.train.steps = a.steps
  return c.lock()


def _group():
  return common.ml_collections.ConfigDict()


def _small(c, a):
  """A budget for CPUs. The published SGD would need 100,000 steps; a network without normalisation
  leaves the plateau of the constant prediction within some ten steps of Adam.
  """
  c.data.image_size, c.model.width, c.model.init = 48, 8, "he"
  c.train.batch_size, c.data.batch_sizes.clean = 16, 10
  c.optim.name, c.optim.lr, c.optim.momentum, c.optim.schedule = "adam", 1e-3, 0.9, "cosine"
  c.train.steps = 300 if a.demo else 600
  c.train.eval_every = c.train.save_every = c.train.steps // 4


def _smoke(c):
  c.data.image_size, c.model.width, c.model.init = 16, 2, "he"
  c.train.batch_size, c.data.batch_sizes.clean, c.data.clean = 4, 4, 4
  c.data.synthetic_counts = (16, 4, 4)
  c.method.track, c.method.track_size = 16, 8
  c.optim.lr, c.optim.momentum, c.optim.schedule = 0.02, 0.9, "constant"
  c.train.steps, c.train.log_every = 4, 1
  c.train.eval_every = c.train.save_every = 2
  c.train.eval_batch_size = c.eval.batch_size = 4
  c.eval.bootstrap, c.eval.overlays = 50, 2
