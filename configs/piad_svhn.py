r"""PIAD on SVHN, one digit against the rest (baseline of the DPA paper, arXiv 2006.13265).

  python launch.py --workdir=W --config=configs/piad_svhn.py:cls=0,root=DATA,vgg=PATH
PATH: vgg19-dcbb9e9d.pth of torchvision.
DATA: a prepared TFDS folder, {train,test}_32x32.mat, or an .npz
(data_pipelines/datasets/natural.py).

Arguments as in configs/piad_cifar10.py; with_cv reads grey images, reproduce colour.
  (none)   the published run: 10,000 to 100,000 iterations of 3 x 32 images. The paper's SVHN cells
           could not be confirmed and are not repeated.
  :demo    synthetic textures, 3-5 minutes on one CPU core.
  :smoke   synthetic textures, 4 iterations, seconds; learns nothing.
"""

from configs import piad_cifar10

TUNED = {0: ("S", "r42", 40000), 1: ("S", "r42", 100000), 2: ("S", "r42", 100000),
         3: ("L", "r42", 10000), 4: ("S", "r42", 100000), 5: ("S", "r32", 70000),
         6: ("L", "r32", 40000), 7: ("S", "r42", 100000), 8: ("S", "r42", 70000),
         9: ("S", "r32", 40000)}
SEEDS = {
    "with_cv": ((6615, 6501, 7750), (8942, 8585, 355), (8200, 2641, 9578), (8523, 391, 5242),
                (1144, 3052, 3495), (5677, 8482, 4826), (8164, 5840, 1048), (6182, 5478, 3199),
                (5403, 6553, 367), (6653, 7269, 3972)),
    "reproduce": ((5099, 9448, 8074), (1526, 113, 3275), (9262, 6036, 7225), (2505, 957, 5767),
                  (8990, 5314, 3123), (7664, 750, 573), (5367, 6420, 8125), (4823, 7673, 9345),
                  (1071, 8299, 4245), (8781, 6960, 2136))}


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring."""
  args = piad_cifar10.arguments(arg)
  return piad_cifar10.build(args, TUNED, SEEDS, "svhn", gray=True)
