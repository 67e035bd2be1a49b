"""Scores in full size, traced for any batch, as --mode=export does: networks of other tests are narrow."""

import importlib

import flax
import jax
import pytest

from medae_jax.core import example, method as method_lib
from medae_jax.export import score_function
from medae_jax.models.layers import conv_forms
from medae_jax.training import durations

FULL = ["dae_brats", "dae_nifti", "annotation_removal", "noisy_skin", "deep_geo_cifar10", "dpa_cifar10",
        "dpa_camelyon16", "piad_cifar10", "piad_camelyon16", "morphaeus_cxr",
        *(f"ae_cxr:{kind}" for kind in ("ae_s", "ae_d", "vae", "beta_vae", "aae", "si_vae", "dae"))]


@pytest.mark.parametrize("name", FULL)
def test_a_score_in_full_size_takes_any_batch(monkeypatch, name):
  """On CPUs, whose own forms of convolutions look at sizes."""
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  file, _, argument = name.partition(":")
  config = importlib.import_module(f"configs.{file}").get_config(argument or None)
  config = durations.without_data(config.copy_and_resolve_references())
  method = method_lib.load(config)
  stage = method_lib.stages_of(method)[-1]
  batch = example.example_batch(method, config, 2, stage)
  state = method.inference_state(jax.eval_shape(method.init, jax.random.key(0), batch))
  weights = flax.traverse_util.flatten_dict(
      {"params": state.params, "stats": state.stats, "extra": state.extra}, sep="/")
  b, = jax.export.symbolic_shape("b")
  streams = [batch, *(v for v in batch.values() if isinstance(v, dict))]
  inputs = {k: next(s[k] for s in streams if k in s) for k in method.score_needs}
  inputs = {k: jax.ShapeDtypeStruct((b, *v.shape[1:]), v.dtype) for k, v in inputs.items()}
  with conv_forms.never():
    found = jax.eval_shape(score_function(method, 0), weights, inputs)
  assert found and all(str(v.shape[0]) == "b" for v in found.values())
