"""Export: checkpoint -> a folder that scores images without this package.

  score.stablehlo   the score function (jax.export: CPU, CUDA and TPU in one file, any batch size)
  weights.npz       its parameters, read with numpy.load(..., allow_pickle=False)
  config.json, calibration.json (where evaluate has run), trained_on.json, manifest.json, README.txt,
  run_exported.py   under 45 lines; runs the folder with jax and flatbuffers alone
  score.onnx, run_onnx.py, preparation/, requirements.txt   of the format onnx: files in, maps out, no JAX
  score_fp16.onnx, score_int8.onnx   of the formats onnx_fp16, onnx_int8; manifest.json has their loss of AP

The weights are an argument of the program, not constants inside it: measured on the reference DAE
the program is 71 kB instead of 31 MB, compiles faster (XLA folds nothing), and the weights stay
readable, checkable and exchangeable without JAX. The *folder* is the self-contained unit
(core/artefact.py). StableHLO files are promised to load for months, not years; weights.npz and
config.json outlive them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
import shutil
from typing import Any

from absl import logging
import flax.traverse_util
import jax
from jax import export as jax_export
import numpy as np

from data_pipelines import dataset as datasets
from medae_jax.core import (
  artefact,
  calibration as calibration_lib,
  config as config_lib,
  needs as needs_lib,
  parallel,
  places,
  scoring,
  trained,
)
from medae_jax.core.artefact import load
from medae_jax.core.errors import UserError
from medae_jax.core.exported import onnx, precision, preparation
from medae_jax.core.files import write_json
from medae_jax.core.method import State
from medae_jax.core.trained_on import record
from medae_jax.models.layers import conv_forms
from medae_jax.reporting import text_table
from medae_jax.tasks import precision as measured

PLATFORMS = ("cpu", "cuda", "tpu")
_EXAMPLE = places.folder("examples") / "run_exported.py"


def export(workdir: str | os.PathLike, out_dir: str | os.PathLike | None = None,
           formats: Sequence[str] | None = None,
           overrides: Mapping[str, Any] | None = None) -> pathlib.Path:
  """Writes the artefact, whole or not at all, and checks it against `score`.

  Args:
    workdir: of a training run or of `convert`. Its calibration.json, if any, is applied.
    out_dir: default <workdir>/export. An earlier export there is replaced; a folder that is
      anything else, or holds files of others beside the export's, is refused.
    formats: of stablehlo, weights, safetensors, saved_model (needs TensorFlow), onnx, onnx_fp16, onnx_int8
      (need jax2onnx and onnxruntime; the last two read the run's data to measure their loss); default
      config.export.formats.
    overrides: {"method.score.median": 0, ...} on top of the workdir's config;
      export.image_size = 256 or (H, W) exports for another size than that of training.

  Returns:
    The folder.

  Raises:
    FileNotFoundError: no checkpoint.
    ValueError: unknown format, foreign folder, score that cannot be exported, parity lost.
  """
  out = pathlib.Path(places.home(os.fspath(out_dir or pathlib.Path(workdir) / "export"))).absolute()
  artefact.check_target(out)
  changed = {**(overrides or {}), **({"export.formats": tuple(formats)} if formats else {})}
  run = trained.load(workdir, changed, splits=True)
  scoring.check_fields(run, workdir)
  if "predict.force" in changed:  # of this command alone: whoever scores with the export insists himself
    run = run.override({"predict.force": config_lib.read_config(workdir).predict.force})
  if "norm_kernel" in run.config.model:  # what is exported runs on any device
    run = run.override({"model.norm_kernel": "plain"})
  weights = _weights(run.method.inference_state(run.state))
  inputs = _inputs(run.config, run.method, run.info, run.config.export.image_size)
  with artefact.replacing(out) as temporary, conv_forms.never():  # any device
    manifest = _write(temporary, pathlib.Path(workdir), run, weights, inputs, run.config.export.formats)
    for path in temporary.rglob("*"):
      path.chmod(0o755 if path.is_dir() else 0o644)  # a server under another user reads all of it
  logging.info("Exported step %d (%s checkpoint) to %s (%s). Largest difference to score: %s",
               run.info["step"], run.info["which"], out,
               ", ".join(dict.fromkeys(f.split("/")[0] for f in manifest["files"])),
               text_table.words({**(manifest["parity"] or {}), **{f"{k} by onnxruntime": v for k, v in (
                   manifest["parity_onnx"] or {}).items()}}) or "none")
  return out


def score_function(method, step: int):
  """(weights {name: array}, batch {"image": [B,H,W,C]}) -> outputs of method.score at `step`."""
  def score(weights, batch):
    groups = flax.traverse_util.unflatten_dict(dict(weights), sep="/")
    parts = {k: groups.get(k, {}) for k in ("params", "stats", "extra")}
    return method.score(State.create(**parts).replace(step=np.int32(step)), batch)
  return score


# ----------------------------------------------------------------------------------------- pieces
def _weights(state: State) -> dict[str, np.ndarray]:
  """{"params/net/...": array} of an inference state."""
  state = parallel.to_host(state.replace(opt={}, step=np.zeros((), np.int32)))
  tree = {"params": state.params, "stats": state.stats, "extra": state.extra}
  flat = flax.traverse_util.flatten_dict(tree, sep="/")
  for name, value in flat.items():
    if np.asarray(value).dtype.kind not in "fiub":
      raise UserError(f"{name} is {np.asarray(value).dtype}: export keeps numbers only")
  return {name: np.asarray(value) for name, value in sorted(flat.items())}


def _inputs(config, method, info, image_size) -> dict[str, jax.ShapeDtypeStruct]:
  """What score reads, as it was trained: {"image": [b,H,W,C]} with a symbolic b.

  Args:
    image_size: another H and W, one number or a pair; 0 or () = those of training.
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
                       f"{config.method.name} needs to score; train or convert it again")
    rest = list(found[0][1:])
    if np.any(image_size) and len(rest) == 3:
      rest[:2] = np.broadcast_to(image_size, 2).tolist()
    inputs[name] = jax.ShapeDtypeStruct((b, *rest), found[1])
  return inputs


