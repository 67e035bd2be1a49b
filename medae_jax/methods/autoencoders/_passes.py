"""Networks applied one after the other: statistics of batch normalisation go from call to call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax


class Pass:
  """use = Pass(...); use("enc", image) -> what the network returns.

  Args:
    nets: {name: module}, called as module(x, train, axis_name).
    params, stats: {name: tree}; nets without statistics have none.
    train: normalise by the batch, where the network has such a normalisation, and update the statistics.

  Attributes:
    stats: {name: tree}, those after all calls so far.
  """

  def __init__(self, nets: Mapping[str, Any], params, stats, train: bool = False,
               axis_name: str | None = None):
    self._nets, self._params, self.stats = nets, params, dict(stats)
    self._options = (train, axis_name)

  def __call__(self, net: str, x):
    variables = {"params": self._params[net], "batch_stats": self.stats.get(net, {})}
    out, changed = self._nets[net].apply(variables, x, *self._options, mutable=["batch_stats"])
    if changed.get("batch_stats"):
      self.stats[net] = changed["batch_stats"]
    return out


class Making:
  """As `Pass`, for networks that do not exist yet: each call makes the network's parameters.

  Attributes:
    params, stats: {name: tree} of the networks called so far.
  """

  def __init__(self, nets: Mapping[str, Any], rng: jax.Array):
    self._nets, self.params, self.stats = nets, {}, {}
    self._keys = dict(zip(nets, jax.random.split(rng, len(nets))))

  def __call__(self, net: str, x):
    made = self._nets[net].init(self._keys[net], x)
    self.params[net] = made["params"]
    if "batch_stats" in made:
      self.stats[net] = made["batch_stats"]
    return self._nets[net].apply(made, x)
