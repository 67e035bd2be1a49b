"""bench and core/device/timing: the figures are what they say, with and without TensorFlow and data."""

import json
import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import dae_brats
from medae_jax import bench
from medae_jax.core.device import timing
from tests.unit import tiny_dae

FAST = {"repeats": 2, "seconds": 0.02, "stage": ""}


def with_fast(config):
  config = ml_collections.ConfigDict(config.to_dict())
  config.bench = ml_collections.ConfigDict(FAST)
  return config


@pytest.fixture(autouse=True)
def small_matrices(monkeypatch):
  monkeypatch.setitem(timing.MATMUL_SIZES, "cpu", (128,))


def test_as_many_units_as_take_the_seconds_asked_for(monkeypatch):
  """On a clock that work alone moves, 0.02 s a unit: 25 of them are half a second, each time."""
  clock = [0.0]
  monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
  def run(n):
    clock[0] += 0.02 * n
  found = timing.measure(run, {"repeats": 3, "seconds": 0.5})
  assert found["units"] == 25 and found["median"] == pytest.approx(0.02)


def test_measure_and_rate():
  calls = []
  def run(n):
    calls.append(n)
    time.sleep(0.01 * n)
    return jnp.zeros(())
  seconds = timing.measure(run, {"repeats": 3, "seconds": 0.05})
  assert 0.01 <= seconds["min"] <= seconds["median"] <= seconds["max"]
  assert len(calls) >= 5 and calls[-1] == calls[-3] == seconds["units"]
  assert timing.rate(seconds, 4)["median"] == pytest.approx(4 / seconds["median"])
  assert timing.rate(seconds, 4)["min"] <= timing.rate(seconds, 4)["max"]


def test_flops_by_hand():
  a = jnp.zeros((8, 16))
  b = jnp.zeros((16, 32))
  assert timing.flops_of(lambda a, b: a @ b, a, b) == 2 * 8 * 16 * 32
  peak = timing.matmul_peak("float32", options=FAST)
  assert peak["flops_per_s"] > 1e6 and peak["dtype"] == "float32"


def test_flops_of_the_dae_step():
  """XLA's count against three forward passes counted by hand."""
  config = with_fast(tiny_dae.config(depth=2, wf=3, channels=2, size=16))
  result = bench.bench(config)
  w0, w1, px = 8, 16, 256
  mac = px * 9 * (2 * w0 + w0 * w0 + 2 * w0 * w0 + w0 * w0) + px * 2 * w0  # level 0 and last
  mac += px // 4 * (9 * (w0 * w1 + w1 * w1) + w1 * w0 * 4)  # level 1 and the upsampling
  counted = result["flops"]["per_step_and_device"]
  no_image_gradient = px * 9 * 2 * w0  # the first convolution has no gradient to its input
  by_hand = 2 * (3 * mac - no_image_gradient) * config.train.batch_size
  # Less: XLA leaves out products with zero padding (16 % at 8x8). More: element-wise work.
  assert 0.84 * by_hand < counted < 1.9 * by_hand
  step = result["step"]
  assert step["ms"]["min"] <= step["ms"]["median"] <= step["ms"]["max"]
  assert step["images_per_s"]["median"] == pytest.approx(4 / step["ms"]["median"] * 1e3)
  flops = result["flops"]
  assert flops["fraction_of_peak"] == pytest.approx(
      counted * 1e3 / step["ms"]["median"] / flops["peak"]["flops_per_s"])
  assert result["score"]["images_per_s"]["median"] > 0
  assert result["memory"]["peak_bytes"] > 1e6
  assert result["compile"]["first_call_s"] > 0
  # there is no such data set: null with the reason, and the rest is measured
  for row in ("input_pipeline", "end_to_end"):
    assert result[row]["images_per_s"] is None
    assert "'none' is not a data set" in result[row]["reason"]


def test_real_pipeline_and_bench_json(tmp_path):
  pytest.importorskip("tensorflow")
  config = with_fast(dae_brats.get_config("smoke"))
  config.train.steps_per_call = 2
  result = bench.bench(config, str(tmp_path))
  assert json.loads((tmp_path / "bench.json").read_text()) == json.loads(json.dumps(result))
  assert "synthetic" in result["input_pipeline"]["dataset"].lower()
  fed = result["end_to_end"]
  assert fed["fraction_of_step"] == pytest.approx(
      fed["images_per_s"]["median"] / result["step"]["images_per_s"]["median"])
  assert any(line.startswith("end_to_end") for line in bench.summary(result))


def test_batch_must_fit_and_stage_must_exist():
  config = with_fast(tiny_dae.config())
  config.bench.stage = "late"
  with pytest.raises(ValueError, match="the stages are main"):
    bench.bench(config)


def test_runs_without_tensorflow(tmp_path):
  code = """
import sys
sys.modules["tensorflow"] = None  # what an import finds where it is not installed
import json
from configs import dae_brats
from medae_jax import bench
from medae_jax.core.device import timing
timing.MATMUL_SIZES["cpu"] = (64,)
config = dae_brats.get_config("smoke").copy_and_resolve_references()
with config.unlocked():
  config.bench = dict(repeats=1, seconds=0.01)
print("RESULT" + json.dumps(bench.bench(config)))
"""
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                        env={**os.environ, "JAX_PLATFORMS": "cpu"})
  assert done.returncode == 0, done.stderr
  result = json.loads(done.stdout.split("RESULT")[1])
  assert result["step"]["images_per_s"]["median"] > 0
  assert "TensorFlow" in result["end_to_end"]["reason"]
  assert np.isfinite(result["flops"]["per_s"]) and jax.default_backend() == "cpu"
