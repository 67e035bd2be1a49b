r"""Denoising autoencoder on BraTS-like brains, as published (Kascenas 2022).

  python launch.py --config=configs/dae_brats.py --workdir=runs/dae --config.data.dir=/data/BraTS2021

Full size: depth 4, wf 6 (7.7 M parameters), 67,200 steps of 16; hours on one GPU. It was not run
here at full size, and the paper's tables are not quoted: its splits and pipeline are its own, and
its best Dice is that of a threshold chosen on the test labels. Without config.data.dir it runs on
synthetic brains, and says so in every result.

Arguments after the colon:
  :demo    small network, synthetic brains, under 5 minutes on two CPU cores
  :smoke   seconds; for tests
  :single  one cosine cycle over the run instead of the periodic one
"""

import ml_collections

from configs import common
from configs.fields import scores
from data_pipelines.datasets import brats


def get_config(arg=None):
  """The locked config."""
  arg = common.parse_arg(arg, demo=False, smoke=False, single=False)
  config = common.base()

  config.method = method = ml_collections.ConfigDict()
  method.name = "dae"
  method.loss_over = "all"         # what the squared error is averaged over: all (reference) or
                                   # foreground
  method.score = score = ml_collections.ConfigDict()
  score.foreground = True          # the map is 0 outside of the foreground
  score.erosion = 5                # box that erodes it; 0 = none
  score.median = 5                 # side of the median filter; 0 = none
  score.saturation = 0.0           # level of the map that tanh approaches; 0 = none
  score.guided = 0                 # radius in pixels of the guided filter (follows edges); 0 = none
  score.guided_eps = 1e-3          # its eps, in squared units of the image
  score.guide_channel = 0          # modality whose edges it follows (FLAIR)
  score.gaussian = 0.0             # sigma in pixels of a Gaussian after it; 0 = none
  score.weights_positive = ()      # weight of image > recon, one a modality; () = 1 (reference)
  score.weights_negative = ()      # weight of image < recon
  score.image_score = "mean"       # slice score out of the map: mean, max, top1, foreground_mean
  score.test_noise_draws = 0       # antithetic pairs of noise averaged at test time; 0 = none
  score.test_noise_res = 16        # their resolution ...
  score.test_noise_std = 0.2       # ... and standard deviation
  score.test_noise_mirror = 0      # axis mirrored in every second draw; left-right: 1 in brains, 2 in images
  scores.add(score)                # kind: another score of the same reconstruction

  config.model = model = ml_collections.ConfigDict()
  model.depth = 4                  # levels; image sides must be multiples of 2^(depth-1)
  model.wf = 6                     # level i has 2^(wf+i) channels
  model.dtype = "float32"          # float32 or bfloat16 (activations and products)
  model.precision = ""             # of float32 products: "" (TF32 on GPUs) or highest
  model.remat = False              # recompute blocks in the backward pass to save memory
  model.norm_kernel = "plain"      # Swish + GroupNorm on GPUs: plain (XLA), pallas (kernels of our own, never
                                   # timed on a GPU so far) or measured (the faster one, timed there)

  config.optim = optim = ml_collections.ConfigDict()
  optim.lr = 1e-4
  optim.schedule = "cosine_cyclic"  # reference: rises again after half_period epochs
  optim.half_period = 100          # in epochs of epoch_steps
  optim.epoch_steps = 32
  optim.warmup = 0                 # steps, for schedule=cosine
  optim.b1, optim.b2, optim.eps = 0.9, 0.999, 1e-8
  optim.weight_decay = 1e-5        # L2, added to the gradient after the clip
  optim.clip = 0.5                 # global norm
  optim.amsgrad = True

  config.data = brats.defaults()   # all fields: data_pipelines/brains/fields.py

  config.train.steps = 67_200      # 2100 pseudo-epochs of 32
  config.train.eval_every = 1_600   # all of val; reference: every 32 steps, on 32 batches at most
  config.train.save_every = 1_600

  if arg.single:
    optim.schedule = "cosine"
  if arg.demo or arg.smoke:
    config.data.image_size = (64, 64)
    model.depth, model.wf = 4, 4
    optim.schedule, optim.lr, optim.warmup = "cosine", 2e-3, 20
    config.train.update(steps=700, batch_size=8, eval_every=350, save_every=350, log_every=10)
    config.eval.fit_residual = arg.demo  # sign and weight of each modality, fitted on val
  if arg.smoke:
    config.data.update(image_size=(32, 32), n_patients=(3, 2, 2), n_slices=4)
    model.depth, model.wf = 2, 2
    config.train.update(steps=4, eval_every=2, save_every=2, log_every=1, batch_size=4)
    config.eval.batch_size = 8
  return config.lock()
