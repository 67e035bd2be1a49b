r"""Deep perceptual autoencoder on SVHN, one digit against the rest, in grey (Shvetsova 2021).

  python launch.py --workdir=W \
    --config=configs/dpa_svhn.py:cls=0,root=DATA,vgg=vgg19-dcbb9e9d.pth
DATA: a prepared TFDS folder, the official .mat files, or an .npz
(data_pipelines/datasets/natural.py).

Arguments and sizes as in configs/dpa_cifar10.py; the published runs have 6,666 to 25,333 steps of
128 images. The paper's per-class numbers could not be confirmed and are not repeated.
"""

from configs import common
from configs.dpa_cifar10 import build

PUBLISHED = {
    0: (256, "r42", 25333, (2420, 6274, 6109)), 1: (16, "r32+r42", 16666, (2237, 9434, 362)),
    2: (16, "r32+r42", 15333, (3874, 673, 2780)), 3: (32, "r42", 9666, (7706, 5710, 3340)),
    4: (16, "r32+r42", 10333, (5384, 2530, 901)), 5: (32, "r32+r42", 8333, (6373, 7318, 9479)),
    6: (32, "r32+r42", 7333, (8415, 8881, 8227)), 7: (16, "r32+r42", 12000, (2451, 1190, 606)),
    8: (16, "r42", 6666, (8176, 1770, 8599)), 9: (64, "r42", 18000, (9918, 826, 4465))}


def get_config(arg=None):
  """The locked config; `arg` as in configs/dpa_cifar10.py."""
  args = common.parse_arg(arg, demo=False, smoke=False, small=False, cls=0, run=0, seed=-1, fold=-1,
                          select="", root="", lists="", vgg="",
                          loss="relative_perceptual_L1", fast=False)
  return build(args, PUBLISHED, "svhn", gray=True).lock()
