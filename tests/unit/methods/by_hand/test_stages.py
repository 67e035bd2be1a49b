"""Stages of MorphAEus by hand; nothing is compiled."""

import ml_collections
import pytest

from medae_jax.core.method import Stage
from medae_jax.methods import morphaeus


@pytest.mark.parametrize("epochs, steps, wanted", [
    (2, 100, (("prior", 20), ("deform", 80))), (0, 100, (("deform", 100),)), (10, 100, (("prior", 100),)),
    (11, 100, (("prior", 100),))])
def test_a_stage_without_steps_is_none(epochs, steps, wanted):
  made = object.__new__(morphaeus.Method)
  made.config = ml_collections.ConfigDict({"train": {"steps": steps}, "method": {"warmup_epochs": epochs},
                                           "optim": {"epoch_steps": 10}})
  assert made.stages() == tuple(Stage(*s) for s in wanted)
