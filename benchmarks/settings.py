"""The work that both sides do: sizes, initial weights under the published names, one batch."""

from __future__ import annotations

import numpy as np

DAE = {"task": "dae", "depth": 4, "wf": 6, "channels": 4, "size": (128, 128), "batch": 16,
       "lr": 1e-4, "noise_res": 16}
ANNOTATION = {"task": "annotation", "width": 128, "channels": 1, "size": (336, 544), "batch": 4,
              "lr": 1e-3}
PERCEPTUAL = {"task": "perceptual", "widths": (32, 32, 32, 32), "latent": 32, "channels": 3,
              "size": (32, 32), "layer": "r32", "batch": 128, "lr": 2e-3}
GEOMETRIC = {"task": "geometric", "blocks": 1, "widen": 4, "channels": 3, "size": (32, 32), "shift": 8,
             "batch": 128, "lr": 1e-3, "l2": 0.00025}

FEATURES = {"task": "features", "channels": 3, "size": (64, 64), "resized": (224, 224),
            "taps": "r22+r33+r43+r53", "batch": 128}
NOISY = {"task": "noisy", "width": 64, "channels": 3, "size": (96, 96), "batch": 16, "lr": 1e-4}

# What two CPU cores do in seconds: the DAE stays at the reference's size, the others shrink.
CPU = {"dae": {**DAE, "batch": 4},
       "annotation": {**ANNOTATION, "width": 32, "size": (96, 96)},
       "perceptual": {**PERCEPTUAL, "batch": 32},
       "features": {**FEATURES, "resized": (96, 96), "batch": 16},
       "geometric": {**GEOMETRIC, "batch": 16},
       "noisy": {**NOISY, "width": 16, "batch": 4}}
GPU = {"dae": DAE, "annotation": ANNOTATION, "perceptual": PERCEPTUAL, "features": FEATURES,
       "geometric": GEOMETRIC, "noisy": NOISY}
TINY = {"dae": {**DAE, "depth": 2, "wf": 2, "channels": 2, "size": (32, 32), "batch": 3,
                "noise_res": 8},
        "annotation": {**ANNOTATION, "width": 32, "size": (16, 16), "batch": 2},
        "perceptual": {**PERCEPTUAL, "widths": (4, 4, 6, 6), "latent": 4, "batch": 2,
                       "trunk": (4, 6, 8, 8)},
        "features": {**FEATURES, "size": (8, 8), "resized": (16, 16), "taps": "r11+r21",
                     "trunk": (4, 6, 8, 8, 8), "batch": 2},
        "geometric": {**GEOMETRIC, "widen": 1, "batch": 4},
        "noisy": {**NOISY, "width": 4, "size": (16, 16), "batch": 2, "lr": 0.02}}
# Tasks without a peer: a config's last stage at its own sizes (needs ml_collections).
_CONFIG = {"morphaeus": "configs/morphaeus_cxr.py", "piad": "configs/piad_nih.py"}
CONFIGS = {"full": {k: {"task": k, "config": f"{v}:vgg=random:0", "batch": 64}
                    for k, v in _CONFIG.items()},
           "tiny": {k: {"task": k, "config": f"{v}:smoke", "batch": 2} for k, v in _CONFIG.items()}}

VGG = ((1, 1, 0), (1, 2, 2), (2, 1, 5), (2, 2, 7), (3, 1, 10), (3, 2, 12), (3, 3, 14), (3, 4, 16),
       (4, 1, 19), (4, 2, 21))  # group, index, place in torchvision's `features`
BGR_MEAN = (103.939, 116.779, 123.68)  # of the images that the published VGG16 was trained on
_VGG16 = tuple(f"conv{b + 1}_{i + 1}" for b, n in enumerate((2, 2, 3, 3, 3)) for i in range(n))


def vgg16_layers(taps) -> tuple[str, ...]:
  """Names of the convolutions up to the deepest of `taps` ("r22": group 2, convolution 2)."""
  return _VGG16[:1 + max(_VGG16.index(f"conv{t[1]}_{t[2]}") for t in taps)]


class Weights(dict):
  """Initial tensors by name: uniform +-1/sqrt(fan_in), the published code's default."""

  def __init__(self, seed=0):
    super().__init__()
    self.rng = np.random.default_rng(seed)

  def uniform(self, name, shape, fan_in):
    bound = fan_in ** -0.5
    self[name] = self.rng.uniform(-bound, bound, shape).astype(np.float32)

  def conv(self, name, i, o, size=3, bias=True):
    """Kernel [o,i,size,size] and bias [o]."""
    self.uniform(f"{name}.weight", (o, i, size, size), size * size * i)
    if bias:
      self.uniform(f"{name}.bias", (o,), size * size * i)

  def up(self, name, i, o):
    """Transposed 2x2 kernel [i,o,2,2] and bias [o]."""
    self.uniform(f"{name}.weight", (i, o, 2, 2), 4 * o)
    self.uniform(f"{name}.bias", (o,), 4 * o)

  def norm(self, name, c, running=False):
    parts = {"weight": 1.0, "bias": 0.0, **({"running_mean": 0.0, "running_var": 1.0}
                                            if running else {})}
    for part, value in parts.items():
      self[f"{name}.{part}"] = np.full(c, value, np.float32)


