"""Export: checkpoint -> a folder that scores images without this package.

  score.stablehlo   the score function (jax.export: CPU, CUDA and TPU in one file, any batch size)
  weights.npz       its parameters, read with numpy.load(..., allow_pickle=False)
  config.json, calibration.json (where evaluate has run), manifest.json, README.txt,
  run_exported.py   under 30 lines; runs the folder with jax alone

The weights are an argument of the program, not constants inside it: measured on the reference DAE
the program is 71 kB instead of 31 MB, compiles faster (XLA folds nothing), and the weights stay
readable, checkable and exchangeable without JAX. The *folder* is the self-contained unit. StableHLO
files are promised to load for months, not years; weights.npz and config.json outlive them.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging
import flax.traverse_util
import jax
from jax import export as jax_export
import numpy as np

from medae_jax.core import config as config_lib
from medae_jax.core import calibration as calibrate
from medae_jax.core import parallel, places, trained
from medae_jax.core.errors import UserError
from medae_jax.core.method import State
from medae_jax.core.files import write_json

FORMAT = "medae_jax export 1"
PLATFORMS = ("cpu", "cuda", "tpu")
FORMATS = ("stablehlo", "weights", "safetensors", "saved_model")
_EXAMPLE = places.folder("examples") / "run_exported.py"


def export(workdir: str | os.PathLike, out_dir: str | os.PathLike | None = None,
           formats: Sequence[str] | None = None,
           overrides: Mapping[str, Any] | None = None) -> pathlib.Path:
  """Writes the artefact, whole or not at all, and checks it against `score`.

  Args:
    workdir: of a training run or of `convert`. Its calibration.json, if any, is applied.
    out_dir: default <workdir>/export. An earlier export there is replaced; a folder that is
      anything else is refused.
    formats: of FORMATS, default config.export.formats. "saved_model" needs TensorFlow,
      "safetensors" its package.
    overrides: {"method.score.median": 0, ...} on top of the workdir's config;
      export.image_size = 256 or (H, W) exports for another size than that of training.

  Returns:
    The folder.

  Raises:
    FileNotFoundError: no checkpoint.
    ValueError: unknown format, foreign folder, score that cannot be exported, parity lost.
  """
  out = pathlib.Path(out_dir or pathlib.Path(workdir) / "export").absolute()
  _check_target(out)
  changed, options = _options(config_lib.read_config(workdir), formats, overrides)
  run = trained.load(workdir, changed)
  weights = _weights(run.method.inference_state(run.state))
  inputs = _inputs(run.method, run.info, options["image_size"])
  out.parent.mkdir(parents=True, exist_ok=True)
  temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
  try:
    manifest = _write(temporary, run, weights, inputs, options["formats"])
    temporary.chmod(0o755)
    _swap(temporary, out)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
  logging.info("Exported step %d (%s checkpoint) to %s (%s). Largest difference to score: %s",
               run.info["step"], run.info["which"], out, ", ".join(manifest["files"]),
               manifest["parity"])
  return out


def score_function(method):
  """(weights {name: array}, batch {"image": [B,H,W,C]}) -> outputs of method.score."""
  def score(weights, batch):
    groups = flax.traverse_util.unflatten_dict(dict(weights), sep="/")
    parts = {k: groups.get(k, {}) for k in ("params", "stats", "extra")}
    return method.score(State.create(**parts), batch)
  return score


# ----------------------------------------------------------------------------------------- pieces
def _options(config, formats, overrides):
  """The overrides of other groups, and {"formats", "image_size"}; older runs have no config.export."""
  overrides = dict(overrides or {})
  options = {"formats": ("stablehlo", "weights"), "image_size": 0,
             **dict(config.get("export", None) or {})}
  for name in [n for n in overrides if n.startswith("export.")]:
    options[name.removeprefix("export.")] = overrides.pop(name)
  options["formats"] = tuple(formats or options["formats"])
  unknown = sorted(set(options["formats"]) - set(FORMATS))
  if unknown or not options["formats"]:
    raise UserError(f"config.export.formats: {', '.join(unknown) or '(none)'} is unknown; "
                     f"use some of {', '.join(FORMATS)}")
  return overrides, options


def _check_target(out: pathlib.Path) -> None:
  """Only an earlier export or an empty folder may be replaced."""
  if not out.exists():
    return
  if not out.is_dir() or (any(out.iterdir()) and not _is_export(out)):
    raise UserError(f"{out} exists and is not an export of medae_jax: it is left alone; "
                     "choose another --output")


def _is_export(folder: pathlib.Path) -> bool:
  try:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return manifest["format"].startswith("medae_jax export")
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    return False


def _swap(temporary: pathlib.Path, out: pathlib.Path) -> None:
  """Puts `temporary` at `out`; what was there goes only after the new one is in place."""
  old = None
  if out.exists():
    old = pathlib.Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    out.rename(old / "export")
  temporary.rename(out)
  if old is not None:
    shutil.rmtree(old)


def _weights(state: State) -> dict[str, np.ndarray]:
  """{"params/net/...": array} of everything that scoring reads."""
  state = parallel.to_host(state.replace(opt={}, step=np.zeros((), np.int32)))
  tree = {"params": state.params, "stats": state.stats, "extra": state.extra}
  flat = flax.traverse_util.flatten_dict(tree, sep="/")
  for name, value in flat.items():
    if np.asarray(value).dtype.kind not in "fiub":
      raise UserError(f"{name} is {np.asarray(value).dtype}: export keeps numbers only")
  return {name: np.asarray(value) for name, value in sorted(flat.items())}


def _inputs(method, info, image_size=0) -> dict[str, jax.ShapeDtypeStruct]:
  """What score reads, as it was trained: {"image": [b,H,W,C]} with a symbolic b.

  Args:
    image_size: another H and W, one number or a pair; 0 = those of training.
  """
  needs = tuple(method.score_needs)
  spec = (info.get("batches") or {}).get(info["stage"]) or {}
  streams = [spec, *(v for v in spec.values() if isinstance(v, dict))]
  b, = jax_export.symbolic_shape("b")
  inputs = {}
  for name in needs:
    found = next((s[name] for s in streams if name in s), None)
    if found is None:
      raise UserError(f"the checkpoint does not tell the shape of {name!r}, which "
                       f"{method.config.method.name} needs to score; train or convert it again")
    rest = list(found[0][1:])
    if image_size and len(rest) == 3:
      rest[:2] = [image_size] * 2 if np.ndim(image_size) == 0 else list(image_size)
    inputs[name] = jax.ShapeDtypeStruct((b, *rest), found[1])
  return inputs


def _write(folder, run, weights, inputs, formats) -> dict[str, Any]:
  config, method, calibration, info = run.config, run.method, run.calibration, run.info
  score = score_function(method)
  shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in weights.items()}
  try:
    program = jax_export.export(jax.jit(score), platforms=PLATFORMS)(shapes, inputs)
  except (TypeError, ValueError, jax.errors.InconclusiveDimensionOperation) as e:
    raise UserError(f"score of {config.method.name} cannot be exported for any batch size: "
                     f"{str(e).splitlines()[0][:200]}") from e
  if "stablehlo" in formats:
    (folder / "score.stablehlo").write_bytes(program.serialize())
    if _EXAMPLE.is_file():
      shutil.copy(_EXAMPLE, folder / _EXAMPLE.name)
  if "weights" in formats or "stablehlo" in formats:  # the program cannot run without them
    np.savez(folder / "weights.npz", **weights)
  if "safetensors" in formats:
    from safetensors.numpy import save_file  # pylint: disable=import-outside-toplevel
    save_file(weights, folder / "weights.safetensors", metadata={"format": FORMAT})
  if "saved_model" in formats:
    _saved_model(folder / "saved_model", score, weights, inputs)
  write_json(folder / "config.json", json.loads(config.to_json_best_effort()))
  if calibration is not None:
    write_json(folder / calibrate.FILE, calibration)
  parity = _parity(folder, method, score, weights, inputs) if "stablehlo" in formats else None
  manifest = {
      "format": FORMAT, "method": config.method.name, "needs": {k: str(v) for k, v in method.needs.items()},
      "checkpoint": {"which": info["which"], "step": info["step"]},
      "calibrated": calibration is not None, "platforms": PLATFORMS, "batch": "any",
      "inputs": {k: {"shape": [str(d) for d in v.shape], "dtype": str(v.dtype)}
                 for k, v in inputs.items()},
      "outputs": {k: {"shape": [str(d) for d in v.shape], "dtype": str(v.dtype)}
                  for k, v in _outputs(program).items()},
      "parity": parity, "versions": {"jax": jax.__version__, "numpy": np.__version__},
      "files": {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
                for p in sorted(folder.rglob("*")) if p.is_file()}}
  (folder / "README.txt").write_text(_readme(manifest), encoding="utf-8")
  write_json(folder / "manifest.json", manifest)
  return manifest


def _outputs(program):
  return jax.tree.unflatten(program.out_tree, program.out_avals)


def _parity(folder, method, score, weights, inputs) -> dict[str, float]:
  """Largest |difference| of each output between the written files and `score`, on two examples.

  Raises:
    ValueError: they differ by more than float32 rounding (1e-4 of the output's range).
  """
  rng = np.random.default_rng(0)
  batch = {k: (rng.random((2, *v.shape[1:])) * (1 if v.dtype.kind == "f" else 2)).astype(v.dtype)
           for k, v in inputs.items()}
  want = jax.jit(score)(weights, batch)
  got = load(folder)(batch)
  worst = {}
  for name, value in want.items():
    value, found = np.asarray(value, np.float64), np.asarray(got[name], np.float64)
    worst[name] = float(np.max(np.abs(value - found), initial=0.0))
    if not worst[name] <= 1e-4 * max(1.0, np.max(np.abs(value), initial=0.0)):
      raise UserError(f"the exported {method.config.method.name} differs from score by "
                       f"{worst[name]:g} in {name!r}: nothing was written")
  return worst


def load(folder: str | os.PathLike):
  """batch {"image": numpy [B,H,W,C]} -> outputs, by the files of an export alone.

  Raises:
    FileNotFoundError: not such a folder.
  """
  folder = pathlib.Path(folder)
  program = jax_export.deserialize(bytearray((folder / "score.stablehlo").read_bytes()))
  with np.load(folder / "weights.npz", allow_pickle=False) as arrays:
    weights = jax.device_put(dict(arrays))
  call = jax.jit(program.call)
  return lambda batch: call(weights, batch)


def _saved_model(folder, score, weights, inputs) -> None:
  """TensorFlow SavedModel with one signature: named inputs -> named outputs, any batch size."""
  try:
    import tensorflow as tf  # pylint: disable=import-outside-toplevel
    from jax.experimental import jax2tf  # pylint: disable=import-outside-toplevel
  except ImportError as e:
    raise UserError(f"the saved_model format needs TensorFlow ({e}); pip install tensorflow-cpu, "
                     "or leave it out") from e
  module = tf.Module()
  module.weights = {name.replace("/", "."): tf.Variable(value, trainable=False)
                    for name, value in weights.items()}
  shapes = {k: ", ".join(str(d) for d in v.shape) for k, v in inputs.items()}
  converted = jax2tf.convert(
      score, with_gradient=False, polymorphic_shapes=[None, shapes],
      native_serialization_platforms=PLATFORMS)
  # One keyword argument an input, so that the signature carries the names.
  def call(**batch):
    return converted({k.replace(".", "/"): v for k, v in module.weights.items()}, batch)
  module.score = tf.function(call, autograph=False)
  signature = module.score.get_concrete_function(**{
      k: tf.TensorSpec([None, *v.shape[1:]], v.dtype, name=k) for k, v in inputs.items()})
  one = {k: tf.zeros([1, *v.shape[1:]], v.dtype) for k, v in inputs.items()}
  try:
    signature(**one)
  except tf.errors.InvalidArgumentError as e:
    if "deserialize" not in str(e):
      raise
    raise UserError(f"TensorFlow {tf.__version__} cannot read the programs of JAX {jax.__version__}: "
                     "for the saved_model format export with jax<0.11 or a newer TensorFlow, or "
                     "leave it out of config.export.formats") from e
  tf.saved_model.save(module, str(folder), signatures=signature)


def _readme(manifest) -> str:
  lines = lambda part: "\n".join(f"  {name}: {v['dtype']} [{', '.join(v['shape'])}]"
                                 for name, v in manifest[part].items())
  calibrated = ("thresholds and colour scales chosen on the validation split"
                if manifest["calibrated"] else "absent: evaluate had not run, there is no threshold")
  step = manifest["checkpoint"]["step"]
  return f"""Anomaly score of method {manifest["method"]}, checkpoint of step {step}.

Run it (needs `pip install jax` only):
  python run_exported.py image.npy            one image [H,W,C] or a batch [B,H,W,C], float32

score.stablehlo takes (weights, inputs) and returns outputs; b is any batch size.
inputs
{lines("inputs")}
outputs (score: higher = more abnormal; map: the same per pixel)
{lines("outputs")}
The program expects {"; ".join(f"{k}: {v}" for k, v in manifest["needs"].items())}, prepared as the
group "data" of config.json says. calibration.json: {calibrated}.
Platforms: {", ".join(manifest["platforms"])}. Newer JAX versions load StableHLO files for months, not
years (written with JAX {manifest["versions"]["jax"]}); weights.npz with config.json and the medae_jax
package outlive that. manifest.json has checksums.
"""
