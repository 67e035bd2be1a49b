"""Golden files of the autoencoder zoo: configs, states and parameters under their published names.

Everything comes from the file: sizes, hyper-parameters, draws. Configs are those of configs/ae_cxr.py with
parity=1, changed to the case.
"""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np

from configs import ae_cxr
from medae_jax.core import method as method_lib
from medae_jax.core.method import State
from medae_jax.optim import adam
from tests.parity.double import double
from tests.parity.dpa_golden import nhwc
from tests.parity.morphaeus import networks
from tests.parity.morphaeus.networks import sub


class Case:
  """A golden file and the method of `word` in float64, set up by `fields` {config field: value}.

  Attributes:
    z: the arrays. c: its "config". images: [steps][B,H,W,C] float64. method, config: ours.
    shapes: {published name: shape} of every tensor.
  """

  def __init__(self, file, word: str, fields, trunk=None):
    with np.load(file, allow_pickle=False) as z:
      self.z = {k: z[k] for k in z.files}
    self.c = json.loads(str(self.z["config"]))
    self.images = [double(nhwc(b)) for b in self.z["batches"]]
    self.config = ae_cxr.get_config(f"{word},parity=1")
    with self.config.unlocked():
      o = self.config.optim
      b1, b2 = self.c.get("betas", (o.b1, o.b2))
      o.update(lr=self.c.get("lr", o.lr), b1=b1, b2=b2, schedule="constant", epoch_steps=1)
      self.config.train.update(steps=10**6, epochs=0)
      if "dtype" in self.config.model:
        self.config.model.dtype = "float64"
      self.config.data.update(image_size=self.images[0].shape[1], channels=self.images[0].shape[-1])
      for name, value in fields(self).items():
        group, _, field = name.partition(".")
        self.config[group][field] = value
    self.method = method_lib.load(self.config)
    if trunk is not None:
      self.method.perceptual.pretrained = lambda: {"vgg": {"trunk": trunk(self.z)}}
    self.shapes = self._shapes()

  # -------------------------------------------------------------------------------------- states
  def tensors(self) -> dict:
    """The initial state dict: stored, or the README's closed form in the order of the names."""
    stored = sub(self.z, "sd/")
    if stored:
      return stored
    gain = float(self.c["fill"].rpartition("gain=")[2])
    return {name: networks._fill(name.rpartition(".")[2], shape, k, gain)
            for k, (name, shape) in enumerate(self.shapes.items())}

  def state(self) -> State:
    tensors = self.tensors()
    for name, value in self.method.torch_fields(tensors).items():
      group, _, field = name.partition(".")
      assert name == "model.strides" or self.config[group][field] == value, (name, value)
    params, stats = self.trees(tensors)
    trained = {name: self.method.tx.init({net: params[net] for net in nets})
               for name, nets in self.method.groups.items()}
    return State.create(params, stats, trained)

  def trees(self, tensors):
    """(params, stats) of a whole state dict, in float64."""
    found = self.method.from_torch(tensors)
    return double(found if isinstance(found, tuple) else (found, {}))

  def _made(self) -> State:
    """A fresh state as shapes."""
    return jax.eval_shape(lambda key: self.method.init(key, {"image": self.images[0]}), jax.random.key(0))

  def _shapes(self):
    """Published shapes by name, in the order of the file; of thinned tensors by our trees."""
    after = {k: v for k, v in sub(self.z, "sd_after/").items() if "@" not in k}
    thinned = [k for k in after if f"sd_after/{k}@stride" in self.z]
    probe = {k: np.full((2, 3, 5, 7) if k in thinned else v.shape, i)
             for i, (k, v) in enumerate(after.items())}
    shapes = {k: v.shape for k, v in after.items()}
    if not thinned:
      return shapes
    params, _ = self.method.from_torch(probe)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
      name = list(after)[int(np.ravel(leaf)[0])]
      if name not in thinned:
        continue
      shape = self._made().params
      for key in path:
        shape = shape[key.key]
      dims = shape.shape
      transposed = np.shape(leaf)[2:] == (2, 3)
      shapes[name] = dims[::-1] if len(dims) == 2 else (
          (dims[2], dims[3]) if transposed else (dims[3], dims[2])) + dims[:2]
    return shapes

  # ---------------------------------------------------------------------------------- comparisons
  def published(self, params, stats=None) -> dict:
    """{published name: array} of trees of ours; nets and layers that are not given are left out."""
    numbers = {k: np.arange(int(np.prod(s))).reshape(s) for k, s in self.shapes.items()}
    order = {k: i for i, k in enumerate(self.shapes)}
    which = self.method.from_torch({k: np.full(s, order[k]) for k, s in self.shapes.items()})
    where = self.method.from_torch(numbers)
    if not isinstance(which, tuple):
      which, where = (which, {}), (where, {})
    names, out = list(self.shapes), {}
    for kinds, places, values in zip(which, where, (params, stats or {})):
      for path, leaf in jax.tree_util.tree_leaves_with_path(values):
        if not np.ndim(leaf):  # counters of ours
          continue
        kind, place = kinds, places
        for key in path:
          kind, place = (None if t is None or key.key not in t else t[key.key] for t in (kind, place))
        if kind is None or path[0].key == "vgg":
          continue
        name = names[int(np.ravel(kind)[0])]
        flat = np.empty(np.size(leaf))
        flat[np.ravel(place)] = np.ravel(leaf)
        out[name] = flat.reshape(self.shapes[name])
    return out

  def compare(self, prefix: str, found: dict, *, atol=0.0, share=0.0, skip=()) -> int:
    """Every stored tensor below `prefix` within atol, or within a share of its largest; how many."""
    count = 0
    for name, expected in sub(self.z, prefix).items():
      if "@" in name or name not in found or name in skip:
        continue
      count += 1
      value, bound = found[name], atol + share * np.abs(expected).max()
      if f"{prefix}{name}@stride" in self.z:
        total = self.z[f"{prefix}{name}@sum"]
        np.testing.assert_allclose(value.sum(), total, rtol=0, atol=bound * np.sqrt(value.size), err_msg=name)
        value = value.reshape(-1)[::int(self.z[f"{prefix}{name}@stride"])]
      np.testing.assert_allclose(value, expected, rtol=0, atol=bound, err_msg=prefix + name)
    assert count, prefix
    return count

  def gradients(self, state, group: str) -> dict:
    """What the optimiser `group` saw in its first step, by its first moments, under published names."""
    moments = next(s.mu for s in state.opt[group] if isinstance(s, adam.AdamState))
    return self.published(jax.tree.map(lambda m: m / (1 - self.config.optim.b1), moments))

  def draws(self, step: int, count: int, shape=None):
    """The `count` recorded draws of a step, [count, B, ...]."""
    found = np.stack([self.z[f"noise_draw{count * step + i}"] for i in range(count)])
    return double(found.reshape(count, found.shape[1], -1) if shape is None else found)


def before_norm(names) -> set:
  """Biases whose gradient batch statistics make 0 up to rounding, and the running means that take them up."""
  return {k for k in names if k.endswith("running_mean")
          or (k.endswith(".bias") and k.replace("conv__encode_", "conv__batch_").replace(
              "conv__decode_", "conv__batch_") != k and "final" not in k)}


def unstable_names(z) -> set:
  """The file's own list of such tensors: an array of names, or JSON in one string."""
  found = z["unstable_names"]
  return set(json.loads(str(found))) if found.ndim == 0 else {str(name) for name in found}


__all__ = ["Case", "before_norm", "double", "jnp", "nhwc", "sub", "unstable_names"]
