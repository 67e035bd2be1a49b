r"""Autoencoders of chest radiographs that Bercea et al. 2023 compare MorphAEus with (docs/ae_zoo.md).

  python launch.py --workdir=W --config=configs/ae_cxr.py:WORD,root=FOLDER
WORD: ae_s (spatial), ae_d (dense), vae, beta_vae (capacity), aae (adversarial), si_vae (soft-introspective),
dae (denoising). FOLDER: labels.csv (file, split, label, group, subtype), or
<train|val|test>/<normal or a finding>/.

Arguments: root; loss=EXPRESSION of ae_s, ae_d, beta_vae, dae (l1, l2, ssim; perceptual needs vgg=PATH or
random:SEED); run=1, 2, ...: further seeds; parity=1: what the public code does, which trains with BatchNorm
frozen and LeakyReLU linear.
  (none)   published: 128 px, up to 500 or 1000 epochs, patience 25. The paper's tables could not be read.
  :small   a labelled folder at 64 px on two CPU cores, minutes; narrow networks.
  :demo    SYNTHETIC radiographs, two CPU cores, minutes.
  :smoke   SYNTHETIC radiographs, seconds; learns nothing.
"""

from configs import common
from configs.fields import ae_zoo, chest, trunk
from data_pipelines.errors import UserError


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring.

  Raises:
    UserError: an unknown argument, several words, or a loss for a method that has one of its own.
  """
  words = dict.fromkeys(ae_zoo.FILL, False)
  args = common.parse_arg(arg, **words, root="", loss="", vgg="", parity=False, small=False, demo=False,
                          smoke=False, run=0, seed=2109)
  chosen = [word for word in words if args[word]] or ["ae_s"]
  if len(chosen) > 1:
    raise UserError(f"config arguments {' and '.join(chosen)} name several methods; use one of "
                    f"{', '.join(words)}")
  word = chosen[0]
  config = chest.base()
  config.seed = args.seed + args.run
  ae_zoo.FILL[word](config)
  config.data.root = args.root
  if args.loss:
    if "loss" not in config.method:
      raise UserError(f"config argument loss={args.loss}: {word} has a loss of its own")
    config.method.loss = args.loss
  if args.vgg:
    trunk.choose(config.method, args.vgg)
  if args.parity:
    config.data.preparation = "published"
    config.update_from_flattened_dict(ae_zoo.PARITY[word])
  if args.small or args.demo or args.smoke:
    config.model.update(ae_zoo.NARROW[word])
    if word == "beta_vae":  # as much of the training as published; before it the codes' means say little
      config.method.capacity_steps = 700.0 if args.small else 450.0
  if args.small:
    config.data.image_size = 64
    config.train.update(epochs=60, batch_size=32, early_stop=0, eval_every_epochs=5, save_every_epochs=5)
  if args.smoke and word == "si_vae":
    config.model.widths = (4, 8)
  if args.demo or args.smoke:
    chest.synthetic(config, args.smoke)
    config.data.image_size = 32    # the least that all of them take
  return config.lock()
