"""Fields that the chest X-ray autoencoders share (Bercea et al. 2023); configs/*_cxr.py fill in the rest."""

import ml_collections

from configs import common
from data_pipelines.datasets import chest_xray, synthetic_radiographs
from data_pipelines.fields import changed

_group = ml_collections.ConfigDict


def base() -> ml_collections.ConfigDict:
  """Optimiser, data, training and evaluation of all of them; the published values."""
  config = common.base()
  config.optim = optim = _group()
  optim.lr, optim.b1, optim.b2, optim.eps = 5e-4, 0.9, 0.999, 1e-8
  optim.schedule = "constant"
  optim.epoch_steps = 0            # steps of an epoch of the schedules; 0 = a pass over the training images
  config.data = chest_xray.defaults()
  config.train.update(steps=0, epochs=500, batch_size=64, eval_every=0, eval_every_epochs=1, save_every=0,
                      save_every_epochs=1, best_metric="val/loss", best_mode="min", early_stop=25,
                      early_delta=1e-8)
  config.eval.update(kind="anomaly", checkpoint="best", splits=("val", "test"), batch_size=32, components=0,
                     measures=("similarity", "aupro", "boxes"))  # two of them with boxes or masks
  return config


def synthetic(config, smoke: bool) -> None:
  """Synthetic radiographs instead of patients', on two CPU cores; `smoke`: seconds, learns nothing."""
  config.data = changed(synthetic_radiographs.defaults(), image_size=16 if smoke else 32,
                        n_train=64 if smoke else 512, n_val=16 if smoke else 64, n_test=16 if smoke else 200)
  steps, every = (4, 2) if smoke else (600, 100)
  config.train.update(steps=steps, epochs=0, batch_size=8 if smoke else 32, eval_every=every,
                      eval_every_epochs=0, save_every=every, save_every_epochs=0, early_stop=0)
  config.optim.epoch_steps = 1 if smoke else 16
