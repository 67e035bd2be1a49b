"""In bfloat16 the last layer computes in float32: the reconstruction is not rounded to 8 bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import annotation_removal
from medae_jax.core import config as config_lib, method as method_lib
from medae_jax.core.errors import UserError
from medae_jax.models import annotation_nets, dae_unet, dpa_nets, noisy_unet, piad_nets

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
