r"""The one-class benchmark of the DPA paper: models, data sets, experiments, classes, runs in one table.

  python launch.py --mode=sweep --workdir=W \
    --config=configs/sweep_benchmark.py:method=piad,data=cifar10,root=DATA,vgg=PATH
  python launch.py --mode=sweep --workdir=W --config=configs/sweep_benchmark.py:method=all,data=all,\
cifar10=PATH,svhn=PATH,camelyon16=PATH/x10,camelyon16_x40=PATH/x40,nih=PATH,lists=folds,vgg=PATH
The second is the published run_experiments: 624 launches, of which the 108 without a published config
are listed, not run. Resumable, with failures reported: call it again to go on, on as many machines as
you like (--config.sweep.slurm=16 writes a launcher file); docs/benchmark.md. Times are those of the
single configs times the number of runs.

Arguments, several values as a+b: method=dpa, piad, deep_geo, deep_if (all = these) or frozen;
data=cifar10, svhn, camelyon16, nih or all; exp="" (one method and data set: the config's own default;
else the published experiments of each model), all, or names; ablation=1 adds those of dpa;
cls=all, or 0+3+8 (nih: AP+PA+subset); runs=3 (the first three) or 0+2; root, or one for each data set;
lists, vgg (dpa, piad), weights and backbone (deep_if, frozen) as in the configs;
loss=relative_perceptual_L1+l1+l2 (dpa) compares training losses; together=3 trains so many runs at once
on one accelerator where shapes agree; more="..." is added to the argument of every run, with ; for ,
(more=select=auroc;fast=1), or to those of one model (more=dpa:fast=1;deep_if:fast=1).
  search=1   hyper-parameter search first: three folds of every setting of configs/fields/search.py, the
             best mean AUROC on validation anomalies of one kind, then the final runs ("weakly supervised")
  parity=1   as published, faults included: fold lists that leak, PIAD's NIH runs scored equalised but
             trained without, frozen crops of the growing Camelyon16 run
  :small     real data on two CPU cores with a narrow *random* VGG19 (the :small of the configs;
             nih: root is a labelled folder, without views); about a minute a run of dpa. deep_if and
             frozen, which train nothing, run as they are
  :demo      synthetic textures, two cells of two runs, two CPU cores, about 8 minutes
  :smoke     synthetic textures, two runs of four steps, about half a minute; learns nothing
"""

import importlib

import ml_collections

from configs import common
from configs.fields import benchmark, search
from data_pipelines.errors import UserError

METHODS = (*benchmark.MODELS, "frozen")
_PRETRAINED = ("deep_if", "frozen")  # features of a network that others trained


def get_config(arg=None):
  """The config of the first run, with the group `sweep`.

  Raises:
    ValueError: an unknown method, data set, experiment, class or run.
  """
  args = common.parse_arg(arg, method="dpa", data="cifar10", exp="", cls="all", runs="3", root="",
                          lists="", vgg="", weights="", backbone="", loss="", together=1, more="",
                          ablation=False, search=False, parity=False, small=False, demo=False,
                          smoke=False, camelyon16_x40="",
                          **dict.fromkeys(benchmark.DATASETS, ""))
  methods = _names("method", args.method, METHODS, benchmark.MODELS)
  datasets = _names("data", args.data, benchmark.DATASETS, benchmark.DATASETS)
  if args.loss and methods != ("dpa",):
    raise UserError(f"config argument loss={args.loss}: belongs to method=dpa")
  variant = next((v for v in ("smoke", "demo", "small") if args[v]), "")
  several = len(methods) > 1 or len(datasets) > 1 or args.ablation or (
      args.exp == "all" or "+" in args.exp or args.exp in benchmark.ABLATIONS)
  if several:
    parts, unpublished = _published(args, methods, datasets, variant)
  else:
    parts, unpublished = [_part(args, methods[0], datasets[0], args.exp, variant, f"exp={args.exp}"
                                if args.exp else "", _classes(args, datasets[0]))], ()
  first = parts[0]
  words = ",".join(filter(None, [first["arg"], *(f"{k}={v[0]}" for k, v in first["grid"].items())]))
  config = _module(first["config"]).get_config(words)
  with config.unlocked():
    if args.parity and "folds" in config.data:
      config.data.folds = "published"
    config.sweep = ml_collections.ConfigDict(dict(
        config=first["config"], arg=first["arg"],
        grid=first["grid"],        # arguments of that file: values
        average=("run",),          # averaged over in the table
        settings=first["settings"],  # ({field: value}, ...) to choose from
        labels=first["labels"],    # what the runs are, for --mode=report
        parts=tuple(parts) if several else (),  # instead of the five above: several config files
        unpublished=unpublished,   # runs of the published runner that have no config
        folds=3 if args.search else 0,  # of the search
        final_steps="mean_best",   # length of the final runs after a search; "" = the config's
        split="test", metric="image_auroc",
        together=args.together,    # runs trained at once under vmap; 1 = one by one
        retries=0,                 # of failed runs, before the sweep ends
        slurm=0,                   # > 0: only write a launcher file for so many tasks
        shard=(0, 1)))             # (i, n): every n-th run only, for several machines
  return config.lock()


