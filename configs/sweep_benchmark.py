r"""The one-class benchmark of the DPA paper: every class, three runs, one table.

  python launch.py --mode=sweep --workdir=W \
    --config=configs/sweep_benchmark.py:method=piad,data=cifar10,root=DATA,vgg=PATH
It is what the public run_experiments does for these methods, resumable and with failures reported:
call it again to go on. Times are those of the single configs times the number of runs.

Arguments: method=dpa or piad; data=cifar10, svhn, camelyon16 or nih; exp (experiment of that
config, "" = its default); cls=all, or 0+3+8 (nih: AP+PA+subset); runs=3; root, lists, vgg as in the
configs; loss=relative_perceptual_L1+l1+l2 (dpa) compares training losses; together=3 trains so many
runs at once on one accelerator where shapes agree; more="..." is added to the argument of every
run, with ; for , (more=select=auroc;fast=1).
  search=1   hyper-parameter search first: three folds of every setting in SETTINGS, the best mean
             AUROC on validation anomalies of one kind, then the final runs ("weakly supervised")
  :small     real data on two CPU cores with a narrow *random* VGG19 (the :small of the configs;
             nih: root is a labelled folder, without views); about a minute a run of dpa
  :demo      synthetic textures, two cells of two runs, two CPU cores, about 8 minutes
  :smoke     synthetic textures, two runs of four steps, about half a minute; learns nothing
"""

import importlib

import ml_collections

from configs import common
from data_pipelines.errors import UserError

CELLS = {"cifar10": ("cls", tuple(range(10))), "svhn": ("cls", tuple(range(10))),
         "nih": ("view", ("AP", "PA", "subset")), "camelyon16": ("", ())}
_LAYERS = ("r32", "r42", "r32+r42")
# DPA: bottleneck and widths with a paired learning rate; PIAD: the presets of its files.
_PAIRS = ((8, (8,) * 4, 0.01), (16, (16,) * 4, 0.005), (32, (32,) * 4, 0.002),
          (64, (32, 64, 64, 64), 0.001), (256, (32, 64, 128, 256), 0.0002))
_PRESETS = ((256, (64, 128, 256, 256), (1024, 1024)), (128, (64, 128, 128, 128), (512, 512)))


def get_config(arg=None):
  """The config of the first run, with the group `sweep`.

  Raises:
    ValueError: an unknown method, data set or class.
  """
  args = common.parse_arg(arg, method="dpa", data="cifar10", exp="", cls="all", runs=3, root="",
                          lists="", vgg="", loss="", together=1, more="", search=False, small=False,
                          demo=False, smoke=False)
  if args.method not in ("dpa", "piad") or args.data not in CELLS or args.runs < 1:
    raise UserError(f"config arguments method={args.method}, data={args.data}, runs={args.runs}: "
                    f"method is dpa or piad, data {', '.join(CELLS)}, runs at least 1")
  if args.loss and args.method != "dpa":
    raise UserError(f"config argument loss={args.loss}: belongs to method=dpa")
  if args.search and args.data not in ("cifar10", "svhn"):
    raise UserError("config argument search: settings are known for 32 px (cifar10, svhn) only; "
                    "write config.sweep.settings for other sizes in a config of your own")
  variant = next((v for v in ("smoke", "demo", "small") if args[v]), "")
  grid = _grid(args, variant)
  given = [f"{k}={args[k]}" for k in ("exp", "root", "lists", "vgg") if args[k]]
  shared = ",".join(filter(None, [variant, *given, args.more.replace(";", ",")]))
  file = f"{args.method}_{args.data}"
  first = ",".join(filter(None, [shared, *(f"{k}={v[0]}" for k, v in grid.items())]))
  config = importlib.import_module(f"configs.{file}").get_config(first)
  with config.unlocked():
    config.sweep = ml_collections.ConfigDict(dict(
        config=f"configs/{file}.py", arg=shared,
        grid=grid,                 # arguments of that file: values
        average=("run",),          # averaged over in the table
        settings=_settings(args) if args.search else (),  # ({field: value}, ...) to choose from
        folds=3 if args.search else 0,  # of the search
        final_steps="mean_best",   # length of the final runs after a search; "" = the config's
        split="test", metric="image_auroc",
        together=args.together,    # runs trained at once under vmap; 1 = one by one
        shard=(0, 1)))             # (i, n): every n-th run only, for several machines
  return config.lock()


def _grid(args, variant):
  name, known = CELLS[args.data]
  if variant == "small" and args.data == "nih":  # a folder has no views
    name = ""
  grid = {"loss": tuple(args.loss.split("+"))} if args.loss else {}
  if name:
    kind = type(known[0])
    try:
      values = known if args.cls == "all" else tuple(kind(v) for v in args.cls.split("+"))
    except ValueError:
      values = (None,)
    if not set(values) <= set(known):
      raise UserError(f"config argument cls={args.cls}: write all, or some of "
                      f"{'+'.join(map(str, known))}")
    grid[name] = values
  if variant in ("smoke", "demo") and name:
    grid[name] = grid[name][:1 if variant == "smoke" else 2]
  grid["run"] = tuple(range(2 if variant in ("smoke", "demo") else args.runs))
  return grid


def _settings(args):
  if args.method == "dpa":
    return tuple({"method.layers": layers, "model.latent_dim": dim, "model.enc_widths": widths,
                  "optim.lr": lr} for dim, widths, lr in _PAIRS for layers in _LAYERS)
  return tuple({"method.layers": layers, "model.latent_dim": dim, "model.enc": widths,
                "model.dec": widths[::-1], "model.critic_image": widths,
                "model.critic_latent": latent}
               for dim, widths, latent in _PRESETS for layers in _LAYERS[:2])
