r"""Denoising autoencoder on one's own NIfTI volumes; the defaults fit a set of some dozen patients.

  python launch.py --config=configs/dae_nifti.py --workdir=runs/mine --config.data.dir=/data/mine \
      --config.data.modalities='("flair","t1","t1ce")'

The folder holds BraTS-style patients, or a manifest.csv (patient, split, one column a modality,
optional seg). CPU-sized: depth 4, wf 4 (0.5 M parameters), 2500 steps of 16 slices of 128x128:
about 30 minutes on two cores. Training is the published recipe with one cosine cycle at lr 1e-3;
what differs is the score: sign and weight of each modality's residual are fitted on the val
patients, half to their masks and half to SYNTHETIC lesions drawn on their healthy slices (to these
alone where nobody has marked any), the residual is the mean of two noise draws, one of them on the
slice mirrored front to back (scoring takes five times as long as without:
config.method.score.test_noise_draws=0), the foreground is eroded by 3 pixels instead of 5, the map
saturates and follows FLAIR's edges, and a slice is scored by the maximum of its map instead of the
mean. Intensities are in the balanced unit (config.data.unit; docs/dae.md).

Arguments after the colon:
  :published  the published score as well (mean absolute residual of all modalities), unit of
              intensity and slices: each resized to 128x128, whatever its field of view
  :small      wf 3, slices of 96x96, 600 steps: for studies on two cores
  :demo       small network, synthetic brains, minutes
  :smoke      seconds, synthetic brains; for tests
  root=FOLDER, run=SEED, folds=5,fold=K   data.dir, seed, data.folds and data.fold
  unit=balanced                           of intensity: data.unit
  noise_res=16,noise_std=0.2              of the coarse noise of training
  loss=ssim+l1                            over all pixels instead of the squared error in the foreground
"""

from configs import common, dae_brats


def get_config(arg=None):
  """The locked config."""
  arg = common.parse_arg(arg, published=False, small=False, demo=False, smoke=False, root="",
                         run=0, folds=0, fold=0, noise_res=0, noise_std=0.0, unit="", loss="")
  config = dae_brats.get_config("smoke" if arg.smoke else "demo" if arg.demo else None)
  with config.unlocked():
    config.seed = arg.run
    config.data.update(modalities=("flair", "t1", "t1ce"), dir=arg.root, folds=arg.folds, fold=arg.fold)
    for name in ("noise_res", "noise_std"):
      config.data[name] = arg[name] or config.data[name]
    if arg.loss:
      config.method.loss = arg.loss    # l1, l2, ssim, with factors
    if not arg.smoke and not arg.demo:
      config.model.wf = 4
      config.optim.schedule, config.optim.lr = "cosine", 1e-3
      config.train.update(steps=2500, eval_every=250, save_every=250, log_every=25)
      config.eval.fit_residual = not arg.published
      if not arg.published:
        config.eval.fit_lesions = "both"
        config.method.score.update(test_noise_draws=2, test_noise_mirror=2, erosion=3, saturation=0.4,
                                   guided=5, image_score="max")
    if arg.small:
      config.model.wf, config.data.image_size = 3, (96, 96)
      config.train.update(steps=600, eval_every=100, save_every=100, log_every=50, keep=6)
    config.data.unit = arg.unit or ("percentile" if arg.published else "balanced")
    if not arg.published:
      config.data.placement = "anatomy"  # true to scale: crops, margins and voxel sizes do not matter
  return config.lock()
