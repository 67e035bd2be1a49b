"""export: the folder alone gives the scores of `score`, for any batch size, and is never half."""

import json
import os
import pathlib
import runpy
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax import export
from medae_jax.core import artefact, checkpoint, example, method as method_lib, trained
from medae_jax.core.errors import UserError
from medae_jax.core.files import write_json
from medae_jax.models.layers import winograd
from tests.unit import tiny_dae

ROOT = pathlib.Path(__file__).resolve().parents[3]


def make_run(workdir, seed=0, **sizes):
  """A workdir with an untrained network."""
  config = tiny_dae.config(**sizes)
  method = method_lib.load(config)
  batch = example.example_batch(method, config, 4)
  state = method.init(jax.random.key(seed), batch)
  checkpoints = checkpoint.Checkpoints(workdir)
  checkpoints.save("last", state, {"stage": "main", "checksum": checkpoint.checksum(state.params),
                                   "batches": {"main": checkpoint.batch_spec(batch)}})
  checkpoints.close()
  write_json(workdir / "config.json", json.loads(config.to_json_best_effort()))
  return method, state


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run")
  method, state = make_run(workdir)
  return workdir, method, state, export.export(workdir)


def images(n, size=16, channels=2):
  return np.random.default_rng(n).random((n, size, size, channels), np.float32)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_same_scores_for_any_batch_size(run, n):
  _, method, state, folder = run
  want = jax.jit(method.score)(state, {"image": jnp.asarray(images(n))})
  got = export.load(folder)({"image": images(n)})
  assert set(got) == set(want)
  for name in want:  # the same operations, fused differently: float32 rounding
    np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_what_is_in_the_folder(run):
  _, _, state, folder = run
  manifest = json.loads((folder / "manifest.json").read_text())
  assert manifest["inputs"] == {"image": {"shape": ["b", "16", "16", "2"], "dtype": "float32"}}
  assert manifest["outputs"]["map"]["shape"] == ["b", "16", "16", "1"]
  assert manifest["platforms"] == ["cpu", "cuda", "tpu"]
  assert max(manifest["parity"].values()) < 1e-5
  assert set(manifest["files"]) == {"score.stablehlo", "weights.npz", "config.json",
                                    "run_exported.py"}
  with np.load(folder / "weights.npz", allow_pickle=False) as weights:
    np.testing.assert_array_equal(weights["params/net/last/kernel"],
                                  state.params["net"]["last"]["kernel"])
    assert len(weights.files) == len(jax.tree.leaves(state.params))
  assert "no threshold" in (folder / "README.txt").read_text()