def _write(folder, run_folder, run, weights, inputs, formats) -> dict[str, Any]:
  config, method, calibration, info = run.config, run.method, run.calibration, run.info
  score = score_function(method, info["step"])  # networks that fade in look at the step
  shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in weights.items()}
  try:
    program = jax_export.export(jax.jit(score), platforms=PLATFORMS)(shapes, inputs)
  except UserError:  # the network says what does not fit
    raise
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
    from safetensors.numpy import save_file
    save_file(weights, folder / "weights.safetensors", metadata={"format": artefact.FORMAT})
  if {"saved_model", "savedmodel"} & set(formats):
    artefact.write_saved_model(folder / "saved_model", score, weights, inputs, PLATFORMS)
  written = json.loads(config.to_json_best_effort())
  write_json(folder / "config.json", written)
  if calibration is not None:
    write_json(folder / calibration_lib.FILE, calibration)
  if (run_folder / record.FILE).is_file():  # what inputs are compared with
    shutil.copyfile(run_folder / record.FILE, folder / record.FILE)
  parity = _parity(folder, config, score, weights, inputs) if "stablehlo" in formats else None
  by_onnx, at_once, requirements = None, None, []
  smaller = [f for f in precision.FILES if f in formats]
  if "onnx" in formats or smaller:
    by_onnx, at_once = onnx.write(folder / onnx.FILE, score, weights, inputs, sorted(_outputs(program)))
    requirements = _preparation(folder, run, inputs, _outputs(program))
  cost = _smaller(folder, config, inputs, smaller, 1 if at_once == 1 else 8) if smaller else None
  manifest = {
      "format": artefact.FORMAT, "method": config.method.name,
      "needs": {k: str(v) for k, v in method.needs.items()},
      "range": {k: [n.low, n.high] for k in inputs for n in [needs_lib.of(method.needs, k)]},
      "checkpoint": {"which": info["which"], "step": info["step"]},
      "calibrated": calibration is not None, "platforms": PLATFORMS, "batch": "any",
      "inputs": {k: {"shape": [str(d) for d in v.shape], "dtype": str(v.dtype)}
                 for k, v in inputs.items()},
      "outputs": {k: {"shape": [str(d) for d in v.shape], "dtype": str(v.dtype)}
                  for k, v in _outputs(program).items()},
      "parity": parity, "parity_onnx": by_onnx, "batch_onnx": at_once, "requirements_onnx": requirements,
      "precision": cost,
      "versions": {"jax": jax.__version__, "numpy": np.__version__},
      "config": artefact.fixed_fields(written), "files": artefact.checksums(folder)}
  (folder / "README.txt").write_text(artefact.readme(manifest), encoding="utf-8")
  write_json(folder / "manifest.json", manifest)
  return manifest


