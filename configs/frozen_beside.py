r"""Frozen features on the data of another experiment: its row of the table, in one command.

  python launch.py --workdir=W --config=configs/frozen_beside.py:run=runs/dae,weights=vgg16.npz
  python launch.py --workdir=W \
    "--config=configs/frozen_beside.py:of=dpa_nih,more=small;root=chest_xray,weights=vgg16.npz"
The first takes data, split and evaluation of a run of anomaly detection, the second those of a config file
and its argument, with ; for a comma. Nothing is trained; taps are chosen on val where it has abnormal
images, else the first set of config.method.image_taps scores.

Arguments: run, or of and more; size to which images are resized for the backbone (0 = as they are), backbone
(vgg16), weights=PATH or random:SEED, seed, channels=0+1+2 where images have neither one nor three.
  (none)   synthetic brains, with weights; one pass over the normal slices.
  :demo, :smoke   those of the other config, with a *random* backbone.
"""

import importlib
import pathlib

from configs import common
from configs.fields import frozen
from data_pipelines import dataset
from data_pipelines.errors import UserError
from medae_jax.core import config as config_lib


def get_config(arg=None):
  """The locked config; `arg` as in the module's docstring.

  Raises:
    UserError: no such config or run, or one that is no anomaly detection.
  """
  args = common.parse_arg(arg, run="", of="dae_brats", more="", demo=False, smoke=False, size=0, seed=-1,
                          channels="", weights="", backbone="")
  other = config_lib.read_config(args.run) if args.run else _file(args)
  if other.eval.kind != "anomaly":
    raise UserError(f"config.eval.kind={other.eval.kind} there: frozen features stand beside anomaly "
                    "detection")
  config = frozen.base()
  config.seed = other.seed if args.seed < 0 else args.seed
  small = args.demo or args.smoke
  frozen.weights(config, args.backbone, args.weights or ("random:0" if small else ""))
  config.data = other.data.copy_and_resolve_references()
  table = pathlib.Path(args.run, "splits.csv").absolute()
  if args.run and table.is_file() and not config.data.get("split_table", "set"):
    config.data.split_table = str(table)
  kept = ("batch_size", "components", "baseline_channel", "panel_images", "quantile", "alpha", "bootstrap")
  config.eval.update({k: other.eval[k] for k in kept if k in other.eval})
  _enter(config, args)
  if args.smoke:
    frozen.tiny(config)
    config.train.update(batch_size=8, eval_batch_size=8)
  return config.lock()


def _file(args):
  words = [args.more.replace(";", ","), "smoke" if args.smoke else "demo" if args.demo else ""]
  name = args.of.removesuffix(".py")
  try:
    module = importlib.import_module(f"configs.{name}")
  except ModuleNotFoundError as e:
    raise UserError(f"config argument of={args.of}: configs/{name}.py is not there ({e})") from None
  return module.get_config(",".join(filter(None, words)))


def _enter(config, args):
  """How these images enter the backbone: their range, and which channels."""
  spec, method = dataset.module(config.data.name).spec(config.data), config.method
  high = 1.0 if spec.high is None else float(spec.high)
  method.update(low=float(spec.low), high=high, bounded=spec.high is not None, size=args.size)
  method.score.foreground = spec.high is None  # volumes: nothing outside the body
  if args.channels:
    try:
      method.channels = tuple(int(c) for c in args.channels.split("+"))
    except ValueError:
      raise UserError(f"config argument channels={args.channels}: write 0+1+2") from None
  elif spec.shape[2] not in (1, 3):
    method.channels = (0, 1, 2) if spec.shape[2] > 3 else (0,)