def test_example_runs_the_folder_with_jax_alone(run, tmp_path, monkeypatch, capsys):
  _, method, state, folder = run
  lines = (ROOT / "examples" / "run_exported.py").read_text().splitlines()
  assert len(lines) < 47
  moved = tmp_path / "elsewhere"
  shutil.copytree(folder, moved)
  np.save(tmp_path / "scan.npy", images(3))
  # -I: no PYTHONPATH, no script folder: neither this package nor TensorFlow can slip in
  code = ("import runpy, sys; sys.argv = ['run', '--dir=%s', '%s']; runpy.run_path('%s');"
          "bad = [m for m in sys.modules if m.split('.')[0] in "
          "('medae_jax', 'flax', 'tensorflow', 'orbax')]; assert not bad, bad"
          % (moved, tmp_path / "scan.npy", moved / "run_exported.py"))
  done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True,
                        text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"}, check=False)
  assert done.returncode == 0, done.stderr
  want = jax.jit(method.score)(state, {"image": jnp.asarray(images(3))})
  printed = [float(line.split()[-1]) for line in done.stdout.splitlines()]
  np.testing.assert_allclose(printed, want["score"], rtol=1e-4)
  np.testing.assert_allclose(np.load(tmp_path / "scan_map.npy"), want["map"], rtol=1e-4, atol=1e-6)
  both = [str(tmp_path / "scan_map.npy"), str(tmp_path / "scan.npy")]
  monkeypatch.setattr(sys, "argv", ["run", f"--dir={moved}", *both])
  runpy.run_path(str(moved / "run_exported.py"))  # *.npy again: its own results are no images
  assert "scan.npy[2] score" in (said := capsys.readouterr().out) and "map" not in said
  monkeypatch.setattr(sys, "argv", ["run", f"--dir={moved}", str(tmp_path / "scan.npy")])
  np.save(tmp_path / "scan.npy", images(3)[:, :8])
  with pytest.raises(SystemExit, match=r"is \[3, 8, 16, 2\]: \[16, 16, 2\] or a batch"):
    runpy.run_path(str(moved / "run_exported.py"))
  for wrong, said in ((images(1) * np.nan, "float32, nan to nan: float32, 0 to inf is needed"),
                      (-images(1), "float32, -"), ((255 * images(1)).astype(np.uint8), "is uint8, "),
                      (images(1)[:0], r"is \[0, 16, 16, 2\]"),
                      (None, "is no array of numbers in an .npy file")):
    np.save(tmp_path / "scan.npy", wrong)
    with pytest.raises(SystemExit, match=said):
      runpy.run_path(str(moved / "run_exported.py"))
  for name in ("weights.npz", "score.stablehlo"):  # one bit
    whole = (moved / name).read_bytes()
    (moved / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(SystemExit, match=f"{name} is not the file that was exported"):
      runpy.run_path(str(moved / "run_exported.py"))
    (moved / name).write_bytes(whole)


def test_other_formats_sizes_and_calibration(tmp_path):
  from safetensors.numpy import load_file
  _, state = make_run(tmp_path / "run")
  write_json(tmp_path / "run" / "calibration.json",
             {"thresholds": {"pixel": 0.25}, "score": {"erosion": 1}})
  folder = export.export(tmp_path / "run", tmp_path / "out", ("stablehlo", "safetensors"),
                         {"export.image_size": (24, 32), "model.norm_kernel": "pallas"})
  np.testing.assert_array_equal(load_file(folder / "weights.safetensors")["params/net/last/bias"],
                                state.params["net"]["last"]["bias"])
  assert json.loads((folder / "calibration.json").read_text())["thresholds"] == {"pixel": 0.25}
  written = json.loads((folder / "config.json").read_text())
  assert written["method"]["score"]["erosion"] == 1
  assert written["model"]["norm_kernel"] == "plain"  # runs on any device
  opened = trained.load(tmp_path / "run")
  config, method, state = opened.config, opened.method, opened.state
  assert config.method.score.erosion == 1  # what was fitted on val is part of the program
  image = np.random.default_rng(0).random((2, 24, 32, 2), np.float32)
  got = export.load(folder)({"image": image})["map"]
  want = jax.jit(method.score)(state, {"image": image})["map"]
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_convolutions_of_this_device_stay_here(run, tmp_path, monkeypatch):
  """A GPU or ONNX's runtime has convolutions of its own, faster than sixteen products of matrices."""
  workdir, method, state, _ = run
  monkeypatch.setattr(winograd, "LEAST", 1)
  monkeypatch.setattr(winograd, "WORTH", 0)
  score = lambda state, image: method.score(state, {"image": image})
  assert "conv_general_dilated" not in str(jax.make_jaxpr(score)(state, images(2)))
  folder = export.export(workdir, tmp_path / "out", ("stablehlo",))
  program = jax.export.deserialize(bytearray((folder / "score.stablehlo").read_bytes()))
  assert "stablehlo.convolution" in program.mlir_module()


def test_weights_are_exchangeable(run, tmp_path):
  """The program takes any weights of its shapes: a second run's give the second run's scores."""
  _, _, _, folder = run
  method, state = make_run(tmp_path / "other", seed=1)
  shutil.copytree(folder, tmp_path / "mixed")
  shutil.copy(export.export(tmp_path / "other") / "weights.npz", tmp_path / "mixed")
  got = export.load(tmp_path / "mixed")({"image": images(2)})["map"]
  want = jax.jit(method.score)(state, {"image": jnp.asarray(images(2))})["map"]
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_replaces_exports_only(run, tmp_path):
  workdir, _, _, _ = run
  target = tmp_path / "out"
  target.mkdir()
  (target / "thesis.tex").write_text("years of work")
  with pytest.raises(ValueError, match="not an export of medae_jax: it is left alone"):
    export.export(workdir, target)
  assert [p.name for p in target.iterdir()] == ["thesis.tex"]
  (target / "thesis.tex").unlink()
  export.export(workdir, target)
  (target / "stale").write_text("of an earlier format")
  manifest = json.loads((target / "manifest.json").read_text())
  (target / "manifest.json").write_text(json.dumps({**manifest, "files": {**manifest["files"], "stale": ""}}))
  export.export(workdir, target)
  assert not (target / "stale").exists() and (target / "score.stablehlo").exists()
  assert [p.name for p in tmp_path.iterdir()] == ["out"]  # no temporary folder is left


def test_nothing_is_left_of_a_failed_export(run, tmp_path, monkeypatch):
  workdir, _, _, _ = run
  monkeypatch.setattr(artefact, "readme", lambda manifest: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    export.export(workdir, tmp_path / "out")
  assert not list(tmp_path.iterdir())


def test_lost_parity_is_an_error(run, tmp_path, monkeypatch):
  workdir, _, _, _ = run
  def wrong(folder):
    score = export_load(folder)
    return lambda batch: {k: v + 1e-3 for k, v in score(batch).items()}
  export_load = export.load
  monkeypatch.setattr(export, "load", wrong)
  with pytest.raises(ValueError, match="differs from score by"):
    export.export(workdir, tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_bad_requests(run, tmp_path):
  workdir, _, _, _ = run
  with pytest.raises(ValueError, match="config.export.formats=.*tflite.*stablehlo, weights"):
    export.export(workdir, tmp_path / "out", ("tflite",))
  with pytest.raises(FileNotFoundError):
    export.export(tmp_path, tmp_path / "out")


def test_images_of_another_shape_are_the_users(run):
  workdir, _, _, _ = run
  with pytest.raises(ValueError, match=r"shape \(16, 16, 3\) do not fit .* on \(16, 16, 2\)"):
    trained.load(workdir).score(images(2, channels=3))


def test_saved_model(tmp_path):
  tf = pytest.importorskip("tensorflow")
  method, state = make_run(tmp_path / "run")
  try:
    folder = export.export(tmp_path / "run", formats=("saved_model",))
  except ValueError as e:  # said in one line, and nothing is left
    assert "cannot read the programs of JAX" in str(e) and jax.__version__ >= "0.11"
    assert not list((tmp_path / "run").glob("export*"))
    pytest.skip(str(e))
  assert not (folder / "score.stablehlo").exists()
  loaded = tf.saved_model.load(str(folder / "saved_model"))
  for n in (1, 3):
    got = loaded.signatures["serving_default"](image=tf.constant(images(n)))
    want = jax.jit(method.score)(state, {"image": jnp.asarray(images(n))})
    for name in want:
      np.testing.assert_allclose(got[name], want[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("size", [(31, 16), (16, 31)])
def test_a_size_that_the_network_cannot_halve_is_named(run, tmp_path, size):
  with pytest.raises(UserError, match=f"images of {size[0]}x{size[1]} cannot be halved .* multiples of"):
    export.export(run[0], tmp_path / "out", overrides={"export.image_size": size})
  assert not list(tmp_path.iterdir())
