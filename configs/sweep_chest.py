r"""Every method on chest radiographs in one table: the autoencoders, MorphAEus, DPA, frozen features.

  python launch.py --mode=sweep --workdir=W --config=configs/sweep_chest.py:root=FOLDER,vgg=vgg16.npz
FOLDER as in configs/ae_cxr.py. Each row has two scores of the same trained networks: the published one, and
the one that val's image AUROC chooses of all that the run offers (docs/scores.md); beside them scores without
a network, and below the table the mean of the runs of a seed that val chooses. Seed by seed and resumable:
stopped early, the table has fewer seeds. docs/chest.md has it.

Arguments: vgg=vgg16.npz, the weights of VGG16 for frozen features, DPA's loss and three of the scores;
without it frozen features and DPA have *random* networks, and those three scores are not offered.
runs=3 (seeds); methods=ae_s+dpa (some of them).
  (none)   32 px (frozen features: 96 px), narrow networks, 12 passes (MorphAEus 24), CPU: about 20 minutes
           of a busy core a seed
  :demo    SYNTHETIC radiographs, two seeds of three methods, CPU, minutes
  :smoke   SYNTHETIC radiographs, one seed of every method, four steps; learns nothing
"""

import importlib

import ml_collections

from configs import common
from configs.fields import ae_zoo

ZOO = tuple(ae_zoo.FILL)
METHODS = (*ZOO, "dpa", "frozen", "morphaeus")
_TINY = {"method.score.trunk": "vgg19", "method.score.trunk_weights": "random:0", "method.score.fit": True,
         "method.score.trunk_widths": (4, 4, 4, 4, 4), "method.score.trunk_layers": "r11+r21"}


def get_config(arg=None):
  """The config of the first run, with the group `sweep`.

  Raises:
    UserError: an unknown argument or method.
  """
  args = common.parse_arg(arg, root="", vgg="", runs=3, methods="", demo=False, smoke=False)
  chosen = common.some_of(args, "methods", METHODS)
  if args.demo and not args.methods:
    chosen = ("ae_s", "frozen", "morphaeus")
  runs = 1 if args.smoke else min(args.runs, 2) if args.demo else args.runs
  parts = [_part(method, args, runs) for method in chosen]
  first = parts[0]
  words = ",".join([first["arg"], *(f"{k}={v[0]}" for k, v in first["grid"].items())])  # the first run's
  config = importlib.import_module(first["config"][:-3].replace("/", ".")).get_config(words)
  with config.unlocked():
    config.sweep = ml_collections.ConfigDict(dict(
        config=first["config"], arg=first["arg"], grid=first["grid"], average=("run", "seed"), settings=(),
        parts=tuple(parts), rounds=True, ensemble=True, folds=0, final_steps="", split="test",
        metric="image_auroc", together=1, retries=0, slurm=0, shard=(0, 1)))
  return config.lock()


def _part(method, args, runs):
  variant = next((w for w in ("demo", "smoke") if args[w]), "small")
  synthetic, seeds = variant != "small", tuple(range(runs))
  file, words, grid = "ae_cxr", [method, variant], {"run": seeds}
  if method == "morphaeus":
    file, words = "morphaeus_cxr", [variant, *["size=32"] * (not synthetic)]
  elif method == "dpa":
    file, words = "dpa_cxr", [variant] * synthetic + [f"vgg=vgg16:{args.vgg}"] * bool(args.vgg)
  elif method == "frozen":
    more = f"ae_s;small;root={args.root}" if not synthetic else "ae_s"
    file, grid = "frozen_beside", {"seed": seeds}
    words = ["of=ae_cxr", f"more={more}", *[variant] * synthetic, f"weights={args.vgg or 'random:0'}"]
  if method != "frozen" and not synthetic:
    words.append(f"root={args.root}")
  return dict(name=method, config=f"configs/{file}.py", arg=",".join(words), grid=grid,
              settings=(_fields(method, args, synthetic),), labels={"model": method})


def _fields(method, args, synthetic):
  """What differs from the config file: size, length, and what the scores need."""
  fields = {"eval.measures": ("similarity", "trivial"), "eval.panel_images": 4}
  if method == "frozen":
    fields |= {"eval.choose_score": ("image", "taps"), "method.score.map": "none",
               "eval.measures": ("trivial",), "method.scores": ("mahalanobis", "neighbours", "forest")}
    if not synthetic:
      fields |= {"data.image_size": 96, "method.image_taps": ("r33", "r22", "r43", "r22+r33+r43")}
    return fields
  fields |= {"eval.choose_score": ("kind", "image_score")}
  if args.smoke:
    return fields | (_TINY if method != "morphaeus" else {})
  if args.vgg:
    fields |= {"method.score.trunk": "vgg16", "method.score.trunk_weights": args.vgg,
               "method.score.fit": True}
  if synthetic or method == "dpa":
    return fields
  fields |= {"data.image_size": 32, "train.epochs": 24 if method == "morphaeus" else 12}
  return fields | ({"method.capacity_steps": 120.0} if method == "beta_vae" else {})
