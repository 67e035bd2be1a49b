"""Learning-rate schedules at the steps where they change: ends, warm-up and its offset, epochs."""

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.optim import schedules


def rates(steps, total=100, **fields):
  """Rates that config.optim with these fields gives at `steps`."""
  config = ml_collections.ConfigDict({"lr": 0.2, **fields})
  schedule = schedules.build(config, total)
  return np.array([float(schedule(jnp.asarray(s, jnp.int32))) for s in steps])


def test_constant():
  np.testing.assert_allclose(rates([0, 1, 99, 5000], schedule="constant"), 0.2, rtol=1e-6)


def test_cosine_goes_from_lr_to_zero_over_the_whole_training():
  found = rates([0, 25, 50, 75, 100, 130], schedule="cosine")
  want = 0.1 * (1 + np.cos(np.pi * np.array([0, 0.25, 0.5, 0.75, 1, 1])))
  np.testing.assert_allclose(found, want, atol=1e-7)


def test_cosine_ends_at_the_final_share():
  found = rates([0, 50, 100], schedule="cosine", final=0.1)
  np.testing.assert_allclose(found, [0.2, 0.2 * 0.55, 0.02], rtol=1e-5)


def test_warm_up_rises_linearly_and_the_cosine_begins_after_it():
  found = rates([0, 1, 9, 10, 55, 100], schedule="cosine", warmup=10)
  # step s of the warm-up has (s + 1) / 10: the first step does something, the tenth has all of it;
  # the cosine's clock starts at step 10 and has 90 steps
  np.testing.assert_allclose(found, [0.02, 0.04, 0.2, 0.2, 0.1, 0.0], rtol=1e-5, atol=1e-8)


def test_piecewise_drops_at_the_epoch_named():
  steps = [0, 19, 20, 21, 39, 40, 99]
  found = rates(steps, schedule="piecewise", boundaries=(2, 4), epoch_steps=10)
  np.testing.assert_allclose(found, [0.2, 0.2, 0.02, 0.02, 0.02, 0.002, 0.002], rtol=1e-5)
  found = rates([4, 5, 7, 8], schedule="piecewise", boundaries=(5, 8), factor=0.5)
  np.testing.assert_allclose(found, [0.2, 0.1, 0.1, 0.05], rtol=1e-6)


def test_cyclic_cosine_is_constant_in_an_epoch_and_rises_again():
  found = rates([0, 9, 10, 19, 20, 30, 40, 80], schedule="cosine_cyclic", half_period=2, epoch_steps=10)
  np.testing.assert_allclose(found, [0.2, 0.2, 0.1, 0.1, 0.0, 0.1, 0.2, 0.2], atol=1e-7)


def test_cyclic_cosine_stays_exact_after_many_periods():
  late = 2 * 333 * 7 * 10_000
  assert rates([late + 7], schedule="cosine_cyclic", half_period=333, epoch_steps=7) == pytest.approx(
      rates([7], schedule="cosine_cyclic", half_period=333, epoch_steps=7), rel=1e-6)


def test_unknown_schedule():
  with pytest.raises(ValueError, match="config.optim.schedule='step'"):
    rates([0], schedule="step")


@pytest.mark.parametrize("schedule, lacking", [("piecewise", "boundaries"), ("cosine_cyclic", "half_period")])
def test_a_schedule_without_its_fields_is_said(schedule, lacking):
  config = ml_collections.ConfigDict({"lr": 0.1, "schedule": schedule, "epoch_steps": 4})
  with pytest.raises(UserError, match=f"config.optim.schedule='{schedule}' reads config.optim.{lacking}"):
    schedules.build(config, 10)
