r"""What each quirk of the public code of MorphAEus and the other autoencoders costs (docs/ae_zoo.md).

  python launch.py --mode=sweep --workdir=W --config=configs/sweep_quirks.py:small,root=FOLDER
  python launch.py --mode=sweep --workdir=W --config=configs/sweep_quirks.py:root=FOLDER,vgg=PATH

One at a time: the row quirk=none of a method is what its paper describes, each other row changes that one
field; quirk=all is what the public code does. Resumable; seed by seed: an early stop leaves whole tables.
Arguments: runs=3 (seeds of each); vgg of MorphAEus; methods=ae_s+vae+morphaeus (all).
  :small   real radiographs at 32 px, narrow networks, CPU: half a minute of one core a run; a schedule whose
           steps lie beyond the 60 epochs is shortened with them
  :smoke   SYNTHETIC radiographs, one quirk of two methods, four steps; learns nothing
"""

import ml_collections

from configs import ae_cxr, common, morphaeus_cxr
from configs.fields import ae_zoo

_PREPARATION = {"data.preparation": "published"}
PARITY = {**ae_zoo.PARITY, "morphaeus": {"model.norm": "frozen"}}
SMALL = {"data.image_size": 32, "train.epochs": 60}
SHORT = {"si_vae": {"optim.boundaries": (30,)}, "dae": {"optim.half_period": 60.0}}  # 60 epochs of 1000


def get_config(arg=None):
  """The config of the first run, with the group `sweep`.

  Raises:
    UserError: an unknown argument or method.
  """
  args = common.parse_arg(arg, root="", vgg="", runs=3, methods="", small=False, smoke=False)
  methods = common.some_of(args, "methods", PARITY)
  if args.smoke:
    methods = methods[:2]
  parts = [part for m in methods for part in _parts(m, args)]
  config = _module(methods[0]).get_config(f"{parts[0]['arg']},run=0")
  with config.unlocked():
    config.sweep = ml_collections.ConfigDict(dict(
        config=parts[0]["config"], arg=parts[0]["arg"], grid=parts[0]["grid"], average=("run",), settings=(),
        parts=tuple(parts), rounds=True, folds=0, final_steps="", split="test", metric="image_auroc",
        together=1, retries=0, slurm=0, shard=(0, 1)))
  return config.lock()


def _module(method):
  return morphaeus_cxr if method == "morphaeus" else ae_cxr


def _parts(method, args):
  """The sound form of a method, each quirk of it, and all of them."""
  single = {k.replace("method.", "").replace("model.", "") + f"={v}": {k: v}
            for k, v in (PARITY[method] | _PREPARATION).items()}
  if args.small:
    single.pop("train.early_stop=0", None)  # off as it is
  rows = {"none": {}, **single, "all": PARITY[method] | _PREPARATION}
  if args.smoke:
    rows = dict(list(rows.items())[:2])
  words = [method] * (method != "morphaeus") + [w for w in ("small", "smoke") if args[w]]
  words += [f"root={args.root}"] * bool(args.root)
  words += ["size=32"] * (args.small and method == "morphaeus")
  words += [f"vgg={args.vgg}"] * (bool(args.vgg) and method == "morphaeus")
  base = (SMALL | SHORT.get(method, {})) if args.small else {}
  if method == "morphaeus" and args.small:
    base = base | {"train.epochs": 40}
  return [dict(name=f"{method}_{quirk.split('=')[0]}",
               config="configs/morphaeus_cxr.py" if method == "morphaeus" else "configs/ae_cxr.py",
               arg=",".join(words), grid={"run": tuple(range(1 if args.smoke else args.runs))},
               settings=(base | fields,), labels={"model": method, "quirk": quirk})
          for quirk, fields in rows.items()]
