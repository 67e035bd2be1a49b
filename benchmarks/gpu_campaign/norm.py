"""Swish + GroupNorm on the device: steps in both forms in turn, kernels' values against the plain form."""

from __future__ import annotations

import sys

import numpy as np

from benchmarks import compare
from benchmarks.gpu_campaign import turns

# [B,H,W,C], groups, padded: the layers of a DAE of full size, and a side that is no power of two.
LAYERS = {"full": [((16, 128, 128, 64), 8, True), ((16, 128, 128, 64), 8, False),
                   ((16, 64, 64, 128), 16, True), ((16, 64, 64, 128), 16, False),
                   ((16, 32, 32, 256), 16, True), ((16, 16, 16, 512), 32, True),
                   ((3, 120, 100, 64), 8, True)],
          "tiny": [((2, 5, 7, 8), 4, True)]}
LIMIT = 1e-5  # float32 sums of up to 10^6 terms in another order


def norm(args) -> dict:
  """{"steps": {batch: {form: row}}, "layers": {layer: largest errors}}."""
  found: dict = {"steps": {}, "layers": layers(args), "limit": LIMIT}
  for batch in (0,) if args.size == "tiny" else (16, 64):
    setting = turns.setting_of("dae", args)
    setting["batch"] = batch or setting["batch"]
    contenders = [(form, compare.Contender("ours", "bfloat16", {**setting, "model": {"norm_kernel": form}},
                                           args.device, sys.executable, 100, {}))
                  for form in ("plain", "pallas")]
    found["steps"][str(setting["batch"])] = turns.in_turn(contenders, args)
  return found


def layers(args) -> dict:
  """{layer: {"error": {"y", "x", "bias", "scale", "shift"}, "within"}} of value and gradients in float32."""
  import jax
  import jax.numpy as jnp

  from medae_jax.models.layers import swish_norm, swish_norm_pallas
  interpret = args.device == "cpu"  # a rehearsal: run by JAX, not by Triton
  found = {}
  for shape, groups, pad in LAYERS[args.size]:
    rng = np.random.default_rng(0)
    draw = lambda *s, rng=rng: jnp.asarray(rng.normal(1, 2, s), jnp.float32)
    inputs = draw(*shape), draw(shape[-1]), draw(shape[-1]), draw(shape[-1])
    grad = draw(shape[0], shape[1] + 2 * pad, shape[2] + 2 * pad, shape[3])

    def both(form, inputs, grad):
      y, pull = jax.vjp(form, *inputs)
      return (y, *pull(grad))
    forms = [lambda *a, g=groups, p=pad: swish_norm_pallas.swish_group_norm(*a, g, p, 1e-5, interpret),
             lambda *a, g=groups, p=pad: swish_norm.swish_group_norm(*a, g, p)]
    got, want = (jax.jit(both, static_argnums=0)(form, inputs, grad) for form in forms)
    error = {name: float(jnp.max(jnp.abs(g - w)) / jnp.max(jnp.abs(w)))
             for name, g, w in zip(("y", "x", "bias", "scale", "shift"), got, want)}
    name = f"{'x'.join(map(str, shape))}, {groups} groups{', padded' * pad}"
    found[name] = {"error": error, "within": max(error.values()) <= LIMIT}
  return found
