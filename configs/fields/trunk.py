"""The frozen network of perceptual losses, as the config argument vgg=... gives it."""

import ml_collections


def defaults() -> ml_collections.ConfigDict:
  """Fields of config.method that say which network, and how it is used."""
  method = ml_collections.ConfigDict()
  method.trunk = "vgg19"           # as published; or vgg16, efficientnet_lite0 ... (models/backbone.py)
  method.vgg_weights = ""          # path of its weights (vgg19-dcbb9e9d.pth), or "random:SEED" by choice
  method.vgg_stats = "published"   # published (VGG19's), natural (VGG16's), running (any), or an .npz
  method.vgg_stats_steps = 100     # running: steps that are averaged in each stage, then frozen
  method.vgg_widths = (64, 128, 256, 512, 512)  # of a random vgg19
  method.vgg_dtype = "float32"     # of the trunk in training: float32, or bfloat16 (faster)
  return method


def choose(method, vgg: str) -> None:
  """Sets the trunk out of "PATH", "random:SEED", "vgg16:PATH" or "vgg16:random:SEED".

  All but VGG19's own weights bring their own statistics.
  """
  name, colon, source = vgg.partition(":")
  if colon and name != "random" and "/" not in name:
    method.trunk, vgg = name, source
  method.vgg_weights = vgg
  if vgg.startswith("random:") or method.trunk != "vgg19":
    method.vgg_stats = "running"
