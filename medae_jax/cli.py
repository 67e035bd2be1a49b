"""One launcher for training, evaluating, applying and exporting every method.

  python launch.py --config=configs/dae_brats.py:demo --workdir=runs/demo
  python launch.py --mode=evaluate --workdir=runs/demo
  python launch.py --mode=predict  --workdir=runs/demo --input=scans/ --output=maps/

Any field of the config can be set on the command line: --config.train.batch_size=32. Modes other
than train read the config of --workdir; --config is then only needed to change fields.
"""

from __future__ import annotations

import importlib
import json
import logging as std_logging
import os
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from medae_jax.core import places

_MODES = {
    "train": "train, go on with or finish the run in --workdir, then evaluate it",
    "evaluate": "metrics, tables, pictures and report.html of --workdir",
    "predict": "maps and masks for --input, written to --output",
    "export": "a self-contained artefact of --workdir, written to --output",
    "convert": "a published PyTorch checkpoint (--input) as a --workdir",
    "bench": "throughput of --config as JSON",
    "sweep": "a grid of configs, resumable, with one table at the end",
    "list": "all methods, data sets and configs",
}
flags.DEFINE_enum("mode", "train", list(_MODES), "What to do:\n" + "\n".join(
    f"  {name}: {text}" for name, text in _MODES.items()))
flags.DEFINE_string("workdir", None, "Folder of the run: config, checkpoints, metrics, results.")
flags.DEFINE_string("input", None, "File or folder to read (predict, convert).")
flags.DEFINE_string("output", None, "Folder to write (predict, export); default inside --workdir.")
config_flags.DEFINE_config_file("config", None, "Experiment: configs/<name>.py[:argument].",
                                lock_config=True)
FLAGS = flags.FLAGS


def run(mode: str) -> None:
  """Imports and calls what `mode` needs; errors of the user raise ValueError or OSError."""
  from medae_jax.core import listing, parallel  # after the settings of console()
  if mode == "list":
    print(listing.overview())
    return
  needs = {"train": ("config", "workdir"), "bench": ("config",), "sweep": ("config", "workdir"),
           "convert": ("config", "workdir", "input"), "predict": ("workdir", "input")}
  for flag in needs.get(mode, ("workdir",)):
    if not getattr(FLAGS, flag):
      raise ValueError(f"--mode={mode} needs --{flag}; see --help")
  parallel.initialize_hosts()
  module = importlib.import_module(f"medae_jax.{mode}")
  changed = {} if FLAGS.config is None else config_flags.get_override_values(FLAGS["config"])
  if mode == "train":
    if module.train(FLAGS.config, FLAGS.workdir)["finished"]:
      importlib.import_module("medae_jax.evaluate").evaluate(FLAGS.workdir)
  elif mode == "evaluate":
    module.evaluate(FLAGS.workdir, changed)
  elif mode == "predict":
    files = {"predict.input": FLAGS.input, "predict.output": FLAGS.output or ""}
    module.predict(FLAGS.workdir, {**changed, **files})
  elif mode == "export":
    module.export(FLAGS.workdir, FLAGS.output, overrides=changed)
  elif mode == "convert":
    module.convert(FLAGS.input, FLAGS.config, FLAGS.workdir)
  elif mode == "sweep":
    module.sweep(FLAGS.config, FLAGS.workdir)
  else:
    print(json.dumps(module.bench(FLAGS.config, FLAGS.workdir), indent=2))


def main(argv) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags start with --")
  logging.set_verbosity(logging.INFO)
  handler = logging.get_absl_handler()  # Orbax reports every file it opens
  handler.addFilter(lambda r: "orbax" not in r.pathname or r.levelno >= std_logging.ERROR)
  try:
    run(FLAGS.mode)
  except (ValueError, OSError, FloatingPointError) as e:
    logging.debug("%s", e, exc_info=True)  # the traceback: --verbosity=1
    print(f"medae_jax: error: {str(e).strip()}", file=sys.stderr)
    sys.exit(1)


def parse_flags(argv):
  """Flags, with a wrong config field or file said in one line instead of a traceback."""
  given = {a.lstrip("-").partition("=")[0]: a.partition("=")[2] for a in argv}
  if given.keys() & {"help", "h"}:
    print(f"{__doc__}{FLAGS.module_help(sys.modules[__name__])}")
    sys.exit(1)  # as absl does
  try:
    return flags.FLAGS(_with_config_file(argv, given))
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as e:
    first, *more = str(e).strip().splitlines()
    if more and "Traceback" in str(e):  # of the config file: its last line says what is wrong
      first = f"--config={given['config']}: {more[-1].partition('Error: ')[2] or more[-1]}"
    if isinstance(e, (AttributeError, KeyError)):
      inner = e.args[0] if isinstance(e.args[0], KeyError) else e  # ml_collections wraps it
      first = f"the config has no field {' '.join(str(inner.args[0]).split())}"
    print(f"medae_jax: error in the command line: {first}; see --help", file=sys.stderr)
    sys.exit(2)


def _with_config_file(argv, given):
  """`argv` with the path of the file that --config names; the config of --workdir where it is absent."""
  if "config" not in given:
    if given.get("workdir") and given.get("mode", "train") != "train":
      file = places.folder("configs") / "from_workdir.py"
      argv = [argv[0], f"--config={file}:{given['workdir']}", *argv[1:]]
    return argv
  name, colon, argument = given["config"].partition(":")
  if not name:
    return argv
  try:
    file = places.config_file(name)
  except FileNotFoundError as e:
    raise FileNotFoundError(f"--config={e}") from e
  return [f"--config={file}{colon}{argument}" if a.lstrip("-").startswith("config=") else a
          for a in argv]


def console() -> None:
  """The command `medae-jax` and launch.py."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow only feeds data here
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # ... and announces oneDNN otherwise
  # Compiled programs are kept between runs: a second start takes seconds.
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR",
                        os.path.expanduser("~/.cache/medae_jax/xla"))
  if os.getcwd() not in sys.path:
    sys.path.append(os.getcwd())  # methods and data sets of the user; last, so that it hides nothing
  app.run(main, flags_parser=parse_flags)
