"""Parameters and statistics of every network keep their names and shapes: runs that exist are read by them.

`python -m tests.unit.models.test_parameters` writes the table anew, after a change that is meant (and that
core/upgrade.py or weights/ then has to tell of).
"""

import hashlib
import importlib
import json
import pathlib

import jax
import jax.numpy as jnp
import pytest

from medae_jax.core import example, method as method_lib
from medae_jax.models import annotation_nets, noisy_unet
from tests.unit.models.test_every_method import METHODS, opened

_TABLE = pathlib.Path(__file__).with_name("parameters.json")
IMAGE = jnp.zeros((1, 32, 32, 3))
# More forms of networks than the methods' small configs have: {name: fields}.
VARIANTS = {
    "dpa_nih:smoke": ({"model.kind": "regular"}, {"model.kind": "residual9"}),
    "morphaeus_cxr:smoke": ({"model.norm": "none"}, {"model.norm": "group", "model.levels": 1},
                            {"model.levels": 2})}


def _variants():
  return [f"{name} {json.dumps(change)}" for name, changes in VARIANTS.items() for change in changes]


def _nets():
  """{name: network} of those that are asked for by name, narrow ones."""
  found = {f"noisy_unet {sides}": noisy_unet.NoisyUNet(width=4, sides=sides) for sides in ("pad", "ceil")}
  for name, net in annotation_nets.NETWORKS.items():
    found[name] = net(width=64, out_channels=3)
  found["basic_unet bilinear"] = annotation_nets.BasicUNet(width=16, out_channels=3, bilinear=True)
  return found


def _shapes(name):
  """Leaves of a state as shapes, and what the network returns."""
  if name in METHODS:
    return opened(name)[1]
  if name in _variants():
    config, change = name.split(" ", 1)
    file, _, argument = config.partition(":")
    c = importlib.import_module(f"configs.{file}").get_config(argument).copy_and_resolve_references()
    with c.unlocked():
      c.update_from_flattened_dict({k: tuple(v) if isinstance(v, list) else v
                                    for k, v in json.loads(change).items()})
    method = method_lib.load(c.lock())
    stages = method_lib.stages_of(method)
    return jax.eval_shape(method.init, jax.random.key(0), example.example_batch(method, c, 2, stages[-1]))
  return jax.eval_shape(_nets()[name].init_with_output, jax.random.key(0), IMAGE)


def _row(name):
  leaves = jax.tree_util.tree_flatten_with_path(_shapes(name))[0]
  lines = sorted(f"{jax.tree_util.keystr(path)} {leaf.shape}" for path, leaf in leaves)
  return [len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]]


NAMES = [*METHODS, *_variants(), *_nets()]


def test_every_network_is_in_the_table():
  assert sorted(json.loads(_TABLE.read_text())) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_are_those_of_runs_that_exist(name):
  assert _row(name) == json.loads(_TABLE.read_text())[name]


PUBLISHED = {  # config: (side, channels, parameters that its method's text states)
    "dae_brats": (128, 4, 7_703_748), "dpa_cifar10:cls=3": (32, 3, 5_902_979),
    "dpa_camelyon16": (64, 3, 4_959), "morphaeus_cxr": (128, 1, 3_854_755),
    "ae_cxr:ae_s": (128, 1, 1_359_457), "ae_cxr:ae_d": (128, 1, 1_626_993),
    "ae_cxr:vae": (128, 1, 5_849_600), "ae_cxr:beta_vae": (128, 1, 419_713),
    "ae_cxr:aae": (128, 1, 6_486_787), "ae_cxr:si_vae,parity=1": (128, 1, 29_955_073)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_the_published_number_of_parameters(name):
  side, channels, expected = PUBLISHED[name]
  file, _, argument = name.partition(":")
  c = importlib.import_module(f"configs.{file}").get_config(argument).copy_and_resolve_references()
  with c.unlocked():
    c.optim.epoch_steps = 1  # not read here
  method = method_lib.load(c.lock())
  image = jnp.zeros((1, side, side, channels))
  made = jax.eval_shape(lambda key: method.init(key, {"image": image}), jax.random.key(0))
  own = {k: v for k, v in made.params.items() if k != "vgg"}
  assert sum(x.size for x in jax.tree.leaves(own)) == expected


if __name__ == "__main__":
  _TABLE.write_text(json.dumps({name: _row(name) for name in NAMES}, indent=1) + "\n")
