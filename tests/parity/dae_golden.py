"""Readers of the golden vectors of the DAE."""

import json

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import common
from medae_jax.weights import dae as dae_weights
from tests.golden_cases import file_cases

FAMILY = "dae"


def cases(pattern):
  """Decorator: the test's argument `file` is each file of the family by pattern."""
  return pytest.mark.parametrize("file", file_cases(FAMILY, pattern))


def load(file):
  """(arrays, what meta.json says of the case)."""
  with np.load(file, allow_pickle=False) as z:
    arrays = {k: z[k] for k in z.files}
  meta = file.parent / "meta.json"
  return arrays, json.loads(meta.read_text()).get(file.stem, {}) if meta.is_file() else {}


def group(arrays, prefix):
  """{rest of the name: array} of the names that begin with `prefix`."""
  return {k[len(prefix):]: v for k, v in arrays.items() if k.startswith(prefix)}


def optim(meta, **changes):
  """config.optim of the published update rule, except where the case says otherwise."""
  b1, b2 = meta.get("betas", (0.9, 0.999))
  return dict(schedule="cosine_cyclic", b1=b1, b2=b2, eps=meta.get("eps", 1e-8),
              weight_decay=meta.get("weight_decay", 1e-5), clip=meta.get("max_norm", 0.5),
              amsgrad=meta.get("amsgrad", True), **changes)


def config(depth=2, wf=1, dtype="float32", rule=None):
  """A config of the method; `rule` is its optim (default: the published one)."""
  c = common.base()
  c.method = ml_collections.ConfigDict(dict(name="dae", loss_over="all"))
  c.model = ml_collections.ConfigDict(dict(depth=depth, wf=wf, dtype=dtype, precision="highest",
                                           remat=False))
  c.optim = ml_collections.ConfigDict(
      rule or optim({}, lr=1e-3, half_period=100, epoch_steps=1))
  return c


def nhwc(x):
  """[B,C,H,W] -> [B,H,W,C]."""
  return jnp.asarray(x).transpose(0, 2, 3, 1)


def to_reference(params, depth):
  """Our tree -> names and layouts of the reference, through from_torch's own inverse."""
  names = {}
  def block(prefix, tree):
    for part, at in (("conv_a", 1), ("norm_a", 3), ("conv_b", 5), ("norm_b", 7)):
      leaf = tree[part]
      if part.startswith("conv"):
        names[f"{prefix}.{at}.weight"] = np.asarray(leaf["kernel"]).transpose(3, 2, 0, 1)
      else:
        names[f"{prefix}.{at}.weight"] = np.asarray(leaf["scale"])
      names[f"{prefix}.{at}.bias"] = np.asarray(leaf["bias"])
  for i in range(depth):
    block(f"down_path.{i}.block", params[f"down_{i}"])
  for j in range(depth - 1):
    i = depth - 2 - j
    names[f"up_path.{j}.up.weight"] = np.asarray(params[f"up_{i}"]["kernel"]).transpose(0, 3, 1, 2)
    names[f"up_path.{j}.up.bias"] = np.asarray(params[f"up_{i}"]["bias"])
    block(f"up_path.{j}.conv_block.block", params[f"up_block_{i}"])
  names["last.weight"] = np.asarray(params["last"]["kernel"]).T[:, :, None, None]
  names["last.bias"] = np.asarray(params["last"]["bias"])
  return names


def sizes(reference):
  """(depth, wf) of a case's parameters."""
  sizes = dae_weights.torch_sizes(reference)
  return sizes["depth"], sizes["wf"]


def largest(tree):
  """Largest absolute value of all leaves."""
  return max(np.abs(x).max() for x in jax.tree.leaves(tree))
