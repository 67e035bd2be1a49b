r"""Denoising autoencoder on one's own NIfTI volumes; the defaults fit a set of some dozen patients.

  python launch.py --config=configs/dae_nifti.py --workdir=runs/mine --config.data.dir=/data/mine \
      --config.data.modalities='("flair","t1","t1ce")'

The folder holds BraTS-style patients, or a manifest.csv (patient, split, one column a modality,
optional seg). CPU-sized: depth 4, wf 4 (0.5 M parameters), 2500 steps of 16 slices of 128x128:
about 30 minutes on two cores. Training is the published recipe with one cosine cycle at lr 1e-3;
what differs is the score: sign and weight of each modality's residual are fitted on the val
patients; where nobody has marked lesions there, to SYNTHETIC ones drawn on their healthy slices.

Arguments after the colon:
  :published  the published score as well (mean absolute residual of all modalities), and the
              published slices: each resized to 128x128, whatever its field of view
  :demo       small network, synthetic brains, minutes
  :smoke      seconds, synthetic brains; for tests
"""

from configs import common, dae_brats


def get_config(arg=None):
  """The locked config."""
  arg = common.parse_arg(arg, published=False, demo=False, smoke=False)
  config = dae_brats.get_config("smoke" if arg.smoke else "demo" if arg.demo else None)
  with config.unlocked():
    config.data.modalities = ("flair", "t1", "t1ce")
    if not arg.smoke and not arg.demo:
      config.model.wf = 4
      config.optim.schedule, config.optim.lr = "cosine", 1e-3
      config.train.update(steps=2500, eval_every=250, save_every=250, log_every=25)
      config.eval.fit_residual = not arg.published
    if not arg.published:
      config.data.placement = "anatomy"  # true to scale: crops, margins and voxel sizes do not matter
  return config.lock()
