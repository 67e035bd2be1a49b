"""In bfloat16 the last layer computes in float32: the reconstruction is not rounded to 8 bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import annotation_removal
from medae_jax.core import config as config_lib, method as method_lib
from medae_jax.core.errors import UserError
from medae_jax.models import annotation_layers, annotation_nets, dae_unet, dpa_nets, noisy_unet, piad_nets

NETS = {"dae": lambda: dae_unet.UNet(channels=1, depth=2, wf=2, dtype=jnp.bfloat16),
        **{name: (lambda kind=kind: kind(out_channels=1, dtype=jnp.bfloat16, head="linear"))
           for name, kind in annotation_nets.NETWORKS.items()},
        "noisy_annotation": lambda: noisy_unet.NoisyUNet(width=2, dtype=jnp.bfloat16),
        "dpa": lambda: dpa_nets.Decoder((4, 4, 4), 16, 1, kind="residual18", dtype=jnp.bfloat16),
        "dpa_regular": lambda: dpa_nets.Decoder((4, 4, 4), 16, 1, kind="regular", dtype=jnp.bfloat16),
        "piad": lambda: piad_nets.Decoder((4, 4, 4), 1, dtype=jnp.bfloat16)}


@pytest.mark.parametrize("name", NETS)
def test_reconstructions_are_not_rounded(name):
  net = NETS[name]()
  decoder = isinstance(net, (dpa_nets.Decoder, piad_nets.Decoder))
  x = jax.random.uniform(jax.random.key(0), (8, 1, 1, 4) if decoder else (1, 16, 16, 1))
  out = np.asarray(net.apply(net.init(jax.random.key(1), x), x), np.float32)
  rounded = out.astype(jnp.bfloat16).astype(np.float32)
  assert np.mean(out != rounded) > 0.5


@pytest.mark.parametrize("network", ["basic_unet", "jung_unet"])
def test_accumulation_with_batch_statistics_is_refused(network):
  config = config_lib.override(annotation_removal.get_config("smoke"), {
      "model.network": network, "model.head": "residual", "train.accum": 2})
  with pytest.raises(UserError, match="changes the statistics"):
    method_lib.load(config)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("features", [2, 5])
def test_a_convolution_of_single_pixels_is_a_product_of_its_channels(features):
  """As sums (few channels, on GPUs) or as a convolution: values and gradients."""
  conv = annotation_layers.Conv(features, 1)
  x = jax.random.normal(jax.random.key(0), (2, 3, 4, 8), jnp.bfloat16)
  variables = conv.init(jax.random.key(1), x)
  product = lambda p, x: jnp.einsum("bhwi,io->bhwo", x.astype(jnp.float32), p["kernel"][0, 0],
                                    precision="highest") + p["bias"]
  y = conv.apply(variables, x)
  assert y.dtype == jnp.float32 and variables["params"]["kernel"].shape == (1, 1, 8, features)
  np.testing.assert_allclose(y, product(variables["params"], x), rtol=1e-5, atol=1e-5)
  narrow = annotation_layers.Conv(features, 1, dtype=jnp.bfloat16)
  assert narrow.apply(variables, x).dtype == jnp.bfloat16
  gradients = [jax.grad(lambda p, x, f=f: jnp.sum(jnp.sin(f(p, x))), (0, 1))(variables["params"], x)
               for f in (lambda p, x: conv.apply({"params": p}, x), product)]
  for a, b in zip(*map(jax.tree.leaves, gradients)):
    assert a.dtype == b.dtype
    np.testing.assert_allclose(np.float32(a), np.float32(b), rtol=1e-2 if a.dtype == jnp.bfloat16 else 1e-4,
                               atol=1e-4)
