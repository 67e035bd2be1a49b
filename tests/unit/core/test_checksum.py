"""The checksum of a checkpoint finds bytes that decode without error and are wrong."""

import jax.numpy as jnp
import pytest

from medae_jax.core import checkpoint
from medae_jax.core.method import State


def test_checksum_is_the_sum_of_absolute_values():
  assert checkpoint.checksum({"a": {"w": jnp.array([-1.0, 2.0])}, "b": jnp.full((2, 2), -0.5)}) == 5.0


@pytest.mark.parametrize("wrong", [False, True])
def test_a_checkpoint_whose_parameters_changed_is_passed_over(tmp_path, wrong):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  try:
    for step, value in ((1, 1.0), (2, 2.0)):
      state = State.create({"net": {"w": jnp.full(3, value)}}).replace(step=jnp.int32(step))
      noted = checkpoint.checksum(state.params) + (wrong and step == 2)
      checkpoints.save("last", state, {"stage": "main", "best": None, "checksum": noted, "batches": {}})
    checkpoints.wait()
    state, _ = checkpoints.restore_model("last")
  finally:
    checkpoints.close()
  assert int(state.step) == (1 if wrong else 2)
