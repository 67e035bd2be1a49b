r"""Deep isolation forest on SVHN, one digit against the rest (Ouardini 2019; baseline of DPA).

  python launch.py --workdir=W \
    --config=configs/deep_if_svhn.py:cls=0,root=DATA,weights=inceptionresnetv2-520b38e4.pth
DATA: a prepared TFDS folder, the official .mat files, or an .npz
(data_pipelines/datasets/natural.py).

Arguments and sizes as in configs/deep_if_cifar10.py; with_cv reads digits 0, 3, 5, 7, 8 and 9 in grey.
Mean AUROC of the ten digits 0.554 (the paper of 2019).
"""

from configs.deep_if_cifar10 import build
from configs.fields import deep_if

LAYERS = ("mixed_7a", "mixed_7a", "concat", "mixed_7a", "mixed_7a", "mixed_7a", "mixed_6a", "concat",
          "mixed_7a", "mixed_7a")  # of with_cv, by digit
SEEDS = {
    "with_cv": ((248, 278, 665), (8056, 5115, 6016), (1289, 6957, 7482), (8000, 3028, 7179),
                (9815, 7803, 9167), (5386, 1269, 9677), (6302, 8343, 675), (9947, 4195, 4015),
                (6397, 5774, 2042), (8132, 9616, 6171)),
    "reproduce": ((4840, 6745, 7568), (7980, 466, 4704), (1559, 6050, 1514), (5066, 7605, 7508),
                  (6289, 4699, 9432), (8668, 9698, 9830), (7654, 3045, 1210), (4036, 5994, 6256),
                  (1358, 3626, 4586), (9075, 2835, 1228))}


def get_config(arg=None):
  """The locked config; `arg` as in configs/deep_if_cifar10.py."""
  return build(deep_if.arguments(arg, cls=0), LAYERS, SEEDS, "svhn", gray=(0, 3, 5, 7, 8, 9))
