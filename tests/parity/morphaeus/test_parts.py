"""Warp, integration, local correlation, smoothness and the networks of MorphAEus against the golden vectors.

Tolerances are those of the golden README: warps 2e-6 (gradients 2e-5 of their maximum), correlation 2e-6 of
the float64 value (gradients 1e-5), images 1e-5, flows 5e-5 pixels, gradients 1e-4 of each array's maximum.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.losses import deformation, ncc
from medae_jax.models.layers import warp
from medae_jax.weights import conv_ae as names
from tests.golden_cases import file_cases
from tests.parity.double import double
from tests.parity.dpa_golden import nchw, nhwc
from tests.parity.morphaeus import networks as golden

COMPILED_FAST = True  # a program or two for each of many parts


def _near(got, expected, share, what=""):
  """Within `share` of the expected array's maximum."""
  np.testing.assert_allclose(got, expected, rtol=0, atol=share * np.abs(expected).max(), err_msg=what)


@pytest.mark.parametrize("file", file_cases("morphaeus", "spatial_transformer*.npz"))
def test_warp(file):
  z = np.load(file)
  src, flow, cotangent = (jnp.asarray(nhwc(z[k])) for k in ("src", "flow", "cotangent"))
  warped, pull = jax.vjp(warp.warp, src, flow)
  np.testing.assert_allclose(nchw(warped), z["warped"], atol=2e-6)
  for got, key in zip(pull(cotangent), ("d_src", "d_flow")):
    _near(nchw(got), z[key], 2e-5, key)
  for key, rows, columns in (("zero_flow", 0, 0), ("shift_rows_plus2", 2, 0), ("shift_cols_minus1", 0, -1)):
    field = jnp.broadcast_to(jnp.array([rows, columns], jnp.float32), flow.shape)
    np.testing.assert_allclose(nchw(warp.warp(src, field)), z[f"warped_{key}"], atol=2e-6, err_msg=key)


@pytest.mark.parametrize("file", file_cases("morphaeus", "spatial_transformer*.npz"))
def test_integration_and_resizing(file):
  z = np.load(file)
  velocity, cotangent = nhwc(z["vec"]), jnp.asarray(nhwc(z["cotangent_vec"]))
  numbers = [int(k.removeprefix("vecint")) for k in z if k.startswith("vecint")]
  assert numbers
  for steps in numbers:
    field, pull = jax.vjp(lambda v, n=steps: warp.integrate(v, n), jnp.asarray(velocity))
    np.testing.assert_allclose(nchw(field), z[f"vecint{steps}"], atol=2e-6)
    _near(nchw(pull(cotangent)[0]), z[f"d_vec_steps{steps}"], 2e-5, f"{steps} steps")
  for key, factor in (("resize_down2", 0.5), ("resize_up2", 2)):
    got = warp.resize_field(jnp.asarray(nhwc(z["resize_in"])), factor)
    _near(nchw(got), z[key], 2e-6, key)


@pytest.mark.parametrize("file", file_cases("morphaeus", "losses*.npz"))
def test_local_correlation(file):
  z = np.load(file)
  a, b = nhwc(z["I"]), nhwc(z["J"])
  windows = [int(k[len("ncc_win"):-len("_f64")]) for k in z if k.startswith("ncc_win") and k.endswith("_f64")]
  assert windows
  for window in windows:
    loss = lambda x, y, w=window: ncc.ncc_loss(x, y, w).mean()
    value, grads = jax.value_and_grad(loss, (0, 1))(a, b)
    np.testing.assert_allclose(value, z[f"ncc_win{window}_f64"], atol=2e-6)
    for got, key in zip(grads, ("d_I", "d_J")):
      _near(nchw(got), z[f"{key}_win{window}"], 1e-4, f"{key} {window}")  # the vectors' own float32 cancels
  mean = lambda x, y: float(ncc.ncc_loss(x, y).mean())
  np.testing.assert_allclose(mean(nhwc(z["I_2ch"]), nhwc(z["J_2ch"])), z["ncc_2ch_win9_fixed_f64"], atol=2e-6)
  np.testing.assert_allclose(mean(nhwc(z["I_flat"]), nhwc(z["J_flat"])), z["ncc_flat"], atol=1e-5)
  np.testing.assert_allclose(mean(a, a), z["ncc_self"], atol=2e-6)
  np.testing.assert_allclose(mean(a, 1 - a), z["ncc_neg"], atol=2e-6)


