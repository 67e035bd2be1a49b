"""What holds for the networks of every method: frozen ones are read, products have the config's precision."""

import collections
import functools
import importlib

import jax
import pytest

from medae_jax.core import example, method as method_lib

OF_SCORE = {"trunk": "vgg19", "trunk_weights": "random:0", "trunk_widths": (4,) * 5, "trunk_layers": "r11"}
OF_LOSS = {"layers": "r11", "vgg_weights": "random:1", "vgg_widths": (4,) * 5, "vgg_dtype": "bfloat16"}
# {config: products of the score that stay in float32: the last layer of each network, and four of the trunk
# that dpa and piad score with}
METHODS = {
    "dae_brats:smoke": 1, "annotation_removal:smoke": 1, "deep_geo_cifar10:smoke": 1,
    "deep_if_camelyon16:smoke": 0, "dpa_camelyon16:smoke": 1 + 4, "piad_camelyon16:smoke": 1 + 4,
    "morphaeus_cxr:smoke": 2, "ae_cxr:ae_s,smoke": 1, "ae_cxr:ae_d,smoke": 1, "ae_cxr:vae,smoke": 2,
    "ae_cxr:beta_vae,smoke": 2, "ae_cxr:aae,smoke": 2, "ae_cxr:si_vae,smoke": 2, "ae_cxr:dae,smoke": 1}
FROZEN = sorted({"frozen_camelyon16:smoke", *METHODS} - {"annotation_removal:smoke",
                                                         "deep_geo_cifar10:smoke"})


@functools.cache
def opened(name):
  """(method, its state as shapes, a batch) in bfloat16, with trunks in loss and score where they may be."""
  file, _, argument = name.partition(":")
  c = importlib.import_module(f"configs.{file}").get_config(argument).copy_and_resolve_references()
  with c.unlocked():
    (c.model if "dtype" in c.model else c.method).dtype = "bfloat16"
    if "trunk_weights" in c.method.get("score", {}):
      c.method.score.update(OF_SCORE)
    if "layers" in c.method:
      c.method.update(loss="l2" if "dae" in argument else "perceptual", **OF_LOSS)
  method = method_lib.load(c.lock())
  stages = method_lib.stages_of(method)
  batch = example.example_batch(method, c, 2, stages[-1] if stages else None)
  return method, jax.eval_shape(method.init, jax.random.key(0), batch), batch


@pytest.mark.parametrize("name", FROZEN)
def test_every_network_that_no_step_trains_is_read_from_its_file(name):
  """`init` leaves zeros in the places of frozen networks: `pretrained` has to fill each of them."""
  method, state, _ = opened(name)
  shapes = lambda tree: {jax.tree_util.keystr(k): v.shape for k, v in
                         jax.tree_util.tree_flatten_with_path(tree)[0]}
  found = shapes(method.pretrained())
  assert found and found == shapes({k: v for k, v in state.params.items() if k in method.frozen})


def equations(jaxpr):
  """All of a program, those inside other equations included."""
  for equation in jaxpr.eqns:
    yield equation
    for value in equation.params.values():
      for inner in value if isinstance(value, (list, tuple)) else [value]:
        if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
          yield from equations(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_products_are_in_bfloat16_but_for_the_last_layer(name):
  """A cast that is missing promotes all that follows: as right, half as fast, twice the memory."""
  method, state, batch = opened(name)
  program = jax.make_jaxpr(method.score)(state, {k: batch[k] for k in method.score_needs})
  found = collections.Counter(
      tuple(sorted({str(v.aval.dtype) for v in e.invars})) for e in equations(program.jaxpr)
      if e.primitive.name in ("conv_general_dilated", "dot_general", "ffi_call"))  # oneDNN's
  assert found[("float32",)] == METHODS[name] and set(found) <= {("bfloat16",), ("float32",)}, found
  assert found[("bfloat16",)] > 1


@pytest.mark.parametrize("name", sorted(METHODS))
def test_programs_are_the_approved_ones(name, tmp_path):
  """Score and training step as they are traced: tests/approved/programs.py."""
  from tests.approved import compare, programs  # which read METHODS here
  compare.compared(programs.title(name), tmp_path)
