"""The DAE against vectors of the reference implementation: network, loss, gradient, noise, rates.

Every case that the folder holds is read; sizes and hyper-parameters come from the case. The reference
ran in float64; these single passes run in float32, with the tolerances of the vectors' README (output
2e-5, gradients 2e-6): a few times what a float32 run of the reference shows. They grow with the largest
value where that exceeds what the README's cases have, and the loss is held to 5e-6 for the README's 1e-6:
five levels that begin with two channels lose more in float32. test_dae_training.py has all in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.losses import pixel
from medae_jax.methods import dae
from medae_jax.models import dae_unet
from medae_jax.models.layers.conv import standardise
from medae_jax.optim import schedules
from medae_jax.weights import dae as dae_weights
from tests.golden_cases import file_cases
from tests.parity import dae_golden as g

COMPILED_FAST = True  # LLVM's passes take longer than the few steps


@g.cases("unet*.npz")
def test_network_loss_and_gradient(file, backend):
  """In the forms of models/layers/swish_norm.py for both backends."""
  arrays, _ = g.load(file)
  reference = g.group(arrays, "param/")
  depth, wf = g.sizes(reference)
  params = dae_weights.from_torch(reference, depth)
  x, target, mask = g.nhwc(arrays["x"]), g.nhwc(arrays["target"]), g.nhwc(arrays["mask"])
  net = dae_unet.UNet(x.shape[-1], depth, wf, precision="highest")

  def loss_fn(p):
    out = net.apply({"params": p}, x)
    return jnp.mean(pixel.masked_squared_error(target, out, mask)), out
  (loss, out), grads = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(params)
  atol = 2e-5 * max(1, g.largest(arrays["output"]))
  np.testing.assert_allclose(out, g.nhwc(arrays["output"]), atol=atol, rtol=0)
  np.testing.assert_array_equal(pixel.foreground(target), mask)
  np.testing.assert_allclose(loss, arrays["loss"], rtol=5e-6)
  ours = g.to_reference(grads, depth)
  expected = g.group(arrays, "grad/")
  assert sorted(ours) == sorted(expected)
  atol = max(2e-6, 2e-5 * g.largest(expected))
  for key, value in expected.items():
    np.testing.assert_allclose(ours[key], value, atol=atol, rtol=0, err_msg=key)


@g.cases("unet*.npz")
def test_intermediate_outputs(file):
  arrays, _ = g.load(file)
  recorded = {**g.group(arrays, "act/"), **g.group(arrays, "std_weight/")}
  if not recorded:
    pytest.skip("this case records no intermediate outputs")
  reference = g.group(arrays, "param/")
  depth, wf = g.sizes(reference)
  net = dae_unet.UNet(arrays["x"].shape[1], depth, wf, precision="highest")
  see = jax.jit(lambda params, x: net.apply({"params": params}, x, capture_intermediates=True))
  _, seen = see(dae_weights.from_torch(reference, depth), g.nhwc(arrays["x"]))
  seen = seen["intermediates"]
  close = lambda ours, value, key: np.testing.assert_allclose(
      ours, value, atol=2e-5 * max(1, g.largest(value)), rtol=0, err_msg=key)
  for key, value in g.group(arrays, "act/").items():
    kind, j, *up = key.replace("_path", "").split(".")
    level = int(j) if kind == "down" else depth - 2 - int(j)
    ours = seen[f"down_{level}" if kind == "down" else f"up_{level}" if up else f"up_block_{level}"]
    close(ours["__call__"][0], g.nhwc(value), key)
  for key, value in g.group(arrays, "std_weight/").items():
    kernel = jnp.asarray(reference[key].transpose(2, 3, 1, 0))
    close(standardise(kernel), value.transpose(2, 3, 1, 0), key)


def _noise_cases():
  """(file, name of the case in it)."""
  found = []
  for param in file_cases(g.FAMILY, "noise*.npz"):
    file = param.values[0]
    names = sorted({k.split("/")[0] for k in np.load(file).files}) if file else [None]
    found += [pytest.param(file, name, marks=param.marks, id=f"{param.id}-{name}")
              for name in names]
  return found


@pytest.mark.parametrize("file, case", _noise_cases())
def test_noise(file, case):
  """2e-6: float32 sums of up to r products in another order (README)."""
  arrays = g.group(g.load(file)[0], f"{case}/")
  x, coarse = g.nhwc(arrays["x"]), g.nhwc(arrays["coarse"])
  roll = jnp.broadcast_to(jnp.asarray(arrays["roll"], jnp.int32), (len(x), 2))
  noised, _ = dae.Method(g.config()).corrupt({"image": x, "noise": coarse, "roll": roll}, None)
  np.testing.assert_allclose(noised, g.nhwc(arrays["noised"]), atol=2e-6, rtol=0)


@g.cases("lr_schedule*.npz")
def test_learning_rates(file):
  """Rates in float64 to 1e-12 of the base rate, in float32 to 1e-6: its cosine has 1e-7."""
  arrays, meta = g.load(file)
  base, half = (arrays[k].item() if k in arrays else meta[k] for k in ("base_lr", "T_max"))
  rates = lambda epoch_steps: [schedules.cosine_cyclic(base, half, epoch_steps)(
      jnp.int32(epoch_steps * e + epoch_steps - 1)) for e in range(len(arrays["lr"]))]
  np.testing.assert_allclose(rates(32), arrays["lr"], atol=1e-6 * base, rtol=0)
  with jax.enable_x64(True):
    np.testing.assert_allclose(rates(3), arrays["lr"], atol=1e-12 * base, rtol=0)
