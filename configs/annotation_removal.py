"""Annotation removal: erase calipers, arrows and text burnt into scans, and touch nothing else.

  python launch.py --config=configs/annotation_removal.py:demo --workdir=runs/annotation_demo
  python launch.py --config=configs/annotation_removal.py --workdir=runs/annotations \\
      --config.data.dir=FOLDER_WITH_clean
  python launch.py --config=configs/annotation_removal.py:pairs --config.data.dir=FOLDER ...

Without an argument: trains from clean frames alone (annotations are drawn on the fly); JungUNet of
width 64 on windows of 256x256, one GPU, hours. `pairs` reads FOLDER/annotated and FOLDER/clean.
`demo`: synthetic ultrasound-like frames, 2 CPU cores, under 5 minutes; the composite beats the
untouched frame by 2.6 dB of PSNR on the marked frames (28.2 -> 30.8, test). `breast`: 256x256
breast ultrasound on 2 CPU cores, 20 minutes. `reference`: the original recipe (336x544 grey,
JungUNet 128, Adam 1e-3, batch 4, 50 epochs, its generator and split). `smoke`: seconds. There are
no published numbers.
"""

import ml_collections

from configs import common
from data_pipelines.datasets import annotations, paired


def get_config(arg=None):
  """The experiment; arg: demo, smoke, breast, pairs, reference, and network=NAME, width=N."""
  a = common.parse_arg(arg, demo=False, smoke=False, breast=False, pairs=False, reference=False,
                       network="", width=0)
  c = common.base("restoration")
  c.method = m = ml_collections.ConfigDict()
  m.name = "annotation_removal"
  m.parity = False                 # True: the reference's quirks, see medae_jax/methods
  m.alpha = 60.0                   # weight of marked pixels in the squared error
  m.beta = 1.0                     # weight of all others
  m.mse_weight = 1.0               # factor of the weighted squared error
  m.ssim_weight = 0.1              # factor of 1 - SSIM against the clean image; 0 = not computed
  m.ssim_window = 11               # side of its window, odd
  m.mark_weight = 1.0              # factor of the cross-entropy of the gate, with head=gated
  m.score = ml_collections.ConfigDict()
  m.score.threshold = 0.5          # of head=gated, probability that makes a pixel a mark; of other
                                   # heads, predicted change in [0,1] (0.06 is a fair first guess);
                                   # evaluation replaces it by what it finds best on val
  m.score.dilate = 1               # pixels by which detected marks grow
  m.score.fill = "network"         # what evaluate and predict put there: network, or harmonic (the
                                   # surroundings; evaluation reports both)

  c.model = n = ml_collections.ConfigDict()
  n.network = "jung_unet"          # autoencoder, autoencoder_skip, basic_unet, jung_unet
  n.width = 64                     # channels of the first stage (published: 64, jung_unet 128)
  n.head = "gated"                 # gated (says where marks are, and what is below them), residual
                                   # (image + output), sigmoid, linear, published
  n.bilinear = False               # basic_unet: bilinear upsampling
  n.full_skip = False              # autoencoder_skip: with the full-resolution skip it lacks
  n.dtype = "bfloat16"             # of the products: bfloat16 or float32

  c.data = paired.pair_defaults() if a.pairs else annotations.defaults()
  c.data.image_size = (256, 256)   # of training windows; all fields: data_pipelines/datasets/paired.py

  c.optim = o = ml_collections.ConfigDict()
  o.schedule, o.lr, o.final, o.warmup = "cosine", 1e-3, 0.01, 0  # one cycle down to lr * final
  o.b1, o.b2, o.eps = 0.9, 0.999, 1e-8  # Adam
  o.weight_decay, o.clip = 0.0, 1.0  # L2 added to the gradient; limit of the global norm, 0 = none

  c.train.update(steps=20000, batch_size=16, eval_every=1000, save_every=1000, eval_batch_size=8)
  c.eval.batch_size = 8

  if a.demo or a.smoke or a.breast:
    n.update(network="basic_unet", width=12, dtype="float32")
    o.lr = 2e-3
  if a.demo:
    c.data.update(image_size=(64, 64))
    c.train.update(steps=700, batch_size=16, eval_every=350, save_every=350, log_every=25)
  if a.breast:
    m.score.fill = "harmonic"      # better on val than what so short a training paints
    c.data.update(image_size=(80, 80))
    c.train.update(steps=4000, batch_size=8, eval_every=500, save_every=250, log_every=25)
  if a.smoke:
    n.width = 4
    c.data.image_size = (32, 32)
    c.train.update(steps=4, batch_size=8, eval_every=2, save_every=2, log_every=1)
    c.eval.update(batch_size=4, panels=2)
    c.predict.update(tile=64, overlap=16)
  if (a.demo or a.smoke) and not a.pairs:
    size = 128 if a.demo else 48
    c.data.update(frames=(96, 12, 24) if a.demo else (8, 4, 4), frame_size=(size, size))
  if a.reference:
    m.update(parity=True, alpha=150.0, ssim_weight=0.0)
    m.score.threshold = 0.06
    n.update(network="jung_unet", width=128, head="published", dtype="float32")
    c.data.update(channels=1, resize=(336, 544), image_size=(336, 544), split_by="reference",
                  test_share=0.0, flip_lr=0.0)
    if not a.pairs:
      c.data.marks.style = "reference"
    o.update(schedule="constant", lr=1e-3, clip=0.0)
    c.train.update(batch_size=4)
  if a.network:
    n.network = a.network
  if a.width:
    n.width = a.width
  return c.lock()
