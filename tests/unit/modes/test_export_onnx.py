"""ONNX: the file itself where jax2onnx is installed; the folder that goes with it, without JAX."""

import csv
import importlib
import json
import os
import subprocess
import sys
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest

from medae_jax import export
from medae_jax.core import artefact, checks, files
from medae_jax.core.errors import UserError
from medae_jax.core.exported import onnx, preparation
from medae_jax.metrics import components
from medae_jax.tasks.anomaly.predictor import Predictor
from tests.unit import fake_run
from tests.unit.modes.test_export import images, make_run

SESSION = """
import numpy as np
class InferenceSession:
  def __init__(self, path, providers):
    assert path.endswith("score.onnx")
  def run(self, names, batch):
    amap = np.abs(batch["image"] - 0.5).mean(-1, keepdims=True)
    return [amap, amap.mean((1, 2, 3))]
"""


def session():
  module = types.ModuleType("onnxruntime")
  exec(SESSION, module.__dict__)
  return module


def test_the_folder_gives_the_files_of_predict_without_jax(tmp_path):
  """Maps and masks on the input's grid, scores and verdicts, by a process that sees this folder alone."""
  rng, folder, scans = np.random.default_rng(0), tmp_path / "exported", tmp_path / "scans"
  folder.mkdir()
  for name in ("a", "b"):
    for modality in ("flair", "t1"):
      volume = rng.integers(1, 900, (20, 18, 5)).astype(np.int16)
      volume[:3] = 0
      (scans / name).mkdir(parents=True, exist_ok=True)
      nibabel.save(nibabel.Nifti1Image(volume, np.diag([-1.0, -1, 2, 1])),
                   scans / name / f"{name}_{modality}.nii.gz")
  config = fake_run.config(name="brats", orientation="LPS", placement="anatomy", field_mm=32.0, unit="median")
  calibration = {"threshold": 0.2, "components": 4, "scan_unit": "scan", "scan_scores": [0.01, 0.2, 0.9],
                 "scan_threshold": 0.05}
  for name, value in (("config", config.to_dict()), ("calibration", calibration),
                      ("manifest", {"inputs": {"image": {"shape": ["b", "16", "20", "2"]}}})):
    files.write_json(folder / f"{name}.json", value)
  needed = preparation.write(folder, "brats", volumes=True)
  assert needed == ["nibabel", "numpy", "onnxruntime", "pillow", "pydicom"]
  (folder / "onnxruntime.py").write_text(SESSION)
  code = ("import runpy, sys; sys.path.insert(0, %r); sys.argv = ['run', %r, %r]\n"
          "try: runpy.run_path(%r, run_name='__main__')\n"
          "except SystemExit as e: assert not e.code\n"
          "bad = {m.split('.')[0] for m in sys.modules} & {'jax', 'tensorflow', 'medae_jax'}\n"
          "assert not bad, bad" % tuple(map(str, (folder, scans, tmp_path / "out", folder / "run_onnx.py"))))
  done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True,
                        env={"PATH": os.environ["PATH"]}, check=False)
  assert done.returncode == 0, done.stderr
  run = session().InferenceSession("score.onnx", ())
  judge = Predictor(config, calibration, lambda batch: dict(zip(("map", "score"), run.run((), batch))))
  judge.image_shape = (16, 20, 2)
  rows = list(csv.DictReader(open(tmp_path / "out/predictions.csv")))
  for scan, row in zip(judge.find_inputs(scans), rows, strict=True):
    want = judge.predict_one(scan, tmp_path)
    for key in ("score", "p_value", "called_abnormal", "mask_voxels", "mask_ml"):
      assert float(row[key]) == pytest.approx(want[key], rel=1e-6), key
    for kind in ("anomaly", "mask"):
      got, own = (nibabel.load(f / f"{scan.name}_{kind}.nii.gz") for f in (tmp_path / "out", tmp_path))
      np.testing.assert_allclose(got.get_fdata(), own.get_fdata(), atol=1e-6)
      np.testing.assert_array_equal(got.affine, own.affine)
  assert want["mask_voxels"] > 0


