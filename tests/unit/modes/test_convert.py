"""convert: published checkpoints become a workdir; what does not fit is named in one line."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax import convert
from medae_jax.core import checkpoint, trained
from tests.unit import tiny_dae
from tests.unit.weights import torch_files


def reference_forward(tensors, image, depth):
  """The published U-Net (Kascenas 2022) in plain NumPy, NCHW: nothing is shared with ours."""
  def conv(x, w, b):
    mean = w.mean((1, 2, 3), keepdims=True)
    w = (w - mean) / (w.std((1, 2, 3), ddof=1, keepdims=True) + 1e-5)
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))
    return np.einsum("bihwkl,oikl->bohw", windows, w) + b[None, :, None, None]

  def norm(x, scale, shift):
    c = x.shape[1]
    divisors = [d for d in range(1, c + 1) if c % d == 0]
    g = x.reshape(len(x), divisors[len(divisors) // 2], -1)
    g = (g - g.mean(-1, keepdims=True)) / np.sqrt(g.var(-1, keepdims=True) + 1e-5)
    return g.reshape(x.shape) * scale[None, :, None, None] + shift[None, :, None, None]

  def block(x, prefix):
    for a, n in ((1, 3), (5, 7)):
      x = conv(x, tensors[f"{prefix}.{a}.weight"], tensors[f"{prefix}.{a}.bias"])
      x = x / (1 + np.exp(-x))
      x = norm(x, tensors[f"{prefix}.{n}.weight"], tensors[f"{prefix}.{n}.bias"])
    return x

  skips, x = [], image.astype(np.float64)
  for i in range(depth):
    if i:
      x = x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).mean((3, 5))
    x = block(x, f"down_path.{i}.block")
    skips.append(x)
  for j in range(depth - 1):
    w = tensors[f"up_path.{j}.up.weight"]
    b, _, h, wide = x.shape
    x = np.einsum("bihw,iokl->bohkwl", x, w).reshape(b, w.shape[1], 2 * h, 2 * wide)
    x = x + tensors[f"up_path.{j}.up.bias"][None, :, None, None]
    x = block(np.concatenate([x, skips[depth - 2 - j]], 1), f"up_path.{j}.conv_block.block")
  w = tensors["last.weight"][:, :, 0, 0]
  return np.einsum("bihw,oi->bohw", x, w) + tensors["last.bias"][None, :, None, None]


def image_of(seed, b, size, channels):
  return np.random.default_rng(seed).random((b, size, size, channels), np.float32)


@pytest.mark.parametrize("writer", [torch_files.write_zip, torch_files.write_stream])
@pytest.mark.parametrize("depth, wf, channels", [(2, 2, 2), (3, 1, 1)])
def test_converted_network_computes_what_the_reference_does(tmp_path, writer, depth, wf, channels):
  tensors = tiny_dae.torch_tensors(depth, wf, channels)
  source, workdir = tmp_path / "model.pt", tmp_path / "run"
  writer(source, {"epoch_no": 7, "model_class": torch_files.Name("unet", "UNet"),
                  "model_state_dict": tensors,
                  "optimiser_state_dict": {"state": {0: {"exp_avg": np.zeros(3, np.float32)}}}})
  config = tiny_dae.config(depth=4, wf=6, channels=channels, size=16)  # sizes come from the file
  summary = convert.convert(source, config, workdir)
  assert summary["changed"]["model.depth"] == depth and summary["changed"]["model.wf"] == wf
  assert summary["parameters"] == sum(t.size for t in tensors.values())

  run = trained.load(workdir)
  restored, method, state, info = run.config, run.method, run.state, run.info
  assert (restored.model.depth, restored.model.wf) == (depth, wf)
  assert info["converted_from"] == "model.pt"
  image = image_of(1, 2, 16, channels)
  recon = method.score(jax.tree.map(jnp.asarray, state), {"image": image})["recon"]
  want = reference_forward(tensors, image.transpose(0, 3, 1, 2), depth).transpose(0, 2, 3, 1)
  # float32 against float64 through 2 depth - 1 blocks; values are of order 1
  np.testing.assert_allclose(recon, want, atol=5e-5)


def test_safetensors_and_npz(tmp_path):
  import safetensors.numpy
  tensors = tiny_dae.torch_tensors()
  np.savez(tmp_path / "w.npz", **tensors)
  safetensors.numpy.save_file(tensors, tmp_path / "w.safetensors")
  states = []
  for name in ("w.npz", "w.safetensors"):
    convert.convert(tmp_path / name, tiny_dae.config(), tmp_path / name[2:])
    states.append(trained.load(tmp_path / name[2:]).state)
  jax.tree.map(np.testing.assert_array_equal, states[0].params, states[1].params)
  np.testing.assert_array_equal(states[0].params["net"]["last"]["bias"], tensors["last.bias"])
  assert [p.name for p in (tmp_path / "npz/checkpoints").iterdir() if any(p.iterdir())] == ["best"]
  info = trained.load(tmp_path / "npz").info
  assert info["done"] and info["checksum"] == checkpoint.checksum(states[0].params)  # training has ended


def broken(change):
  tensors = tiny_dae.torch_tensors()
  change(tensors)
  return tensors


@pytest.mark.parametrize("change, match", [
    (lambda t: t.pop("up_path.0.up.bias"), "lacks tensor 'up_path.0.up.bias'"),
    (lambda t: t.pop("last.weight"), "tensor 'last.weight' is missing"),
    (lambda t: t.update({"extra.weight": np.ones(3, np.float32)}), "1 tensors .*extra.weight"),
    (lambda t: t.update({"last.bias": np.ones(3, np.float32),
                         "down_path.0.block.3.weight": np.ones(5, np.float32)}),
     r"net/down_0/norm_a/scale is \(5,\), config.model needs \(4,\).*last/bias"),
    (lambda t: t.update({"last.bias": np.full(2, np.nan, np.float32)}),
     "not finite in float32: net/last/bias"),
    # It became infinite in float32, and was met when the run was opened.
    (lambda t: t.update({"last.bias": np.full(2, 1e300)}), "not finite in float32: net/last/bias"),
    # Words were a traceback; of complex numbers the imaginary part went in silence.
    *[(lambda t, kind=kind: t.update({"last.bias": t["last.bias"].astype(kind)}),
       r"no floating-point numbers: net/last/bias \(") for kind in (complex, np.int8, bool, str)],
])
def test_what_does_not_fit_is_one_line(tmp_path, change, match):
  np.savez(tmp_path / "w.npz", **broken(change))
  with pytest.raises(ValueError, match=match) as e:
    convert.convert(tmp_path / "w.npz", tiny_dae.config(), tmp_path / "run")
  assert "\n" not in str(e.value)
  assert not (tmp_path / "run" / "checkpoints").exists()


def test_trees_are_compared_leaf_by_leaf():
  """Names, shapes and kinds both ways; a counter may be a whole number, an array of them is quantised."""
  shape = lambda kind, *size: jax.ShapeDtypeStruct(size, kind)
  expected = {"net": {"w": shape(np.float32, 2), "count": shape(np.int32)}}
  fine = {"net": {"w": np.ones(2, np.float64), "count": np.array(3, np.int64)}}
  found = convert._checked(fine, expected, "file", tiny_dae.config())
  assert {k: str(v.dtype) for k, v in found["net"].items()} == {"w": "float32", "count": "int32"}
  for change, words in (({"v": np.ones(3)}, r"unexpected net/v \(3,\)"),
                        ({"w": np.ones((1, 2))}, r"is \(1, 2\)"), ({"w": np.ones(2, int)}, "no floating"),
                        ({"w": np.array([1, np.inf])}, "not finite")):
    with pytest.raises(ValueError, match=words):
      convert._checked({"net": {**fine["net"], **change}}, expected, "file", tiny_dae.config())
  with pytest.raises(ValueError, match="missing net/count"):
    convert._checked({"net": {"w": np.ones(2)}}, expected, "file", tiny_dae.config())


def test_statistics_are_compared_as_parameters_are_and_a_batch_counter_is_nobodys(tmp_path, monkeypatch):
  tensors = {**tiny_dae.torch_tensors(), "norm.num_batches_tracked": np.array(7)}
  np.savez(tmp_path / "w.npz", **tensors)
  convert.convert(tmp_path / "w.npz", tiny_dae.config(), tmp_path / "run")
  filled = convert._filled
  monkeypatch.setattr(convert, "_filled", lambda *args: (filled(*args), {"net": {"mean": np.ones(3)}}))
  with pytest.raises(ValueError, match=r"unexpected net/mean \(3,\)"):
    convert.convert(tmp_path / "w.npz", tiny_dae.config(), tmp_path / "other")
  (tmp_path / "half/checkpoints").mkdir(parents=True)  # of a run that lost its config
  with pytest.raises(ValueError, match="already holds checkpoints"):
    convert.convert(tmp_path / "w.npz", tiny_dae.config(), tmp_path / "half")


def test_refusals(tmp_path):
  with pytest.raises(FileNotFoundError, match="no weight file"):
    convert.convert(tmp_path / "none.pt", tiny_dae.config(), tmp_path / "run")
  np.savez(tmp_path / "w.npz", **tiny_dae.torch_tensors())
  with pytest.raises(ValueError, match="trained on 2 channels, config.data has 4"):
    convert.convert(tmp_path / "w.npz", tiny_dae.config(channels=4), tmp_path / "run")
  convert.convert(tmp_path / "w.npz", tiny_dae.config(), tmp_path / "run")
  written = json.loads((tmp_path / "run" / "converted.json").read_text())
  assert len(written["sha256"]) == 64
  with pytest.raises(ValueError, match="already holds checkpoints"):
    convert.convert(tmp_path / "w.npz", tiny_dae.config(), tmp_path / "run")


def test_what_the_score_would_refuse_is_said_when_it_is_converted(tmp_path):
  """Not by the first evaluation: the files are those of a paper, the fields of the score the user's."""
  np.savez(tmp_path / "w.npz", **tiny_dae.torch_tensors())
  config = tiny_dae.config().copy_and_resolve_references()
  with config.unlocked():
    config.method.score.median = 99
  with pytest.raises(ValueError, match="a 99x99 median needs images larger than 49 px"):
    convert.convert(tmp_path / "w.npz", config, tmp_path / "run")


