r"""Deep perceptual autoencoder on chest radiographs at 32 px (Shvetsova et al. 2021; docs/dpa.md).

  python launch.py --workdir=W --config=configs/dpa_cxr.py:root=FOLDER,vgg=vgg16:vgg16.npz
FOLDER: labels.csv, or <train|val|test>/<normal or a finding>/. That is dpa_nih.py:small with all findings of
val; the checkpoint is the one of the highest image AUROC there, so val's labels are used twice.

Arguments: root; vgg=PATH, random:SEED or vgg16:PATH; run=0..2 (published seeds)
  :demo    SYNTHETIC radiographs, two CPU cores, a minute
  :smoke   SYNTHETIC radiographs, seconds; learns nothing
"""

from configs import common, dpa_nih
from configs.fields import dpa
from data_pipelines.datasets import synthetic_radiographs
from data_pipelines.fields import changed


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring.

  Raises:
    UserError: an unknown argument.
  """
  args = common.parse_arg(arg, root="", vgg="", run=0, demo=False, smoke=False)
  words = ["small", f"run={args.run}", *(f"{k}={args[k]}" for k in ("root", "vgg") if args[k])]
  config = dpa_nih.get_config(",".join(words)).unlock()
  config.data.val_kind = ""
  if args.demo or args.smoke:
    if args.smoke:
      dpa.synthetic(config, smoke=True, growing=False)
    config.data = changed(synthetic_radiographs.defaults(), image_size=config.model.max_res, signed=True,
                          **dict(n_train=64, n_val=16, n_test=16) if args.smoke else {})
    config.eval.splits = ("val", "test")
  return config.lock()
