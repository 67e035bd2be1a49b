"""Swish + GroupNorm as kernels of our own, run by JAX on the CPU, and the choice between the forms."""

import contextlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax import train
from medae_jax.core import parallel
from medae_jax.core.errors import UserError
from medae_jax.models import dae_unet
from medae_jax.models.layers import norm_kernel, swish_norm, swish_norm_kernels, swish_norm_pallas
from tests.contract import cases
from tests.unit import tiny_dae

pytest.importorskip("jax.experimental.pallas.triton")


def arrays(shape, pad, dtype, offset=0.0):
  rng = np.random.default_rng(sum(shape))
  b, h, w, c = shape
  vector = lambda: jnp.asarray(1 + rng.normal(size=c), jnp.float32)
  of = lambda *s: jnp.asarray(3 * rng.normal(size=s) + offset, dtype)
  return (of(*shape), vector(), vector(), vector()), of(b, h + 2 * pad, w + 2 * pad, c)


def value_and_gradients(form, inputs, grad, groups, pad, *more):
  def both(inputs, grad):
    y, pull = jax.vjp(lambda *a: form(*a, groups, pad, 1e-5, *more), *inputs)
    return (y, *pull(grad))
  return jax.jit(both)(inputs, grad)


# Whole groups in a block, or parts; a side of 2 mirrors both edges into the same pixel.
CASES = [((2, 5, 7, 8), 4, True, True), ((1, 2, 3, 4), 1, False, True), ((2, 9, 5, 16), 16, True, False),
         ((2, 9, 5, 16), 16, False, False)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape, groups, pad, held", CASES)
def test_value_and_all_gradients(monkeypatch, shape, groups, pad, held, dtype):
  """Against the plain form in float32: 2e-6 of the largest value in float32, 2e-2 in bfloat16."""
  monkeypatch.setattr(swish_norm_kernels, "HELD", 2**15 if held else 0)
  monkeypatch.setattr(swish_norm_kernels, "TILE", 128)
  monkeypatch.setattr(swish_norm_kernels, "PARTS", 4)
  inputs, grad = arrays(shape, pad, dtype)
  got = value_and_gradients(swish_norm_pallas.swish_group_norm, inputs, grad, groups, pad, True)
  wide = lambda tree: jax.tree.map(lambda a: a.astype(jnp.float32), tree)
  want = value_and_gradients(swish_norm.swish_group_norm, wide(inputs), wide(grad), groups, pad)
  for name, g, w, like in zip(("y", "x", "bias", "scale", "shift"), got, want, (grad, *inputs), strict=True):
    assert g.dtype == like.dtype, name
    tolerance = 2e-6 if g.dtype == jnp.float32 and dtype == "float32" else 2e-2
    np.testing.assert_allclose(g.astype(jnp.float32), w, rtol=0, atol=tolerance * float(jnp.abs(w).max()),
                               err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("wf", range(2, 10))
def test_every_group_count_of_the_network(monkeypatch, wf):
  monkeypatch.setattr(swish_norm_kernels, "HELD", 2**15 if wf % 2 else 0)
  channels = 2**wf
  inputs, grad = arrays((1, 6, 5, channels), True, "float32")
  args = inputs, grad, dae_unet.group_count(channels), True
  got = value_and_gradients(swish_norm_pallas.swish_group_norm, *args, True)
  for g, w in zip(got, value_and_gradients(swish_norm.swish_group_norm, *args), strict=True):
    np.testing.assert_allclose(g, w, rtol=0, atol=2e-6 * float(jnp.abs(w).max()))


def test_under_remat_vmap_and_shard_map():
  """As training uses it: recomputed blocks, runs trained together, devices."""
  (x, *vectors), _ = arrays((2, 3, 2, 4), False, "float32")
  form = lambda x: swish_norm_pallas.swish_group_norm(x[None], *vectors, 2, True, 1e-5, True)
  want = [jax.grad(lambda x: jnp.sum(form(x)**3))(one) for one in x]
  got = jax.vmap(jax.grad(jax.checkpoint(lambda x: jnp.sum(form(x)**3))))
  mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
  mapped = parallel.sharded(got, mesh, jax.sharding.PartitionSpec("d"))
  np.testing.assert_allclose(mapped(x), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("held", [True, False])
def test_large_mean_does_not_cancel(monkeypatch, held):
  monkeypatch.setattr(swish_norm_kernels, "HELD", 2**15 if held else 0)
  (x, bias, scale, shift), _ = arrays((1, 12, 12, 4), False, "float32", offset=3000.0)
  got = swish_norm_pallas.swish_group_norm(x, bias, scale, shift, 2, False, 1e-5, True)
  s = np.asarray(x, np.float64) + np.asarray(bias, np.float64)  # swish(z) = z here
  g = s.reshape(1, 144, 2, 2)
  g = (g - g.mean((1, 3), keepdims=True)) / np.sqrt(g.var((1, 3), keepdims=True) + 1e-5)
  want = g.reshape(x.shape) * np.asarray(scale) + np.asarray(shift)
  np.testing.assert_allclose(got, want, atol=2e-3)  # 3000 has a spacing of 2e-4, sd is 3


@pytest.mark.parametrize("shape, dtype, groups, word", [
    ((2, 8, 8, 12), "float32", 4, "12 channels"), ((2, 8, 8, 16), "float64", 4, "float64"),
    ((2, 1, 8, 16), "float32", 4, "1x8"), ((2, 8, 8, 16), "bfloat16", 4, "")])
def test_what_the_kernels_refuse(shape, dtype, groups, word):
  why = swish_norm_pallas.refusal(shape, jnp.dtype(dtype), groups)
  assert word in why and bool(word) == bool(why)


@pytest.fixture
def forms(monkeypatch):
  """Names of the forms that ran, on a device that takes itself for a GPU; log lines in `.lines`."""
  class Ran(list):
    lines: list[str] = []
  ran = Ran()
  ran.lines = []
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  form = lambda name: lambda x, *args: ran.append(name) or x
  monkeypatch.setattr(norm_kernel, "_pallas", lambda: form("pallas"))
  monkeypatch.setattr(swish_norm, "swish_group_norm", form("plain"))
  monkeypatch.setattr(norm_kernel, "_chosen", {})
  monkeypatch.setattr(norm_kernel, "_told", set())
  monkeypatch.setattr(norm_kernel.logging, "info", lambda form, line: ran.lines.append(form % line))
  return ran


def run(kernel, channels=8, batch=2):
  norm_kernel.normalise(jnp.zeros((batch, 4, 4, channels)), None, None, None, groups=4, pad=True, eps=1e-5,
                        kernel=kernel)


def test_plain_is_the_default_and_the_only_form_without_a_gpu(forms, monkeypatch):
  run("plain"), run("pallas")
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
  run("pallas"), run("measured")
  assert forms == ["plain", "pallas", "plain", "plain"] and dae_unet.UNet(1).norm_kernel == "plain"


def test_a_shape_that_the_kernels_do_not_take_is_plain_and_said_once(forms):
  run("pallas", channels=12), run("pallas", channels=12)
  assert forms == ["plain", "plain"] and len(forms.lines) == 1 and "12 channels" in forms.lines[0]


def test_measured_takes_the_faster_form_once_a_class_of_shapes(forms, monkeypatch):
  times = [[2e-3, 1e-3], [1e-3, 0.98e-3]]
  monkeypatch.setattr(norm_kernel, "_seconds", lambda *_: times.pop(0))
  run("measured", batch=3), run("measured", batch=4), run("measured", batch=8)
  assert forms == ["pallas", "pallas", "plain"] and not times
  assert "pallas; with gradient plain 2 ms, pallas 1 ms, ratio 2.00" in forms.lines[0]
  assert "4x4x4x8 float32, 4 groups, padded" in forms.lines[0] and "ratio 1.02" in forms.lines[1]


def test_a_kernel_that_does_not_compile_is_plain_and_said_once(forms, monkeypatch):
  def fails(*_):
    raise ValueError("no Triton here\nstack")
  monkeypatch.setattr(norm_kernel, "_seconds", fails)
  run("measured"), run("measured")
  line, = forms.lines
  assert forms == ["plain", "plain"] and line.endswith("(ValueError: no Triton here)")


@pytest.fixture
def a_gpu(monkeypatch):
  """A GPU is said to be there; the forms are given to its compiler, which is this CPU's."""
  device = types.SimpleNamespace(device_kind="Tiny GPU", platform="gpu")
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(norm_kernel, "_device", lambda: device)
  monkeypatch.setattr(norm_kernel, "_compiled", set())


def test_pallas_that_does_not_compile_is_one_line_and_leaves_nothing(a_gpu, tmp_path):
  """JAX's own refusal: Triton's kernels are not for CPUs."""
  tiny, config = tiny_dae.config(depth=1), cases.config("BatchNormMethod").copy_and_resolve_references()
  with config.unlocked():
    config.update(method=tiny.method, model={**tiny.model, "norm_kernel": "pallas"}, optim=tiny.optim)
  with pytest.raises(UserError) as e:
    train.train(config.lock(), str(tmp_path / "run"))
  line = str(e.value)
  assert "\n" not in line and "model.norm_kernel=pallas: the kernel for Swish + GroupNorm 1x" in line
  assert "Tiny GPU" in line and "config.model.norm_kernel=plain, or measured" in line
  assert not list((tmp_path / "run").glob("*"))


def test_pallas_is_compiled_once_a_shape_whatever_the_batch(a_gpu, monkeypatch):
  compiled = []
  form = lambda x, bias, scale, *_: compiled.append(x.shape) or x * scale
  monkeypatch.setattr(norm_kernel, "_pallas", lambda: form)
  one = jnp.ones(4)
  layer = lambda x: norm_kernel.normalise(x, one, one, one, groups=2, pad=False, eps=1e-5, kernel="pallas")
  traced = jax.jit(jax.vmap(layer))(jnp.ones((2, 3, 4, 4, 4)))  # inside a trace, and another one's axis
  assert traced.shape == (2, 3, 4, 4, 4) and compiled == [(1, 4, 4, 4), (3, 4, 4, 4)]
  layer(jnp.ones((2, 4, 4, 4)))
  assert compiled[2:] == [(2, 4, 4, 4)]


def test_several_processes_do_not_measure(forms, monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  run("measured")
  assert forms == ["plain"] and "several processes" in forms.lines[0]


def test_measuring_inside_a_trace(monkeypatch):
  """The network is traced when a shape is first met: times are taken of real work, the trace stays clean."""
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(norm_kernel, "_chosen", {})
  monkeypatch.setattr(norm_kernel, "_TIMING", {"repeats": 1, "seconds": 1e-4})
  monkeypatch.setattr(norm_kernel, "_pallas", lambda: swish_norm.swish_group_norm)
  one = jnp.ones(4)
  layer = lambda x: norm_kernel.normalise(x, one, one, one, groups=2, pad=True, eps=1e-5, kernel="measured")
  y = jax.jit(jax.grad(lambda x: layer(x).sum()))(jnp.ones((2, 4, 4, 4)))
  assert y.shape == (2, 4, 4, 4) and next(iter(norm_kernel._chosen.values())) in ("plain", "pallas")


@pytest.mark.parametrize("shape, kernels", [((2, 128, 128, 64), 4), ((2, 16, 16, 512), 2)])
def test_lowered_to_triton_without_a_gpu(shape, kernels):
  """Value and gradient as calls of Triton kernels in the program for CUDA, whatever machine this is."""
  f = lambda *a: swish_norm_pallas.swish_group_norm(*a, dae_unet.group_count(shape[-1]), True)
  vector = jax.ShapeDtypeStruct(shape[-1:], jnp.float32)
  both = jax.jit(jax.grad(lambda *a: jnp.sum(f(*a)), (0, 1, 2, 3)))
  with _an_h100():
    traced = both.trace(jax.ShapeDtypeStruct(shape, jnp.bfloat16), vector, vector, vector)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
  assert text.count("triton") >= kernels


def _an_h100():
  """JAX 0.11 must be told for which GPU; 0.10 takes this one where there is none."""
  try:
    from jax.sharding import AbstractDevice
  except ImportError:
    return contextlib.nullcontext()
  device = AbstractDevice(device_kind="NVIDIA H100", num_cores=None, platform="gpu")
  return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=device))


def test_first_parameters_are_drawn_through_the_plain_form_and_all_else_through_the_chosen(forms):
  net = norm_kernel.SwishGroupNorm(groups=4, kernel="pallas")
  x, bias = jnp.zeros((1, 4, 4, 8)), jnp.zeros(8)
  drawn = net.init(jax.random.key(0), x, bias)
  assert list(forms) == ["plain"]
  net.apply(drawn, x, bias)
  assert list(forms) == ["plain", "pallas"]


def test_each_form_is_measured_by_itself(monkeypatch):
  form = lambda k: lambda x, *args: k * x
  found = []
  monkeypatch.setattr(norm_kernel.timing, "measure_in_turn", lambda runs, options: [
      found.append(r(1)[0]) or {"median": float(i)} for i, r in enumerate(runs)])
  assert norm_kernel._seconds([form(1.0), form(3.0)], (1, 2, 2, 4), jnp.float32, 2, False) == [0.0, 1.0]
  np.testing.assert_allclose(found[1], 3 * found[0])
