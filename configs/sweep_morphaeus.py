r"""Does the deformation of MorphAEus do what its paper says? Its parts with and without, in one table.

The prior alone, the deformer with and without warm-up and without its symmetric term (docs/morphaeus.md).

  python launch.py --mode=sweep --workdir=W --config=configs/sweep_morphaeus.py:small,root=FOLDER
  python launch.py --mode=sweep --workdir=W --config=configs/sweep_morphaeus.py:root=FOLDER,vgg=PATH

Resumable: call it again to go on. The table compares AUROC on test; folding share and errors inside and
outside the lungs stand in the runs' evaluation/test.json. Arguments: runs=2 (seeds of each), size (of
:small), parity and vgg as in configs/morphaeus_cxr.py.
  :small   real radiographs at 32 px (size=), 40 epochs; about 10 minutes of one free core a seed
  :demo    SYNTHETIC radiographs, two CPU cores
  :smoke   SYNTHETIC radiographs, four runs of four steps; learns nothing
"""

import ml_collections

from configs import common, morphaeus_cxr


def get_config(arg=None):
  """The config of the first run, with the group `sweep`.

  Raises:
    UserError: an unknown argument.
  """
  args = common.parse_arg(arg, root="", vgg="", runs=2, size=32, parity=False, small=False, demo=False,
                          smoke=False)
  own = [name for name in ("small", "demo", "smoke") if args[name]]
  own += [f"{name}={args[name]}" for name in ("root", "vgg") if args[name]]
  own += ["parity=1"] * args.parity + [f"size={args.size}"] * args.small
  words = ",".join(own)
  config = morphaeus_cxr.get_config(words)
  with config.unlocked():
    if args.small:
      config.train.epochs = 40
    if not (args.demo or args.smoke):
      config.data.lungs = "ellipses"  # where no masks say where the lungs are
    config.sweep = ml_collections.ConfigDict(dict(
        config="configs/morphaeus_cxr.py", arg=words,
        grid={"run": tuple(range(1 if args.smoke else args.runs)), "ablation": morphaeus_cxr.ABLATIONS},
        average=("run",), settings=(), folds=0, final_steps="", split="test", metric="image_auroc",
        together=1, retries=0, slurm=0, shard=(0, 1),
        labels={"model": "morphaeus", "data": "synthetic" if args.demo or args.smoke else "cxr", "exp": ""}))
  return config.lock()