def _preparation(folder, run, inputs, outputs) -> list[str]:
  """Ships the preparation of files where the score is a map of one image; else [] and a line that says so."""
  data = run.config.data
  if run.config.eval.kind != "anomaly" or set(inputs) != {"image"} or "map" not in outputs:
    why = ("gives no map" if "map" not in outputs else f"reads {', '.join(inputs)}" if len(inputs) > 1
           else f"is of {run.config.eval.kind}")
    logging.warning("score.onnx goes without run_onnx.py and the preparation of files, which write anomaly "
                    "maps of single images: this score %s.", why)
    return []
  if data.name not in datasets.dataset_names():
    logging.warning("score.onnx goes without the preparation of files: %s is not of this package.", data.name)
    return []
  return preparation.write(folder, data.name, bool(data.get("modalities", ())))


def _smaller(folder, config, inputs, formats, batch_size) -> dict[str, Any]:
  """Half precision and 8 bits beside score.onnx, and what they cost on the run's own data."""
  paths = [folder / onnx.FILE, *(precision.write(folder, kind) for kind in formats)]
  if set(inputs) != {"image"}:
    cost: dict[str, Any] = {"not_measured": f"the score reads {', '.join(inputs)}"}
  else:
    cost = measured.measure(config, paths, batch_size)
  if "not_measured" in cost:
    logging.warning("What %s cost is not measured: %s", ", ".join(formats), cost["not_measured"])
  for name, one in cost.get("files", {}).items():
    logging.info("%s: %s bytes, map differs by at most %s, image AP %s (loss %s), pixel AP %s (loss %s)",
                 name, *(one[k] if one[k] is None or k == "bytes" else f"{one[k]:.4g}" for k in (
                     "bytes", "map_difference", "image_ap", "image_ap_loss", "pixel_ap", "pixel_ap_loss")))
  return cost


def _outputs(program):
  return jax.tree.unflatten(program.out_tree, program.out_avals)


def _parity(folder, config, score, weights, inputs) -> dict[str, float]:
  """Largest |difference| of each output between the written files and `score`, on two examples.

  Raises:
    UserError: they differ by more than float32 rounding (1e-4 of the output's range).
  """
  rng = np.random.default_rng(0)
  batch = {k: (rng.random((2, *v.shape[1:])) * (1 if v.dtype.kind == "f" else 2)).astype(v.dtype)
           for k, v in inputs.items()}
  with scoring.memory_explained("checking the exported program on two examples",
                                "make config.export.image_size smaller"):
    want = jax.tree.map(np.asarray, jax.jit(score)(weights, batch))
    got = jax.tree.map(np.asarray, load(folder)(batch))
  worst = {}
  for name, value in want.items():
    value, found = np.asarray(value, np.float64), np.asarray(got[name], np.float64)
    worst[name] = float(np.max(np.abs(value - found), initial=0.0))
    if not worst[name] <= 1e-4 * max(1.0, np.max(np.abs(value), initial=0.0)):
      raise UserError(f"the exported {config.method.name} differs from score by "
                       f"{worst[name]:g} in {name!r}: nothing was written")
  return worst


