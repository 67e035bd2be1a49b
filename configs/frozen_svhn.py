r"""Frozen features on SVHN, one digit against the rest, in grey.

  python launch.py --workdir=W --config=configs/frozen_svhn.py:cls=0,root=DATA,weights=vgg16.npz
DATA: a prepared TFDS folder, the official .mat files, or an .npz (data_pipelines/datasets/natural.py).

Arguments and sizes as in configs/frozen_cifar10.py.
"""

from configs.frozen_cifar10 import build


def get_config(arg=None):
  """The locked config; `arg` as in configs/frozen_cifar10.py."""
  return build(arg, "svhn", gray=True)
