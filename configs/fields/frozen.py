"""Every field of a run on frozen features with its default; configs/frozen_*.py fill in the rest."""

import ml_collections

from configs import common
from data_pipelines.datasets import synthetic_textures
from data_pipelines.fields import changed

_group = ml_collections.ConfigDict


def base() -> ml_collections.ConfigDict:
  """All groups but data; method.backbone_weights must be given."""
  config = common.base()
  config.method = method = _group()
  method.name = "frozen_features"
  method.backbone = "vgg16"        # medae_jax/models/backbone.py; --mode=weights lists them
  method.backbone_weights = ""     # PATH of its weights, or "random:SEED" by explicit choice
  method.size = 0                  # side to which images are resized for the backbone; 0 = as they are
  method.eight_bit = False         # round the resized image to grey levels, as Pillow does
  method.dtype = "float32"         # of the backbone: float32, or bfloat16 (faster on accelerators)
  method.channels = ()             # of the images, one or three of them, e.g. (0, 1, 3); () = all
  method.low, method.high = -1.0, 1.0  # black and white of the images: what the backbone sees as 0 and 255
  method.bounded = True            # False: values above `high` are right (volumes: above the 99th percentile)
  method.scores = ("mahalanobis", "neighbours", "forest", "padim", "patchcore")  # what is fitted
  method.image_taps = ("r33", "r22", "r43", "r33+r43+r53")  # of the first three: sets fitted side by side
  method.map_taps = "r22+r33"      # of the other two
  method.neighbours = 5            # nearest normal images whose distances are averaged
  method.most_images = 20000       # normal images kept at most, chosen at random

  method.forest = forest = _group()
  forest.trees, forest.samples = 100, 256

  method.patches = patches = _group()
  patches.size = 3                 # neighbourhood that is averaged, 1 = none
  patches.grid = 32                # longer side of the grid of patches at most; 0 = that of the finest tap

  method.padim = padim = _group()
  padim.dims = 64                  # dimensions of a position's Gaussian; rows x columns x 4 dims^2 bytes
  padim.reduce = "project"         # project: random orthonormal map; select: random channels (the paper)
  padim.eps = 0.01                 # added to the variances, as a share of the mean one

  method.patchcore = patchcore = _group()
  patchcore.candidates = 100000    # normal patches the coreset is chosen from at most
  patchcore.share = 0.1            # of them that are kept
  patchcore.most = 3000            # ... at most
  patchcore.neighbours = 9         # rows that weigh the image score (eq. 7); 0 = not weighted

  method.score = score = _group()
  score.image = "mahalanobis"      # the image score: one of method.scores
  score.taps = ""                  # of mahalanobis, neighbours, forest: one of image_taps; "" = the first
  score.map = "patchcore"          # patchcore, padim or none
  score.smooth = 2.0               # Gaussian filter of the map, pixels
  score.foreground = False         # map 0 where the image is 0 (volumes)
  score.offer = False              # also all other scores; evaluate sets it to choose

  config.model, config.optim = _group(), _group()
  config.train.update(eval_every=0, save_every=0, batch_size=64, eval_batch_size=64)
  config.eval.update(splits=("val", "test"), checkpoint="last", batch_size=64, components=0,
                     dice_thresholds="all", choose_score=("taps",))
  return config


def without_maps(config) -> None:
  """Image scores alone: faster, for sets in which nothing is to be found at a place."""
  config.method.scores = ("mahalanobis", "neighbours", "forest")
  config.method.score.map = "none"


def weights(config, backbone: str, path: str) -> None:
  """Sets the backbone ("" = the default) and the file of its weights."""
  config.method.backbone = backbone or config.method.backbone
  config.method.backbone_weights = path


def tiny(config) -> None:
  """Sizes of tests: the first layers of the backbone, few patches."""
  method = config.method
  method.image_taps, method.map_taps = ("r12", "r12+r22"), "r12+r22"
  method.forest.trees, method.patches.grid, method.padim.dims, method.patchcore.most = 5, 8, 8, 20


def synthetic(config, *, smoke: bool) -> None:
  """The :demo and :smoke variants: synthetic textures; without weights a random backbone."""
  method, channels = config.method, config.data.channels
  config.data = changed(
      synthetic_textures.defaults(), image_size=16 if smoke else 32, channels=channels,
      n_train=24 if smoke else 512, n_val=8 if smoke else 64, n_test=8 if smoke else 200)
  method.backbone_weights = method.backbone_weights or "random:0"
  method.size = 0
  if smoke:
    tiny(config)
  config.train.update(batch_size=8, eval_batch_size=8 if smoke else 64)
  config.eval.update(batch_size=8 if smoke else 64)
