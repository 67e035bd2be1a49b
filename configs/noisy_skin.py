r"""Skin lesions from noisy masks: meta-learned weights and the baselines of the paper.

  python launch.py --config=configs/noisy_skin.py --config.data.dir=FOLDER --workdir=W --mode=train
FOLDER holds a fully labelled set with labels.csv (data.layout "manifest"; the noisy masks are made
from the true ones) or noisy_img, noisy_gt, clean_img, clean_gt, ... (data.layout "folders").

Arguments: noise=polygon:3 (data_pipelines/masks/label_noise.py lists the kinds), clean=10 (number
of images whose expert mask is used), baseline=pixel_reweight | image_reweight | plain | supervised |
finetune, seed, and the sizes:
  (none)   the paper's: 96x96, width 64, 31 M parameters, 300 epochs of 1990 images (R: Mirikharaji
           et al. 2019 report about three days on a 12 GB card; scores there are not repeated here).
  :small   48x48, width 8, 0.49 M parameters, 600 steps of Adam: two CPU cores, 2 minutes a run.
           The table of docs/noisy_annotation.md was made with it, on ISIC 2017.
  :demo    synthetic lesions, two CPU cores, about 2 minutes; validation Dice about 0.9.
  :smoke   synthetic lesions, 4 steps, seconds; learns nothing.
"""

import ml_collections

from configs import common
from data_pipelines.datasets import segmentation
from data_pipelines.fields import changed

# Mean and standard deviation of the lesion photographs, as published with the method.
_MEAN = (0.70769376, 0.59134567, 0.54666793)
_STD = (0.15497926, 0.16345601, 0.17852926)


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring."""
  args = common.parse_arg(arg, demo=False, smoke=False, small=False, noise="polygon:3", clean=10,
                          baseline="pixel_reweight", seed=0, steps=0)
  config = common.base("segmentation")
  config.seed = args.seed

  config.method = method = ml_collections.ConfigDict()
  method.name = "noisy_annotation"
  method.baseline = args.baseline  # pixel_reweight, image_reweight, plain, supervised, finetune
  method.meta = "jvp"              # jvp, or double_backward: equal numbers, a third more time
  method.meta_dtype = "float32"    # of the clean gradient and of the derivative along it
  method.normalise = "batch"       # batch (the paper) or image: each image gets the same total
  method.clip = 0.0                # largest weight in units of the uniform one; 0 = none
  method.uniform_mix = 0.0         # k in (1-k) w + k uniform; 0 is the paper
  method.clean_weight = 0.0        # adds this multiple of the clean loss; 0 is the paper
  method.finetune_share = 0.25     # last share of the steps, on clean images (finetune only)
  method.finetune_lr = 0.1         # factor on the learning rate there
  method.track = 2048              # noisy examples whose learnt weights are kept; 0 = none
  method.track_size = 32           # side of their weight maps
  method.track_window = 10         # visits that the running mean reaches back over
  method.score = ml_collections.ConfigDict()  # nothing to choose: the score is the lesion's area

  config.model = model = ml_collections.ConfigDict()
  model.width = 64                 # channels of the first block
  model.init = "torch"             # torch (the reference's default) or he
  model.dtype = "float32"          # float32 or bfloat16, of z and of the update
  model.precision = ""             # of products: "" = the device's default, or highest
  model.sides = "pad"              # sides not divisible by 16: pad, or ceil (the reference's)
  model.mean, model.std = _MEAN, _STD  # standardisation of images in [0,1], per channel

  config.data = changed(           # all fields: data_pipelines/datasets/segmentation.py
      segmentation.defaults(),
      noise=args.noise,            # how the noisy masks are made; "" = the folder's own
      clean=args.clean,            # images with expert masks; the others get noisy ones
      clean_seed=args.seed,        # which images these are
      noisy_includes_clean=args.baseline in ("plain", "finetune"))  # "all": clean images among them

  config.optim = optim = ml_collections.ConfigDict()
  optim.name = "sgd"               # sgd (the reference) or adam (momentum is then its b1)
  optim.lr = 1e-4                  # of the virtual and the real step
  optim.momentum = 0.99            # hard-coded in the published code
  optim.weight_decay = 5e-5        # L2, biases too
  optim.schedule = "piecewise"     # constant, cosine, piecewise
  optim.boundaries = (99, 199)     # epochs after which lr falls to a tenth
  optim.epoch_steps = 0            # 0 = a pass over the noisy images; 332 with the published 1990

  config.train.update(steps=0, epochs=300, eval_every=0, eval_every_epochs=5, save_every=0,
                      save_every_epochs=5)
  config.train.batch_size = 6      # noisy images
  config.train.best_metric, config.train.best_mode = "val/dice", "max"
  # noisy: the annotation-quality view; clean: the expert masks trained on, to see overfitting.
  config.eval.splits = ("val", "test", "noisy", "clean")
  if args.small or args.demo:
    _small(config, args)
  if args.demo or args.smoke:
    config.data.layout = "synthetic"
  if args.smoke:
    _smoke(config)
  if args.steps:
    config.train.update(steps=args.steps, epochs=0)
  return config.lock()


def _small(config, args):
  """A budget for CPUs. The published SGD would need 100,000 steps; a network without normalisation
  leaves the plateau of the constant prediction within some ten steps of Adam.
  """
  config.data.image_size, config.model.width, config.model.init = 48, 8, "he"
  config.train.batch_size, config.data.batch_sizes.clean = 16, 10
  config.optim.update(name="adam", lr=1e-3, momentum=0.9, schedule="cosine")
  _in_steps(config, 300 if args.demo else 600, every=75 if args.demo else 150)


def _in_steps(config, steps, *, every):
  config.train.update(steps=steps, epochs=0, eval_every=every, eval_every_epochs=0,
                      save_every=every, save_every_epochs=0)


def _smoke(config):
  config.data.image_size, config.model.width, config.model.init = 16, 2, "he"
  config.train.batch_size, config.data.batch_sizes.clean, config.data.clean = 4, 4, 4
  config.data.synthetic_counts = (16, 4, 4)
  config.method.track, config.method.track_size = 16, 8
  config.optim.lr, config.optim.momentum, config.optim.schedule = 0.02, 0.9, "constant"
  _in_steps(config, 4, every=2)
  config.train.log_every = 1
  config.train.eval_batch_size = config.eval.batch_size = 4
  config.eval.bootstrap, config.eval.overlays = 50, 2
