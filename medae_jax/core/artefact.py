"""The folder that export writes: its format, checks, replacement as a whole, loading, its README."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import glob
import hashlib
import json
import os
import pathlib
from typing import Any

import jax
from jax import export as jax_export
import numpy as np

from medae_jax.core import places, scratch
from medae_jax.core.errors import UserError

FORMAT = "medae_jax export 1"


def check_target(out: pathlib.Path) -> None:
  """Refuses a target that exists, unless it is an earlier export or an empty folder."""
  if not out.exists():
    return places.check_folder(out, "--output")
  if out.is_dir() and not any(out.iterdir()):
    return None
  if not is_export(out):
    raise UserError(f"{out} exists and is not an export of medae_jax: it is left alone; "
                     "choose another --output")
  if mine := _others(out):
    raise UserError(f"{out} holds what no export has written (files: {len(mine)}, the first {mine[0]}) and "
                    "would be replaced as a whole: move them away, or choose another --output")


def _others(folder: pathlib.Path) -> list[str]:
  """Files in an exported folder that are not of the export: predict without --output writes beside it."""
  known = json.loads((folder / "manifest.json").read_text(encoding="utf-8")).get("files")
  there = [p.relative_to(folder) for p in sorted(folder.rglob("*")) if p.is_file()]
  own = (*(known or ()), "manifest.json", "README.txt", "error.log")
  found = [p.as_posix() for p in there if not any(part.startswith((".", "__pycache__")) for part in p.parts)]
  return [name for name in found if name not in own] if known else []


def is_export(folder: pathlib.Path) -> bool:
  """Whether a folder has the manifest of an export."""
  try:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return manifest["format"].startswith("medae_jax export")
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    return False


@contextlib.contextmanager
def replacing(out: pathlib.Path) -> Iterator[pathlib.Path]:
  """A temporary folder beside `out` that takes its place when the block ends well.

  What was there goes only after the new one is in place; of a block that fails, nothing is left.
  """
  out.parent.mkdir(parents=True, exist_ok=True)
  prefix = f".{out.name[:100]}.export-"
  _put_back(out, prefix)
  scratch.remove_litter(out.parent, prefix)
  with scratch.folder(out.parent, prefix) as temporary:
    new = temporary / "new"
    new.mkdir()
    yield new
    if out.exists():
      out.rename(temporary / "old")
    new.rename(out)


def _put_back(out: pathlib.Path, prefix: str) -> None:
  """The former export where a run was killed between taking it away and placing the new one."""
  for old in out.parent.glob(glob.escape(prefix) + "*/old") if not out.exists() else ():
    old.rename(out)
    return


def checksums(folder: pathlib.Path) -> dict[str, str]:
  """{relative path: sha256} of all files in a folder."""
  return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
          for p in sorted(folder.rglob("*")) if p.is_file()}


def fixed_fields(config: Mapping[str, Any]) -> str:
  """sha256 of what config.json says beyond predict, which may be edited in an exported folder."""
  fixed = {group: value for group, value in config.items() if group != "predict"}
  return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


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


def write_saved_model(folder, score, weights, inputs, platforms) -> None:
  """TensorFlow SavedModel with one signature: named inputs -> named outputs, any batch size.

  Raises:
    UserError: TensorFlow is missing, or cannot read this JAX's programs.
  """
  try:
    from jax.experimental import jax2tf
    import tensorflow as tf
  except ImportError as e:
    raise UserError(f"the saved_model format needs TensorFlow ({e}); pip install tensorflow-cpu, "
                     "or leave it out") from e
  module = tf.Module()
  module.weights = {name.replace("/", "."): tf.Variable(value, trainable=False)
                    for name, value in weights.items()}
  shapes = {k: ", ".join(str(d) for d in v.shape) for k, v in inputs.items()}
  converted = jax2tf.convert(
      score, with_gradient=False, polymorphic_shapes=[None, shapes],
      native_serialization_platforms=platforms)
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


def _how(manifest) -> str:
  """The commands that the folder can be run with."""
  lines = []
  if manifest.get("requirements_onnx"):
    lines += ["Files in, maps out, without JAX (pip install -r requirements.txt):",
              "  python run_onnx.py SCAN_OR_FOLDER OUTPUT    NIfTI, DICOM, PNG: map, mask, score, verdict"]
  if "score.stablehlo" in manifest["files"]:
    lines += ["Prepared arrays (pip install jax flatbuffers):",
              "  python run_exported.py image.npy            an image [H,W,C] or a batch [B,H,W,C], float32,",
              "    of the size below; what is merely resized to it gets another score",
              "  Files prepared and scored without medae_jax: export again with --formats=onnx"]
    lines += ["With medae_jax, as the workdir of the run (FOLDER: this one):",
              "  medae --mode=serve --workdir=FOLDER          a page and an HTTP API on this computer",
              "  medae --mode=predict --workdir=FOLDER --input=SCANS --output=MAPS",
              "  in Python: medae_jax.load('FOLDER').score('scan.png'), prepared as in training"]
  if "score.onnx" in manifest["files"]:
    lines += ["score.onnx: the same with the weights inside. OpenVINO reads it, too; on CPUs with bfloat16",
              "  set INFERENCE_PRECISION_HINT=f32."]
  return "\n".join(lines)


def readme(manifest) -> str:
  """README.txt of an export, out of its manifest."""
  lines = lambda part: "\n".join(f"  {name}: {v['dtype']} [{', '.join(v['shape'])}]"
                                 for name, v in manifest[part].items())
  calibrated = ("thresholds and colour scales chosen on the validation split"
                if manifest["calibrated"] else "absent: evaluate had not run, there is no threshold")
  step = manifest["checkpoint"]["step"]
  return f"""Anomaly score of method {manifest["method"]}, checkpoint of step {step}.

{_how(manifest)}

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
