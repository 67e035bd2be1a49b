r"""Denoising autoencoder on BraTS-like brains, as published (Kascenas 2022).

  python launch.py --config=configs/dae_brats.py --workdir=runs/dae --config.data.dir=/data/BraTS2021

Full size: depth 4, wf 6 (7.7 M parameters), 67,200 steps of 16; hours on one GPU. The paper reports
pixel AP 0.833 and best Dice 0.773 on its BraTS2021 split (chosen on the test labels). Without
config.data.dir it runs on synthetic brains, and says so in every result.

Arguments after the colon:
  :demo    small network, synthetic brains, under 5 minutes on two CPU cores
  :smoke   seconds; for tests
  :single  one cosine cycle over the run instead of the periodic one
"""

import ml_collections

from configs import common
from data_pipelines.brains import fields


def get_config(arg=None):
  """The locked config."""
  arg = common.parse_arg(arg, demo=False, smoke=False, single=False)
  c = common.base()

  c.method = m = ml_collections.ConfigDict()
  m.name = "dae"
  m.loss_over = "all"              # all (reference) or foreground: what the squared error is averaged over
  m.score = s = ml_collections.ConfigDict()
  s.erosion = 5                    # box that erodes the foreground; 0 = none
  s.median = 5                     # side of the median filter; 0 = none
  s.weights_positive = ()          # weight of image > recon, one a modality; () = 1 (reference)
  s.weights_negative = ()          # weight of image < recon
  s.image_score = "mean"           # slice score out of the map: mean, max, top1, foreground_mean
  s.test_noise_draws = 0           # antithetic pairs of noise fields averaged at test time; 0 = none
  s.test_noise_res = 16            # their resolution ...
  s.test_noise_std = 0.2           # ... and standard deviation

  c.model = n = ml_collections.ConfigDict()
  n.depth = 4                      # levels; image sides must be multiples of 2^(depth-1)
  n.wf = 6                         # level i has 2^(wf+i) channels
  n.dtype = "float32"              # float32 or bfloat16 (activations and products)
  n.precision = ""                 # of float32 products: "" (TF32 on GPUs) or highest
  n.remat = False                  # recompute blocks in the backward pass to save memory

  c.optim = o = ml_collections.ConfigDict()
  o.lr = 1e-4
  o.schedule = "cosine_cyclic"     # reference: rises again after half_period epochs
  o.half_period = 100              # in epochs of epoch_steps
  o.epoch_steps = 32
  o.warmup = 0                     # steps, for schedule=cosine
  o.b1, o.b2, o.eps = 0.9, 0.999, 1e-8
  o.weight_decay = 1e-5            # L2, added to the gradient after the clip
  o.clip = 0.5                     # global norm
  o.amsgrad = True

  c.data = ml_collections.ConfigDict(fields.defaults())

  c.train.steps = 67_200           # 2100 pseudo-epochs of 32
  c.train.eval_every = 1_600
  c.train.save_every = 1_600

  if arg.single:
    o.schedule = "cosine"
  if arg.demo or arg.smoke:
    c.data.image_size = (64, 64)
    n.depth, n.wf = 4, 4
    o.schedule, o.lr, o.warmup = "cosine", 2e-3, 20
    c.train.update(steps=700, batch_size=8, eval_every=350, save_every=350, log_every=10)
    c.eval.fit_residual = arg.demo  # sign and weight of each modality, fitted on val
  if arg.smoke:
    c.data.update(image_size=(32, 32), n_patients=(3, 2, 2), n_slices=4)
    n.depth, n.wf = 2, 2
    c.train.update(steps=4, eval_every=2, save_every=2, log_every=1, batch_size=4)
    c.eval.batch_size = 8
  return c.lock()