def test_a_folder_that_is_not_as_it_was_exported_is_refused(tmp_path, monkeypatch):
  """Weights, thresholds, what says SYNTHETIC, the preparation, and of the config all but predict."""
  monkeypatch.setitem(sys.modules, "onnxruntime", session())
  monkeypatch.setattr(sys, "path", sys.path[:])
  runner = importlib.import_module("examples.run_onnx")
  monkeypatch.delitem(sys.modules, "examples.run_onnx")
  config = {"data": {"modalities": ["flair"]}, "predict": {"threshold": 0.0}, "eval": {}}
  decide = ("score.onnx", "calibration.json", "trained_on.json", "preparation/data_pipelines/errors.py")
  for name in (*decide, "score.stablehlo"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("{}")
  files.write_json(tmp_path / "config.json", config)
  files.write_json(tmp_path / "manifest.json", {
      "inputs": {"image": {"shape": ["b", "8", "8", "1"]}}, "config": artefact.fixed_fields(config),
      "files": artefact.checksums(tmp_path)})
  files.write_json(tmp_path / "config.json", {**config, "predict": {"threshold": 0.3}})
  (tmp_path / "score.stablehlo").unlink()  # no part of what is run here
  assert runner.Folder(tmp_path).threshold == 0.3
  for name in decide:
    for change in (lambda path: path.write_text("{ }"), lambda path: path.unlink()):
      change(tmp_path / name)
      with pytest.raises(SystemExit, match=f"{name} is missing, or not the file"):
        runner.Folder(tmp_path)
    (tmp_path / name).write_text("{}")
  files.write_json(tmp_path / "config.json", {**config, "data": {"modalities": ["t1"]}})
  with pytest.raises(SystemExit, match="config.json is not the one that was exported"):
    runner.Folder(tmp_path)


def test_components_without_scipy_are_those_of_predict(monkeypatch):
  monkeypatch.setitem(sys.modules, "onnxruntime", session())
  runner = importlib.import_module("examples.run_onnx")
  monkeypatch.delitem(sys.modules, "examples.run_onnx")
  rng = np.random.default_rng(1)
  volumes = [rng.random((4, 12, 11)) < share for share in (0, 0.05, 0.15, 0.4)]
  shell = np.zeros((5, 5, 5), bool)  # 26 voxels around a cavity
  shell[1:4, 1:4, 1:4] = True
  shell[2, 2, 2] = False
  for volume, most in [*((v, m) for v in volumes for m in (0, 1, 4, 20)), (shell, 26), (shell, 27)]:
    want = components.remove_small_components(volume, most)
    np.testing.assert_array_equal(runner.large(volume, most), want)


def test_what_is_missing_is_said(tmp_path, monkeypatch):
  make_run(tmp_path / "run")
  monkeypatch.setitem(sys.modules, "jax2onnx", None)
  with pytest.raises(UserError, match=r"needs jax2onnx and onnxruntime .*medae-jax\[onnx\]"):
    export.export(tmp_path / "run", tmp_path / "out", ("onnx",))
  assert not (tmp_path / "out").exists()
  assert not checks.RULES["export.formats"](("savedmodel", "onnx"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
  """(folder of all ONNX formats, onnxruntime), of the default for brains: noise draws, one of them on the
  mirrored image, and the guided filter. Skipped without jax2onnx, but not in CI."""
  need = importlib.import_module if os.environ.get("CI") else pytest.importorskip
  need("jax2onnx")
  runtime, place = need("onnxruntime"), tmp_path_factory.mktemp("onnx")
  make_run(place / "run", score={"test_noise_draws": 2, "test_noise_mirror": 2, "saturation": 0.4,
                                 "guided": 2, "guided_eps": 1e-3, "guide_channel": 0})
  return export.export(place / "run", place / "out", ("stablehlo", "onnx_fp16", "onnx_int8")), runtime


def test_onnx_by_onnxruntime(exported):
  """Named inputs and outputs, any batch size, parity in the manifest."""
  folder, runtime = exported
  manifest = json.loads((folder / "manifest.json").read_text())
  assert set(manifest["parity_onnx"]) == {"map", "recon", "score"}
  assert max(manifest["parity_onnx"].values()) < 1e-5
  opened = runtime.InferenceSession(str(folder / onnx.FILE), providers=["CPUExecutionProvider"])
  assert [i.name for i in opened.get_inputs()] == ["image"]
  for n in (1, 4):
    want = export.load(folder)({"image": images(n)})
    for name, value in zip(("map", "score"), opened.run(["map", "score"], {"image": images(n)})):
      np.testing.assert_allclose(value, want[name], atol=1e-5)


def test_smaller_files_and_their_loss_in_the_manifest(exported):
  """The same names and shapes in half precision and 8 bits; what they cost is measured or said not to be."""
  folder, runtime = exported
  cost = json.loads((folder / "manifest.json").read_text())["precision"]
  assert set(cost) & {"files", "not_measured"}
  want = runtime.InferenceSession(str(folder / onnx.FILE)).run(["map"], {"image": images(3)})[0]
  for name in ("score_fp16", "score_int8"):
    got = runtime.InferenceSession(str(folder / f"{name}.onnx")).run(["map"], {"image": images(3)})[0]
    assert got.shape == want.shape and got.dtype == np.float32
    assert np.abs(got - want).max() < 0.2 * max(np.abs(want).max(), 0.1)


def _fakes(monkeypatch, fails):
  """jax2onnx, onnx and onnxruntime: a file is the function, run by JAX; `fails(batch)` raises or not."""
  kept = {}

  class Runtime:
    def __init__(self, path, providers):
      self._call = kept["call"]

    def run(self, names, batch):
      assert kept["batch"] in ("B", len(batch["image"]))
      return [np.asarray(v) for v in self._call(batch["image"])]

  def to_onnx(call, inputs, **_):
    fails(inputs[0][0])
    kept.update(call=call, batch=inputs[0][0])
  for name, members in (("jax2onnx", {"to_onnx": to_onnx}), ("onnx", {"save": lambda model, path: None}),
                        ("onnxruntime", {"InferenceSession": Runtime})):
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**members))


def test_one_image_at_a_time_where_no_other_batch_can_be_translated(tmp_path, monkeypatch, caplog):
  inputs = {"image": jax.ShapeDtypeStruct((2, 6, 5, 1), np.float32)}

  weights = {"gain": np.float32([2.0]), "kernel": np.random.default_rng(0).random((4, 4, 1, 1), np.float32)}

  def score(weights, batch):  # what methods do that jax2onnx has no translation of: see onnx.write
    amap = jax.image.resize(weights["gain"][0] * batch["image"], (len(batch["image"]), 4, 8, 1), "bilinear")
    conv = nn.ConvTranspose(1, (4, 4), (2, 2), [(1, 2), (1, 2)])
    amap = conv.apply({"params": {"kernel": weights["kernel"], "bias": weights["gain"]}}, amap)
    return {"map": jax.lax.scan(lambda x, _: (x + 0.1 * x * x, None), amap, length=3)[0]}

  def write(fails):
    _fakes(monkeypatch, fails)
    return onnx.write(tmp_path / "x.onnx", score, weights, inputs, ["map"])

  def symbolic(batch):
    if batch == "B":
      raise TypeError("no number")

  def never(batch):
    raise KeyError("prim")
  sizes, measured = [], onnx._apart
  monkeypatch.setattr(onnx, "_apart", lambda *given: sizes.append(given[-1]) or measured(*given))
  apart, at_once = write(lambda batch: None)
  assert at_once == "any" and apart["map"] < 1e-4 and not caplog.text
  assert sizes == [1, 3]  # a batch axis that became a constant shows
  apart, at_once = write(symbolic)
  assert at_once == 1 and apart["map"] < 1e-4 and "one image at a time" in caplog.text
  with pytest.raises(UserError, match="jax2onnx cannot translate this score .*leave onnx out of --formats"):
    write(never)


@pytest.mark.parametrize("size", [(3, 20), (24, 4)])
@pytest.mark.parametrize("antialias", [True, False])
def test_maps_are_resized_as_jax_does(size, antialias):
  x = np.random.default_rng(0).random((2, 12, 10, 3), np.float32)
  shape = (2, *size, 3)
  np.testing.assert_allclose(onnx._resized(jnp.asarray(x), shape, "bilinear", antialias),
                             jax.image.resize(x, shape, "bilinear", antialias), atol=1e-6)


def test_borders_and_repeats_are_those_of_jax():
  x = np.random.default_rng(0).random((2, 4, 3, 1), np.float32)
  widths = ((0, 0), (2, 1), (3, 0), (0, 0))
  for mode in ("edge", "constant"):
    np.testing.assert_array_equal(onnx._padded(jnp.pad)(x, widths, mode=mode), np.pad(x, widths, mode))
  for repeats, axis in ((3, -1), (2, 1), (2, None)):
    found = onnx._repeated(jnp.repeat)(x, repeats, axis=axis)
    np.testing.assert_array_equal(found, np.repeat(x, repeats, axis))
  np.testing.assert_array_equal(onnx._repeated(jnp.repeat)(x, 2), np.repeat(x, 2))
  step = lambda i, v: (v + i) * 2
  for high in (5, 40):
    assert int(onnx._counted(jax.lax.fori_loop)(2, high, step, jnp.int32(1))) == int(
        jax.lax.fori_loop(2, high, step, jnp.int32(1)))
  with onnx._translatable():
    assert jnp.pad.__module__ == onnx.__name__ and jnp.pad(x, widths, mode="edge").shape == (2, 7, 6, 1)
  assert jnp.pad.__module__.startswith("jax")


def test_inputs_keep_their_names_whatever_their_order(tmp_path):
  need = importlib.import_module if os.environ.get("CI") else pytest.importorskip
  need("jax2onnx"), need("onnxruntime")
  score = lambda weights, batch: {"score": (batch["b"] - weights["k"] * batch["a"]).mean((1, 2, 3))}
  inputs = {k: jax.ShapeDtypeStruct(("b", 2, 2, 1), np.float32) for k in ("b", "a")}
  worst, _ = onnx.write(tmp_path / "score.onnx", score, {"k": np.float32(3)}, inputs, ["score"])
  assert worst["score"] < 1e-5