def make(setting: dict, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """(tensors, batch) of a setting; float32 NumPy, the same in every process. Of a config: nothing."""
  if "config" in setting:
    return {}, {}
  weights = Weights(seed)
  batch = {"dae": _dae, "annotation": _annotation, "perceptual": _perceptual,
           "features": _features, "geometric": _geometric, "noisy": _noisy}[setting["task"]](setting, weights)
  return dict(weights), {k: np.ascontiguousarray(v) for k, v in batch.items()}


def _dae(s, weights):
  def block(prefix, i, o):
    for at, width in ((1, i), (5, o)):
      weights.conv(f"{prefix}.{at}", width, o)
      weights.norm(f"{prefix}.{at + 2}", o)
  w = [2 ** (s["wf"] + i) for i in range(s["depth"])]
  for i, (a, b) in enumerate(zip([s["channels"], *w], w)):
    block(f"down_path.{i}.block", a, b)
  for j, i in enumerate(range(s["depth"] - 2, -1, -1)):
    weights.up(f"up_path.{j}.up", w[i + 1], w[i])
    block(f"up_path.{j}.conv_block.block", w[i + 1], w[i])
  weights.conv("last", w[0], s["channels"], 1)
  rng, (height, width) = weights.rng, s["size"]
  yy, xx = np.mgrid[-1:1:height * 1j, -1:1:width * 1j]
  brain = (xx**2 + yy**2 < 0.7)[None, :, :, None]  # half of the pixels, as in real slices
  image = (rng.random((s["batch"], height, width, s["channels"]), np.float32) * 0.9 + 0.1) * brain
  noise = 0.2 * rng.normal(size=(s["batch"], s["noise_res"], s["noise_res"], s["channels"]))
  return {"image": image.astype(np.float32), "noise": noise.astype(np.float32),
          "roll": np.array([height // 3, width // 5], np.int32)}


def _annotation(s, weights):
  w = s["width"]

  def gate(name, c):
    weights.uniform(f"{name}.excitation.0.weight", (c // 16, c), c)
    weights.uniform(f"{name}.excitation.2.weight", (c, c // 16), c // 16)

  def stage(name, i, o):
    for k, width in ((1, i), (2, o)):
      weights.conv(f"{name}.conv_{k}.conv", width, o, bias=False)
      weights.norm(f"{name}.conv_{k}.bn", o, running=True)
      gate(f"{name}.seb_{k}", o)
  for k, (i, o) in enumerate(((s["channels"], w), (w, 2 * w), (2 * w, 4 * w)), 1):
    stage(f"encoder_{k}", i, o)
  for k in (1, 2):
    weights.conv(f"latent_block.conv_{k}", 4 * w, 4 * w, bias=False)
    gate(f"latent_block.se_block_{k}", 4 * w)
  for k in range(4):
    weights.conv(f"latent_block.dilated_convs.{k}", 4 * w, w)
  weights.conv("latent_block.conv1x1", 8 * w, 4 * w, 1)
  weights.up("latent_block.up_conv", 4 * w, 2 * w)
  for k, (i, o) in enumerate(((6 * w, 2 * w), (3 * w, w), (3 * w // 2, w // 2)), 4):
    stage(f"encoder_{k}", i, o)
  weights.up("up_conv_1", 2 * w, w)
  weights.up("up_conv_2", w, w // 2)
  weights.conv("last_conv", w // 2, 1, 1)
  clean = weights.rng.random((s["batch"], *s["size"], 1), np.float32)
  marks = weights.rng.random(clean.shape) < 0.005
  return {"image": np.where(marks, 1.0, clean).astype(np.float32), "clean": clean}


def _perceptual(s, weights):
  w, size = list(s["widths"]), s["size"][0]

  def res(name, i, o, resized):
    for k, width in ((1, i), (2, o)):
      weights.conv(f"{name}.model.{k + resized}.model.0", width, o)
    if i != o:
      weights.conv(f"{name}.skipcon.{'1.' if resized else ''}model.0", i, o, 1)

  def pair(name, i, o):
    res(f"{name}.0", i, o, True)
    res(f"{name}.1", o, o, False)
  weights.conv(f"enc.model.preprocess_res_{size}.0.model.0", s["channels"], w[0])
  for k in (1, 2):
    res(f"enc.model.preprocess_res_{size}.{k}", w[0], w[0], False)
  for k, (i, o) in enumerate(zip(w, w[1:])):
    pair(f"enc.model.res_{size >> k}", i, o)
  weights.conv("enc.model.res_4.1.model.0", w[-1], s["latent"], 4)
  w = w[::-1]
  weights.conv("dec.model.res_4.1.model.0", s["latent"], w[0], 4)
  for k, (i, o) in enumerate(zip(w, w[1:])):
    pair(f"dec.model.res_{8 << k}", i, o)
  weights.conv(f"dec.model.postprocess_res_{size}.1.model.0", w[-1], s["channels"])
  widths, channels = s.get("trunk", (64, 128, 256, 512)), 3
  for b, i, n in VGG:
    if (b, i) <= (int(s["layer"][1]), int(s["layer"][2])):
      shape = (widths[b - 1], channels, 3, 3)
      scale = (2 / (9 * channels)) ** 0.5
      weights[f"features.{n}.weight"] = (scale * weights.rng.normal(size=shape)).astype(np.float32)
      weights[f"features.{n}.bias"] = np.zeros(widths[b - 1], np.float32)
      channels = widths[b - 1]
  weights["stats.mean"] = np.full(channels, 0.5, np.float32)
  weights["stats.std"] = np.ones(channels, np.float32)
  image = 2 * weights.rng.random((s["batch"], size, size, s["channels"]), np.float32) - 1
  return {"image": image}


def _features(s, weights):
  widths, channels = s.get("trunk", (64, 128, 256, 512, 512)), 3
  for name in vgg16_layers(s["taps"].split("+")):
    width = widths[int(name[4]) - 1]
    shape, scale = (width, channels, 3, 3), (2 / (9 * channels)) ** 0.5
    weights[f"{name}.weight"] = (scale * weights.rng.normal(size=shape)).astype(np.float32)
    weights[f"{name}.bias"] = np.zeros(width, np.float32)
    channels = width
  return {"image": 2 * weights.rng.random((s["batch"], *s["size"], s["channels"]), np.float32) - 1}


def _geometric(s, weights):
  """Names and layouts as Keras has them: kernels HWIO."""
  def conv(name, i, o, size):
    scale = (2 / (size * size * i)) ** 0.5
    weights[f"{name}.kernel"] = (scale * weights.rng.normal(size=(size, size, i, o))).astype(np.float32)

  def norm(name, c):
    for part, value in (("gamma", 1), ("beta", 0), ("moving_mean", 0), ("moving_variance", 1)):
      weights[f"{name}.{part}"] = np.full(c, value, np.float32)
  conv("conv0", s["channels"], 16, 3)
  width = 16
  for g in (1, 2, 3):
    out = (8 << g) * s["widen"]
    for b in range(s["blocks"]):
      name = f"g{g}.b{b}"
      norm(f"{name}.bn1", width)
      conv(f"{name}.conv1", width, out, 3)
      norm(f"{name}.bn2", out)
      conv(f"{name}.conv2", out, out, 3)
      if width != out:
        conv(f"{name}.shortcut", width, out, 1)
      width = out
  norm("bn_final", width)
  features = (s["size"][0] // 32) ** 2 * width
  weights.uniform("dense.kernel", (features, 72), features)
  weights["dense.bias"] = np.zeros(72, np.float32)
  image = 2 * weights.rng.random((s["batch"], *s["size"], s["channels"]), np.float32) - 1
  return {"image": image, "view": (7 * np.arange(s["batch"]) % 72).astype(np.int32)}


def _noisy(s, weights):
  """Images as the network sees them, standardised; a clean batch of the same size, as published."""
  w = s["width"]

  def block(name, i, o, up=0, layer=".layer"):
    weights.conv(f"{name}{layer}.0", i, o)
    weights.conv(f"{name}{layer}.2", o, o)
    if up:
      weights.up(f"{name}{layer}.4", o, up)
  for k, (i, o) in enumerate(((s["channels"], w), (w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w)), 1):
    block(f"down{k}", i, o)
  block("center", 8 * w, 16 * w, 8 * w, layer="")
  for k, (i, o) in enumerate(((16 * w, 8 * w), (8 * w, 4 * w), (4 * w, 2 * w)), 1):
    block(f"up{k}", i, o, o // 2)
  weights.conv("up4.0", 2 * w, w)
  weights.conv("up4.1", w, w)
  weights.conv("output", w, 1, 1)
  shape = (s["batch"], *s["size"])
  found = {}
  for name in ("", "clean_"):
    found[f"{name}image"] = weights.rng.standard_normal((*shape, s["channels"]), np.float32)
    found[f"{name}mask"] = (found[f"{name}image"][..., :1] > 0.5).astype(np.float32)
  return found
