"""Wishes answered by one small run on synthetic brains, made once, through the command line and in Python."""

import ast
import csv
import importlib
import json
import os
import platform
import re
import sys

import jax
import nibabel
import numpy as np
import pytest

from data_pipelines.datasets import synthetic
import medae_jax as mx
from medae_jax import export
from medae_jax.core.device import environment, xla_flags
from tests import console
from tests.contract.cases import ROOT

pytestmark = pytest.mark.slow
SMOKE = "dae_brats.py:smoke"


def launch(*args):
  code, said = console.call(*args)
  assert code == 0, said[-3000:]
  return said


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("wishes") / "run"
  launch(f"--config={SMOKE}", f"--workdir={workdir}")
  return workdir


@pytest.fixture(scope="module")
def opened(run):
  return mx.load(run)


@pytest.fixture(scope="module")
def scans(run):
  synthetic.write_nifti(run.parent / "scans", 2, seed=5)
  return run.parent / "scans"


@pytest.fixture(scope="module")
def maps(run, scans):
  launch("--mode=predict", f"--workdir={run}", f"--input={scans}", f"--output={run.parent / 'maps'}")
  return run.parent / "maps"


def rows(file):
  with open(file, newline="", encoding="utf-8") as f:
    return list(csv.DictReader(f))


def batch(run, n=3):
  shape = (n, *run.config.data.image_size, len(run.config.data.modalities))
  return np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)


def test_an_export_keeps_thresholds_and_gives_the_same_scores(run, opened, tmp_path):
  launch("--mode=export", f"--workdir={run}", f"--output={tmp_path / 'out'}")
  stored, manifest = (json.loads((tmp_path / "out" / f"{name}.json").read_text())
                      for name in ("calibration", "manifest"))
  assert stored["threshold"] == opened.calibration["threshold"] > 0
  assert {"map", "score", "recon"} <= set(manifest["outputs"]) and max(manifest["parity"].values()) < 1e-5
  got, want = export.load(tmp_path / "out")({"image": batch(opened)}), opened.score(batch(opened))
  np.testing.assert_allclose(got["score"], want.score, rtol=1e-5)
  np.testing.assert_allclose(np.asarray(got["map"])[..., 0], want.map, rtol=1e-5, atol=1e-5)


def test_maps_and_masks_lie_on_the_input_with_one_scale(maps, scans):
  tops = set()
  for path in sorted(maps.glob("*_anomaly.nii.gz")):
    name = path.name.removesuffix("_anomaly.nii.gz")
    found, mask = nibabel.load(path), nibabel.load(maps / f"{name}_mask.nii.gz")
    scan = nibabel.load(next(scans.rglob(f"{name}*flair*")))
    for one in (found, mask):
      assert one.shape == scan.shape
      np.testing.assert_array_equal(one.affine, scan.affine)
    assert found.get_data_dtype() == np.float32 and found.get_fdata().max() > 0
    assert set(np.unique(mask.dataobj)) <= {0, 1}
    tops.add(float(found.header["cal_max"]))
  assert len(list(maps.glob("*_anomaly.nii.gz"))) == 2 and len(tops) == 1 and tops.pop() > 0


def test_scores_are_those_of_the_method(maps):
  scores = [float(r["score"]) for r in rows(maps / "predictions.csv")]
  assert len(set(scores)) == 2 and 1.0 not in scores


def test_a_threshold_set_by_hand_counts(run, scans, tmp_path):
  voxels = {}
  for threshold in (1e-6, 1e9):
    out = tmp_path / str(threshold)
    launch("--mode=predict", f"--workdir={run}", f"--input={scans}", f"--output={out}",
           f"--config.predict.threshold={threshold}")
    voxels[threshold] = sum(int(r["mask_voxels"]) for r in rows(out / "predictions.csv"))
  assert voxels[1e9] == 0 < voxels[1e-6]


def test_the_threshold_is_explained(run, opened):
  rule = opened.calibration["threshold_rule"]
  assert "val" in rule and rule in (run / "report.html").read_text(encoding="utf-8")