def _published(args, methods, datasets, variant):
  """(parts, names of launches without a config) of the published runner, as the arguments filter it."""
  exps = () if args.exp in ("", "all") else tuple(args.exp.split("+"))
  classes = () if args.cls == "all" else tuple(args.cls.split("+"))
  cells: dict[tuple, list] = {}
  unpublished = []
  for launch in benchmark.launches([m for m in methods if m != "frozen"], datasets, exps, classes,
                                   _runs(args.runs), args.ablation):
    if not launch.published:
      unpublished.append(launch.name)
    elif not (args.search and launch.exp in ("reproduce", "pg") and not exps):  # what with_cv is chosen for
      key = launch.model, launch.data, launch.exp, benchmark.argument(launch)
      cells.setdefault(key, []).append(launch.cls)
  if "frozen" in methods:
    cells |= {("frozen", d, "", ""): list(_classes(args, d)) for d in datasets}
  if not cells:
    raise UserError(f"config arguments exp={args.exp}, cls={args.cls}: no run has a published config: "
                    f"{', '.join(unpublished[:3])} ...")
  return [_part(args, model, data, exp, variant, words, tuple(dict.fromkeys(found)))
          for (model, data, exp, words), found in cells.items()], tuple(unpublished)


def _part(args, method, data, exp, variant, words, classes):
  """One config file and its grid; `words` choose the experiment."""
  if args.search and exp == "pg":
    raise UserError("config argument search: the length of the last stage of exp=pg is not searched; "
                    "search wo_pg, and give its choice to exp=pg")
  root = args[data] or args.root
  if method == "deep_if" and data == "camelyon16" and exp in ("", "with_cv") and args.camelyon16_x40:
    root = args.camelyon16_x40
  trunk = ("vgg",) if method in ("dpa", "piad") else ("weights", "backbone") if method in _PRETRAINED else ()
  own = [words, f"root={root}" if root else "",
         *(f"{k}={args[k]}" for k in ("lists", *trunk) if args[k])]
  labels = {"model": method, "data": data, "exp": exp}
  if variant == "small" and method in _PRETRAINED:  # they train nothing: full size is small enough
    own += ["folder=1"] * (data in ("nih", "camelyon16"))
  elif variant:
    own, labels["variant"] = [variant, *own], variant
  if args.parity:
    own += ["mismatch=1"] * ((method, data, exp) == ("piad", "nih", "with_cv"))
    own += ["freeze=1"] * ((method, data, exp) == ("dpa", "camelyon16", "pg"))
  own += [part.removeprefix(f"{method}:") for part in args.more.split(";")
          if part.partition(":")[0] not in METHODS or part.startswith(f"{method}:")]
  return dict(
      name="_".join(filter(None, [method, data, exp])), config=f"configs/{method}_{data}.py",
      arg=",".join(filter(None, own)), grid=_grid(args, data, variant, classes),
      settings=search.settings(method, data, args.backbone) if args.search else (),
      labels=labels)


def _grid(args, data, variant, classes):
  name = benchmark.ARGUMENT[data]
  if variant == "small" and data == "nih":  # a folder has no views
    name = ""
  grid = {"loss": tuple(args.loss.split("+"))} if args.loss else {}
  if name:
    grid[name] = classes[:{"smoke": 1, "demo": 2}.get(variant, len(classes))]
  runs = _runs(args.runs)
  grid["run"] = runs[:2] if variant in ("smoke", "demo") else runs
  return grid


def _classes(args, data):
  known = benchmark.CLASSES[data]
  if args.cls == "all":
    return known
  given = args.cls.split("+")
  if not set(given) <= set(map(str, known)):
    raise UserError(f"config argument cls={args.cls}: write all, or some of {'+'.join(map(str, known))}")
  return tuple(c for c in known if str(c) in given)


def _runs(text):
  """"3": the first three; "0+2": these."""
  try:
    found = tuple(int(t) for t in text.split("+")) if "+" in text else tuple(range(int(text)))
  except ValueError:
    found = ()
  if not found or not set(found) <= {0, 1, 2}:
    raise UserError(f"config argument runs={text}: write 1 to 3 for so many, or some of 0+1+2")
  return found


def _names(argument, text, known, everything):
  """The values of "a+b", "all" among them."""
  found = tuple(dict.fromkeys(
      n for word in text.split("+") for n in (everything if word == "all" else (word,))))
  if not set(found) <= set(known):
    raise UserError(f"config argument {argument}={text}: use all, or some of {'+'.join(known)}")
  return found


def _module(file):
  """The module of a config of this folder."""
  return importlib.import_module(file.removesuffix(".py").replace("/", "."))
