r"""MorphAEus on chest radiographs: a deformable autoencoder (Bercea et al. 2023; docs/morphaeus.md).

  python launch.py --workdir=W --config=configs/morphaeus_cxr.py:root=FOLDER,vgg=vgg19-dcbb9e9d.pth
FOLDER: labels.csv (file, split, label, group, subtype), or <train|val|test>/<normal or a finding>/.

Arguments: root; vgg=PATH, random:SEED or vgg16:PATH; parity=1: what the public code does (BatchNorm that
never learns its statistics, two preparations of an image); ablation=prior (the deformer is never trained),
nowarm, noreverse; run=1, 2, ...: further seeds.
  (none)   published: 128 px, batch 64, up to 500 epochs, patience 25. The paper's tables could not be read.
  :small   a labelled folder at 64 px (size=32: faster) on two CPU cores; a narrow random trunk unless vgg.
           About 1 s of a core a step at 64 px, 900 steps; the warps are most of it.
  :demo    SYNTHETIC radiographs, two CPU cores, minutes.
  :smoke   SYNTHETIC radiographs, seconds; learns nothing.
"""

import ml_collections

from configs import common
from configs.fields import chest, scores, trunk
from data_pipelines.errors import UserError

ABLATIONS = ("full", "prior", "nowarm", "noreverse")


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring.

  Raises:
    UserError: an unknown argument or ablation.
  """
  args = common.parse_arg(arg, root="", vgg="", parity=False, ablation="full", size=64, run=0, small=False,
                          demo=False, smoke=False, seed=2109)
  if args.ablation not in ABLATIONS:
    raise UserError(f"config argument ablation={args.ablation}: use {', '.join(ABLATIONS)}")
  config = chest.base()
  config.seed = args.seed + args.run
  _method(config)
  config.data.root = args.root
  trunk.choose(config.method, args.vgg)
  if args.parity:
    config.model.norm, config.data.preparation = "frozen", "published"
  if args.ablation == "prior":
    config.method.warmup_epochs, config.method.score.of = 1_000_000, "prior"
  elif args.ablation == "nowarm":
    config.method.warmup_epochs = 0
  elif args.ablation == "noreverse":
    config.model.both = False
  if args.small or args.demo or args.smoke:
    _narrow(config, args.size if args.small else 16 if args.smoke else 32)
  if args.small:
    config.data.image_size = args.size
    config.train.update(epochs=60, batch_size=32, early_stop=0, eval_every_epochs=5, save_every_epochs=5)
  if args.demo or args.smoke:
    chest.synthetic(config, args.smoke)
    config.method.warmup_epochs = 2
  if args.smoke:
    config.method.layers = "r11+r21"
    config.model.update(levels=2, integration_steps=2)
    config.method.score.update(trunk="vgg19", trunk_weights="random:0", trunk_widths=(4, 4, 4, 4, 4),
                               trunk_layers="r11+r21", fit=True)
    config.eval.choose_score = ("kind", "image_score")  # every score, fitted and chosen
  return config.lock()


def _method(config):
  config.method = method = ml_collections.ConfigDict()
  method.name = "morphaeus"
  method.loss = "l2 + 0.2*perceptual"  # of the prior; perceptual is a mean over the layers: 4 alpha here
  method.layers = "r11+r21+r31+r41"
  method.update(trunk.defaults())
  method.vgg_stats = "running"     # not used: the features are compared as they are
  method.window = 9                # side of the correlation's window in pixels
  method.smoothness = "gradient_l2"  # gradient_l2, gradient_l1, bending
  method.delta = 1.0               # weight of the deformation's loss
  method.beta = 3.0                # largest weight of the smoothness, reached after
  method.beta_epochs = 200         # ... as many epochs
  method.warmup_epochs = 11        # epochs that train the prior alone
  method.score = score = ml_collections.ConfigDict()
  score.of = "recon"               # recon (deformed) or prior
  score.image_score = "mean"       # mean, max, top1
  score.weights_positive = score.weights_negative = ()  # per channel; () = 1
  scores.add(score)                # kind: another score of the same reconstruction

  config.model = model = ml_collections.ConfigDict()
  model.widths = (16, 32, 64, 128, 256, 256, 256)
  model.strides = (2,) * 7
  model.kernel = 3
  model.norm = "batch"             # batch, frozen (as published), group, none
  model.act = "swish"              # swish, relu, leaky_relu
  model.slope = 0.01               # of leaky_relu in encoder and decoder; published: 1
  model.upsampling = "resize"      # resize or transposed
  model.levels = 3                 # pairs of maps that the deformer reads
  model.both = True                # deform the image to the prior as well
  model.integration_steps = 7
  model.dtype = "float32"


def _narrow(config, size):
  """Half the published widths and as many halvings as `size` needs; a narrow random trunk by default."""
  depth = size.bit_length() - 1
  config.model.widths = (8, 16, 32, 64, 128, 128, 128)[:depth]
  config.model.strides = (2,) * depth
  if not config.method.vgg_weights:
    config.method.update(vgg_weights="random:0", vgg_widths=(8, 16, 32, 64, 64))