def test_one_scan_in_python(opened, scans):
  found = opened.score(next(p for p in sorted(scans.iterdir()) if p.is_dir()))
  assert found.map.shape == found.mask.shape and found.mask.dtype == bool
  assert not (found.mask & (found.map <= found.threshold)).any()
  assert found.threshold == pytest.approx(opened.calibration["threshold"])
  assert "score" in found.row and (found.verdict is None) == (found.p_value is None)  # val is small
  cut = opened.calibration["image_threshold"]
  many = opened.score(batch(opened))
  assert many.verdict == ["abnormal" if s > cut else "normal" for s in many.score]
  direct = jax.jit(opened.method.score)(opened.state, {"image": batch(opened)})  # no device axis
  np.testing.assert_allclose(direct["score"], many.score, rtol=1e-5)


def test_four_channels(opened):
  c = mx.config(SMOKE, **{"data.modalities": ("flair", "t1", "t1ce", "t2")})
  from data_pipelines import dataset
  data = dataset.open_dataset(c.data, c.seed)
  assert data.train().read(np.arange(1))["image"].shape[-1] == 4


def test_dice_of_every_patient(run):
  found = rows(run / "evaluation/test.csv")
  assert len(found) > 1 and all("dice" in " ".join(r) and r["patient"] for r in found)


def test_measures_are_selected(run):
  before = json.loads((run / "evaluation/test.json").read_text())
  launch("--mode=evaluate", f"--workdir={run}", '--config.eval.measures=("aupro",)',
         "--config.eval.bootstrap=0")
  after = json.loads((run / "evaluation/test.json").read_text())
  assert "aupro" not in before and 0 <= after["aupro"] <= 1 and "recon_mae" not in after


def test_false_alarms_are_counted(opened):
  found = opened.evaluation("test")
  assert 0 <= found["image_specificity"] <= 1 and 0 <= found["image_sensitivity"] <= 1


def test_the_same_seed_twice(tmp_path):
  config = mx.config(SMOKE, **{"train.steps": 2, "train.eval_every": 0, "train.save_every": 2})
  a, b = (mx.train(config, tmp_path / name, evaluate=False) for name in "ab")
  jax.tree.map(np.testing.assert_array_equal, a.state.params, b.state.params)
  assert a.info["step"] == b.info["step"] == 2


def test_tensorflow_has_no_gpu_and_hides_those_of_other_builds(monkeypatch):
  """On Linux x86-64 the build that is asked for has no CUDA: it cannot take the memory of a GPU."""
  from data_pipelines import tf as tf_lib
  tf = tf_lib.tf
  if (sys.platform, platform.machine()) == ("linux", "x86_64"):
    assert re.search(r"^tensorflow-cpu\b", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert not tf.test.is_built_with_cuda() and not tf.test.is_built_with_rocm()
    assert tf.config.list_physical_devices("GPU") == []
  calls = []
  monkeypatch.setattr(tf.config, "set_visible_devices", lambda *a: calls.append(a))
  spec = importlib.util.find_spec("data_pipelines.tf")
  spec.loader.exec_module(importlib.util.module_from_spec(spec))
  assert calls == [([], "GPU")] and tf_lib.__file__ == spec.origin


def test_flags_of_the_user_reach_xla(monkeypatch):
  asked = "--xla_gpu_deterministic_ops=true"
  monkeypatch.setenv("XLA_FLAGS", asked)
  monkeypatch.setattr("jax._src.xla_bridge.backends_are_initialized", lambda: False)
  environment.prepare()
  xla_flags.prefer_eigen_convolutions()
  assert asked in os.environ["XLA_FLAGS"].split()


def test_no_nnx_and_no_shuffle_buffer():
  for folder in ("medae_jax", "data_pipelines"):
    for path in (ROOT / folder).rglob("*.py"):
      for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
          assert "nnx" not in (*node.module.split("."), *(a.name for a in node.names)), path
        if isinstance(node, ast.Attribute) and node.attr == "shuffle" and folder == "data_pipelines":
          assert "rng" in ast.unparse(node.value) or "random" in ast.unparse(node.value), path
