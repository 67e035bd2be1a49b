"""Durations in epochs and examples: the steps they come to, what is refused, and old configs."""

import pytest

from medae_jax.core import config as config_lib
from medae_jax.core.errors import UserError
from medae_jax.optim import schedules
from medae_jax.training import durations, early_stop
from tests.contract import cases


def config(name="dae_brats", arg=None, **changes):
  return config_lib.override(cases.load_config(cases.ROOT / "configs" / f"{name}.py", arg),
                             {k.replace("__", "."): v for k, v in changes.items()})


def no_data():
  raise AssertionError("the data were asked for nothing")


def test_published_numbers_of_the_skin_experiment():
  """300 epochs of 1990 images in batches of 6: 332 steps an epoch, the last batch of 4 kept."""
  found = durations.resolve(config("noisy_skin"), lambda: 1990)
  assert found.optim.epoch_steps == 332
  assert found.train.steps == 99_600 == 300 * 332
  assert found.train.eval_every == found.train.save_every == 1660
  assert (found.train.epochs, found.train.eval_every_epochs, found.train.save_every_epochs) == (0, 0, 0)
  rate = schedules.build(found.optim, found.train.steps)
  assert float(rate(99 * 332 - 1)) == pytest.approx(1e-4)
  assert float(rate(99 * 332)) == pytest.approx(1e-5)
  assert durations.resolve(found, no_data) == found  # what config.json holds needs no data again


@pytest.mark.parametrize("every, epochs, refused", [(0, 0.0, True), (5, 0.0, False), (0, 1.0, False)])
def test_stopping_early_needs_validations_in_steps_or_epochs(every, epochs, refused):
  changed = config(train__early_stop=3, train__eval_every=every, train__eval_every_epochs=epochs)
  if refused:
    with pytest.raises(UserError, match="early_stop=3 counts validations, eval_every=0 makes none"):
      durations.resolve(changed, lambda: 100)
  else:
    assert durations.resolve(changed, lambda: 100).train.eval_every > 0


def test_published_epochs_of_the_reference_annotations():
  found = durations.resolve(config("annotation_removal", "reference"), lambda: 410)
  assert found.train.steps == 50 * 103 and found.train.eval_every == 103


@pytest.mark.parametrize("changes, steps", [
    ({"train__steps": 0, "train__epochs": 2.0}, 2 * 7),
    ({"train__steps": 0, "train__epochs": 0.5}, 4),       # 3.5, to the even number
    ({"train__steps": 0, "train__epochs": 0.01}, 1),      # never no step at all
    ({"train__steps": 0, "train__examples": 100}, 7),     # the last batch is not full
    ({"train__steps": 0, "train__examples": 96}, 6)])
def test_lengths_in_other_units(changes, steps):
  found = durations.resolve(config(**changes), lambda: 97)  # batches of 16
  assert found.train.steps == steps
  assert found.train.epochs == 0 and found.train.examples == 0


def test_an_early_stop_needs_validations():
  """It never stopped, without a word."""
  with pytest.raises(ValueError, match="early_stop=2 counts validations, eval_every=0 makes none"):
    durations.resolve(config(train__early_stop=2, train__eval_every=0), no_data)
  given = config(train__early_stop=2, train__eval_every=0, train__eval_every_epochs=1.0)
  assert durations.resolve(given, lambda: 97).train.eval_every == 7


def test_steps_ask_for_no_data():
  given = config()
  assert durations.resolve(given, no_data) is given
  assert durations.resolve(config(train__steps=0, train__examples=32), no_data).train.steps == 2


def test_a_config_from_before_these_fields_is_what_it_was():
  old = config().copy_and_resolve_references()
  with old.unlocked():
    for name in ("epochs", "examples", "eval_every_epochs", "save_every_epochs"):
      del old.train[name]
  assert durations.resolve(old, no_data) is old


@pytest.mark.parametrize("changes, text", [
    ({"train__epochs": 2.0},
     "config.train.steps=67200 and config.train.epochs=2.0.*--config.train.steps=0"),
    ({"train__steps": 0, "train__epochs": 2.0, "train__examples": 5},
     "epochs=2.0 and config.train.examples=5"),
    ({"train__eval_every_epochs": 1.0}, "eval_every=1600 and config.train.eval_every_epochs"),
    ({"train__save_every_epochs": 1.0}, "save_every=1600 and config.train.save_every_epochs")])
def test_two_units_for_one_duration_are_refused(changes, text):
  with pytest.raises(ValueError, match=text):
    durations.resolve(config(**changes), lambda: 97)


def test_fields_that_the_data_decide():
  assert durations.left_to_data(config()) == set()
  assert durations.left_to_data(config("noisy_skin")) == {
      "train.steps", "train.epochs", "train.eval_every", "train.eval_every_epochs",
      "train.save_every", "train.save_every_epochs", "optim.epoch_steps"}


def test_the_first_of_several_streams_counts():
  class Data:
    def train(self):
      return {"noisy": [0] * 9, "clean": [0] * 4}
  assert durations.training_examples(Data()) == 9


def test_an_unresolved_schedule_is_a_bug_of_the_caller():
  with pytest.raises(ValueError, match="resolve comes first"):
    schedules.build(config("noisy_skin").optim, 1)


@pytest.mark.parametrize("mode, value, best, delta, better", [
    ("min", 1.0, None, 0.5, True), ("min", 0.9, 1.0, 0.0, True), ("min", 1.0, 1.0, 0.0, False),
    ("min", 0.75, 1.0, 0.25, False), ("min", 1.1, 1.0, 0.0, False), ("max", 1.1, 1.0, 0.0, True),
    ("max", 0.9, 1.0, 0.0, False), ("max", 1.25, 1.0, 0.25, False), ("max", 1.3, 1.0, 0.25, True),
    ("max", float("inf"), 1.0, 0.0, False), ("min", float("nan"), None, 0.0, False)])
def test_what_is_better_than_the_best(mode, value, best, delta, better):
  assert early_stop.improves(value, best, mode, delta) == better


def test_training_ends_after_so_many_validations_without_a_gain():
  assert [early_stop.exhausted(stale, 3) for stale in range(5)] == [False] * 3 + [True] * 2
  assert not any(early_stop.exhausted(stale, 0) for stale in range(5))
  with pytest.raises(UserError, match="best_mode='least': use min or max"):
    early_stop.improves(1.0, None, "least", 0.0)
