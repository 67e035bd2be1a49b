r"""One's own folder: normal scans alone, or with abnormal ones and masks; images, DICOM or NIfTI.

  python launch.py --config=configs/own_folder.py:dae --workdir=runs/mine --config.data.dir=FOLDER

FOLDER/normal/** and, where you have them, FOLDER/abnormal/** and FOLDER/masks/**
(data_pipelines/datasets/own_folder.py). A folder without these names holds normal scans alone.
Patients are split into train, val and test (splits.csv); the threshold comes from the normal scans of
val, with the share of false alarms that config.eval.alpha allows; predict gives each scan a p-value.

Arguments after the colon, a method first:
  dae    denoising autoencoder: volumes (slices of 128x128) and images; 2500 steps, about half an
         hour on two cores (the default)
  dpa    deep perceptual autoencoder on images of 64x64; vgg=PATH of vgg19-dcbb9e9d.pth, else a
         narrow trunk with random weights (not the published method); about ten minutes
  piad   adversarial autoencoder on images of 32x32; vgg as for dpa
  frozen PatchCore and PaDiM on a frozen network, images and volumes of one or three modalities (of more,
         config.method.channels=(0,1,2) chooses): nothing is trained, maps in minutes. weights=PATH of
         the network's (backbone=vgg16), or random:0 by explicit choice; docs/frozen_features.md
  smoke  a few steps of a tiny network; for tests
"""

from configs import common, dae_brats, piad_cifar10
from configs.fields import dpa, frozen, piad, trunk
from data_pipelines.datasets import own_folder
from data_pipelines.errors import UserError
from data_pipelines.fields import changed

METHODS = ("dae", "dpa", "piad", "frozen")


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring.

  Raises:
    UserError: an unknown method.
  """
  args = common.parse_arg(arg, dae=False, dpa=False, piad=False, frozen=False, smoke=False, vgg="",
                          weights="", backbone="")
  chosen = [m for m in METHODS if args[m]]
  if len(chosen) > 1:
    raise UserError(f"config arguments {', '.join(chosen)}: choose one method")
  method = (chosen or ["dae"])[0]
  config = {"dae": _dae, "dpa": _dpa, "piad": _piad, "frozen": _frozen}[method](args)
  with config.unlocked():
    config.train.update(best_metric="val/loss", best_mode="min")
    config.eval.update(kind="anomaly", splits=("val", "test"), checkpoint="best")
    if args.smoke:
      config.train.update(steps=4, eval_every=2, save_every=2, log_every=1, batch_size=4)
  return config.lock()


def _dae(args):
  config = dae_brats.get_config("smoke" if args.smoke else None).unlock()
  size = tuple(config.data.image_size) if args.smoke else (128, 128)
  config.data = changed(own_folder.defaults(), image_size=size, unit="balanced")  # of volumes: docs/dae.md
  config.method.score.update(erosion=3, saturation=0.4, guided=5)
  config.eval.fit_residual = True  # to SYNTHETIC lesions: nothing abnormal is in val
  if not args.smoke:
    config.model.wf = 4
    config.optim.schedule, config.optim.lr = "cosine", 1e-3
    config.train.update(steps=2500, eval_every=250, save_every=250, log_every=25)
  return config


def _dpa(args):
  config = dpa.base()
  size = 16 if args.smoke else 64
  trunk.choose(config.method, args.vgg or "random:0")
  if not args.vgg:
    config.method.update(vgg_widths=(4, 6, 8, 8, 8) if args.smoke else (16, 32, 64, 128, 128))
  config.method.vgg_stats_steps = 2 if args.smoke else 100
  width = 4 if args.smoke else 16
  config.model.update(max_res=size, latent_dim=width, enc_widths=(width,) * (3 if args.smoke else 5))
  config.train.update(steps=1500, batch_size=32, eval_every=250, save_every=250, eval_batch_size=64)
  return _images(config, size)


def _piad(args):
  config = piad.base()
  trunk.choose(config.method, args.vgg or "random:0")
  if args.smoke:
    piad.synthetic(config, smoke=True)
    return _images(config, 16)
  piad_cifar10.narrow(config)
  return _images(config, 32)


def _frozen(args):
  config = frozen.base()
  frozen.weights(config, args.backbone, args.weights or ("random:0" if args.smoke else ""))
  config.method.update(low=0.0, high=1.0, bounded=False)
  config.method.score.foreground = True
  if args.smoke:
    frozen.tiny(config)
  config.data = changed(own_folder.defaults(), image_size=(16, 16) if args.smoke else (128, 128),
                        noise_std=0.0)
  return config


def _images(config, size):
  """Images in [-1, 1] without noise, as DPA and PIAD are trained."""
  config.data = changed(own_folder.defaults(), image_size=(size, size), signed=True, noise_std=0.0)
  if "channels" in config.model:
    config.model.channels = 1
  return config