@pytest.mark.parametrize("file", file_cases("morphaeus", "ncc_lowvar*.npz"))
def test_local_correlation_of_flat_images_in_float32(file):
  z = np.load(file)
  contrasts = [k.removeprefix("J_") for k in z if k.startswith("J_")]
  assert contrasts
  for c in contrasts:
    value, grad = jax.value_and_grad(lambda y: ncc.ncc_loss(nhwc(z["I"]), y).mean())(nhwc(z[f"J_{c}"]))
    np.testing.assert_allclose(value, z[f"ncc_{c}_f64"], atol=1e-6)
    expected = z[f"d_J_{c}_f64"]
    off = np.linalg.norm(nchw(grad) - expected) / np.linalg.norm(expected)
    assert off < 1e-5, f"contrast {c}: {off:.1e}"


@pytest.mark.parametrize("file", file_cases("morphaeus", "losses*.npz"))
@pytest.mark.parametrize("name", list(deformation.PENALTIES))
def test_smoothness(file, name):
  z = np.load(file)
  value, grad = jax.value_and_grad(lambda f: deformation.PENALTIES[name](f).mean())(nhwc(z["disp"]))
  np.testing.assert_allclose(value, z[f"reg_{name}"], rtol=1e-6)
  _near(nchw(grad), z[f"d_disp_{name}"], 1e-5)


@pytest.mark.parametrize("file", file_cases("morphaeus", "model_*.npz"))
def test_networks(file):
  """Outputs, raw convolutions and all gradients with frozen statistics; outputs with those of the batch.

  Cases without stored parameters (of published widths) have those of the closed form, and outputs alone.
  """
  z = np.load(file)
  model = golden.Model(json.loads(str(z["config"])))
  if "x_prior" in z:
    return _full_size(z, model)
  params, stats = model.read(golden.sub(z, "sd/"))
  x, cotangent = nhwc(z["x"]), nhwc(z["cotangent"])
  out, raw = model.apply(params, stats, x)
  _compare(out, z, "eval/")
  for part in ("enc", "dec"):
    for i, got in enumerate(raw[part]):
      if f"eval/{part}_conv{i}" in z:
        np.testing.assert_allclose(nchw(got), z[f"eval/{part}_conv{i}"], atol=1e-5, err_msg=f"{part} {i}")

  trained, _ = model.apply(params, stats, x, train=True)
  _compare(trained, z, "train/")
  _gradients(z, params, stats, x, cotangent)


@pytest.mark.parametrize("file", file_cases("morphaeus", "model_*.npz"))
def test_running_statistics_of_one_pass(file):
  """A tenth of the batch's mean and unbiased variance; means, too, which training's traces leave out."""
  z = np.load(file)
  after = golden.sub(z, "train/sd_after/")
  if not after:
    pytest.skip("no statistics in this file")
  model, before = golden.Model(json.loads(str(z["config"]))), golden.sub(z, "sd/")
  params, stats = model.read(before)
  _, expected = names.from_torch({**before, **after}, model.transposed)
  got = jax.jit(model.statistics)(params, stats, nhwc(z["x"]))
  golden.compare_trees(got, expected, 2e-6)
  moved = jax.tree.map(lambda a, b: float(np.abs(np.asarray(a) - b).max()), stats, expected)
  assert min(jax.tree.leaves(moved)) > 1e-4


def _gradients(z, params, stats, x, cotangent):
  """In float64: what float32 rounds in a field moves single gradients by more than the bound."""
  with jax.enable_x64(True):
    model = golden.Model(json.loads(str(z["config"])), "float64")
    stats, cotangent = double((stats, cotangent))

    def scalar(p, image):
      found, _ = model.apply(p, stats, image)
      return (found["recon"] * cotangent).sum() + 0.5 * (found["reversed"] * cotangent).sum()
    grads, d_x = jax.jit(jax.grad(scalar, (0, 1)))(*double((params, x)))
    _near(nchw(d_x), z["eval/d_x"], 1e-4)
    expected, _ = names.from_torch(golden.sub(z, "eval/grad/"), model.transposed)
    golden.compare_trees(grads, expected, 1e-4)


_KEYS = {"recon": "y_source", "prior": "x_prior", "velocity": "preint_flow", "field": "pos_flow",
         "reversed": "x_reversed"}


def _compare(out, z, mode, images=1e-5, flows=5e-5):
  for ours, theirs in _KEYS.items():
    if mode + theirs in z:
      tolerance = flows if "flow" in theirs else images
      np.testing.assert_allclose(nchw(out[ours]), z[mode + theirs], atol=tolerance, err_msg=ours)


def _full_size(z, model):
  params, stats, filled = model.closed_form(z["x"].shape, gain=3.0)
  for key in (k for k in z if k.startswith("fillcheck/")):
    np.testing.assert_allclose(filled[key.removeprefix("fillcheck/")].ravel()[:8], z[key], atol=1e-7)
  _compare(model.apply(params, stats, nhwc(z["x"]))[0], z, "", 5e-5, 1e-4)