@pytest.mark.parametrize("name", ["config.json", "calibration.json", "trained_on.json", "metrics.jsonl"])
def test_files_of_another_run_are_not_taken_for_this_one(tmp_path, name):
  np.savez(tmp_path / "w.npz", **tiny_dae.torch_tensors())
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / name).write_text("{}")
  with pytest.raises(ValueError, match=f"run already holds {name}, of another run; choose a new --workdir"):
    convert.convert(tmp_path / "w.npz", tiny_dae.config(), tmp_path / "run")
  assert [p.name for p in (tmp_path / "run").iterdir()] == [name]


def test_weights_that_are_all_alike_are_said(tmp_path, caplog):
  expected = {"net": {"kernel": jax.ShapeDtypeStruct((2, 3), np.float32),
                      "bias": jax.ShapeDtypeStruct((3,), np.float32)}}
  rising = np.arange(6, dtype=np.float32).reshape(2, 3)
  for kernel, said in ((rising, False), (0 * rising, True), (rising.astype(np.float64) * 1e-60, True)):
    caplog.clear()
    found = {"net": {"kernel": kernel.astype(np.float64), "bias": np.zeros(3)}}
    convert._checked(found, expected, "w.npz", None)
    assert ("w.npz: all values of 1 weights are alike, the first net/kernel (0)" in caplog.text) == said
