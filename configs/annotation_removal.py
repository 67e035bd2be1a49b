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
  args = common.parse_arg(arg, demo=False, smoke=False, breast=False, pairs=False, reference=False,
                          network="", width=0)
  config = common.base("restoration")
  config.method = method = ml_collections.ConfigDict()
  method.name = "annotation_removal"
  method.parity = False            # True: the reference's quirks, see medae_jax/methods
  method.alpha = 60.0              # weight of marked pixels in the squared error
  method.beta = 1.0                # weight of all others
  method.mse_weight = 1.0          # factor of the weighted squared error
  method.ssim_weight = 0.1         # factor of 1 - SSIM against the clean image; 0 = not computed
  method.ssim_window = 11          # side of its window, odd
  method.mark_weight = 1.0         # factor of the cross-entropy of the gate, with head=gated
  method.score = ml_collections.ConfigDict()
  method.score.threshold = 0.5     # of head=gated, probability that makes a pixel a mark; of other
                                   # heads, predicted change in [0,1] (0.06 is a fair first guess);
                                   # evaluation replaces it by what it finds best on val
  method.score.dilate = 1          # pixels by which detected marks grow
  method.score.fill = "network"    # what evaluate and predict put there: network, or harmonic (the
                                   # surroundings; evaluation reports both)

  config.model = model = ml_collections.ConfigDict()
  model.network = "jung_unet"      # autoencoder, autoencoder_skip, basic_unet, jung_unet
  model.width = 64                 # channels of the first stage (published: 64, jung_unet 128)
  model.head = "gated"             # gated (says where marks are, and what is below them), residual
                                   # (image + output), sigmoid, linear, published
  model.bilinear = False           # basic_unet: bilinear upsampling
  model.full_skip = False          # autoencoder_skip: with the full-resolution skip it lacks
  model.dtype = "bfloat16"         # of the products: bfloat16 or float32

  # All fields: data_pipelines/pairs/frames.py, and those of data_pipelines/datasets/<name>.py.
  config.data = paired.defaults() if args.pairs else annotations.defaults()
  config.data.image_size = (256, 256)  # of training windows

  config.optim = optim = ml_collections.ConfigDict()
  optim.schedule = "cosine"        # one cycle down to lr * final
  optim.lr, optim.final, optim.warmup = 1e-3, 0.01, 0
  optim.b1, optim.b2, optim.eps = 0.9, 0.999, 1e-8  # Adam
  optim.weight_decay = 0.0         # L2 added to the gradient
  optim.clip = 1.0                 # limit of the global norm, 0 = none

  config.train.update(steps=20000, batch_size=16, eval_every=1000, save_every=1000,
                      eval_batch_size=8)
  config.eval.batch_size = 8

  if args.demo or args.smoke or args.breast:
    model.update(network="basic_unet", width=12, dtype="float32")
    optim.lr = 2e-3
  if args.demo:
    config.data.update(image_size=(64, 64))
    config.train.update(steps=700, batch_size=16, eval_every=350, save_every=350, log_every=25)
  if args.breast:
    method.score.fill = "harmonic"  # better on val than what so short a training paints
    config.data.update(image_size=(80, 80))
    config.train.update(steps=4000, batch_size=8, eval_every=500, save_every=250, log_every=25)
  if args.smoke:
    model.width = 4
    config.data.image_size = (32, 32)
    config.train.update(steps=4, batch_size=8, eval_every=2, save_every=2, log_every=1)
    config.eval.update(batch_size=4, panels=2)
    config.predict.update(tile=64, overlap=16)
  if (args.demo or args.smoke) and not args.pairs:
    size = 128 if args.demo else 48
    config.data.update(frames=(96, 12, 24) if args.demo else (8, 4, 4), frame_size=(size, size))
  if args.reference:
    method.update(parity=True, alpha=150.0, ssim_weight=0.0)
    method.score.threshold = 0.06
    model.update(network="jung_unet", width=128, head="published", dtype="float32")
    config.data.update(channels=1, resize=(336, 544), image_size=(336, 544), split_by="reference",
                       test_share=0.0, flip_lr=0.0)
    if not args.pairs:
      config.data.marks.style = "reference"
    optim.update(schedule="constant", lr=1e-3, clip=0.0)
    config.train.update(batch_size=4)
    if not (args.demo or args.smoke or args.breast):
      config.train.update(steps=0, epochs=50, eval_every=0, eval_every_epochs=1, save_every=0,
                          save_every_epochs=1)
  if args.network:
    model.network = args.network
  if args.width:
    model.width = args.width
  return config.lock()
