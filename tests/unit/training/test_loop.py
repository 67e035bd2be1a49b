"""What the loop gives a method: keys, batches, validation, best and last checkpoints, resume."""

import numpy as np
import pytest

from medae_jax import train
from medae_jax.core import parallel
from medae_jax.training import interrupt
from tests.unit.training import recorder

LOSSES = (9.0, 9.0, 9.0, 5.0, 9.0, 9.0, 3.0, 9.0, 9.0, 3.0)  # at 3, 6 and 9: 5, 3, 3


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
  """(workdir, result, stats) of nine steps, one at a time."""
  workdir = tmp_path_factory.mktemp("plain") / "run"
  return workdir, *recorder.run(workdir, method__losses=LOSSES)


def same(a, b):
  for key in a:
    np.testing.assert_array_equal(a[key], b[key], err_msg=key)


# --------------------------------------------------------------------------------- keys and batches
def test_the_step_enters_every_key(plain):
  _, result, stats = plain
  assert result["step"] == 9 and result["finished"]
  draws = [*stats["draw"], stats["init"]]
  assert len(set(np.round(draws, 6))) == 10


def test_every_epoch_is_another_order_of_all_examples(plain):
  epochs = plain[2]["rows"].reshape(3, 12)
  for epoch in epochs:
    assert sorted(epoch) == list(range(12))
  assert len({tuple(e) for e in epochs}) == 3 and tuple(epochs[0]) != tuple(range(12))


def test_numbers_of_every_step_are_written_at_the_step_they_end(plain):
  assert recorder.lines(plain[0], "train/loss") == {s + 1: float(s) for s in range(9)}


def test_another_seed_is_another_run(plain, tmp_path):
  _, stats = recorder.run(tmp_path / "run", seed=1)
  assert not set(np.round(stats["draw"], 6)) & set(np.round(plain[2]["draw"], 6))
  assert stats["init"] != plain[2]["init"]
  assert not np.array_equal(stats["rows"], plain[2]["rows"])


@pytest.mark.parametrize("k", [2, 4])
def test_steps_per_call_changes_neither_order_nor_boundaries(plain, tmp_path, k):
  """Batches go in in order; validation and saving fall on the same steps."""
  _, stats = recorder.run(tmp_path / "run", method__losses=LOSSES, train__steps_per_call=k)
  same(plain[2], stats)
  for key in ("val/loss", "val/image", "val/noise"):
    assert recorder.lines(tmp_path / "run", key) == recorder.lines(plain[0], key)
  for which in ("last", "best"):
    assert recorder.saved(tmp_path / "run", which)[0] == recorder.saved(plain[0], which)[0]
  # a line holds the mean of the dispatch's steps: those up to the next multiple of 3 or 4
  ends = {2: [2, 3, 4, 6, 8, 9], 4: [3, 4, 6, 8, 9]}[k]
  want = {b: (a + b - 1) / 2 for a, b in zip([0, *ends], ends)}
  assert recorder.lines(tmp_path / "run", "train/loss") == want


# --------------------------------------------------------------------------- validation and the best
def test_validation_is_the_exact_mean_over_all_images_without_padding(plain):
  """10 images in batches of 4: the last batch has two rows of padding; the last image is 109."""
  found = recorder.lines(plain[0], "val/image")
  assert set(found) == {3, 6, 9}
  np.testing.assert_allclose(list(found.values()), 104.5, rtol=1e-6)


def test_validation_noise_is_the_same_every_time_and_differs_by_batch(plain, tmp_path):
  noise = set(recorder.lines(plain[0], "val/noise").values())
  assert len(noise) == 1
  recorder.run(tmp_path / "run", train__eval_batches=1, train__save_every=0)
  assert set(recorder.lines(tmp_path / "run", "val/noise").values()) != noise
  first = recorder.lines(tmp_path / "run", "val/image")
  np.testing.assert_allclose(list(first.values()), 101.5, rtol=1e-6)  # one batch of four


def test_of_equal_validations_the_first_is_the_best(plain):
  workdir, result, _ = plain
  steps, (state, meta) = recorder.saved(workdir, "best")
  assert result["best"] == 3.0 and steps == [6] and int(state.step) == 6
  assert meta["best"] == 3.0 and float(state.params["net"]["w"]) == 6
  assert recorder.saved(workdir)[0] == [4, 8, 9]


def test_validation_sees_the_state_before_the_step(plain):
  assert recorder.lines(plain[0], "val/loss") == {3: 5.0, 6: 3.0, 9: 3.0}


def test_largest_is_best_where_the_config_says_so(tmp_path):
  result, _ = recorder.run(tmp_path / "run", train__best_mode="max",
                           method__losses=(99.0, 99.0, 99.0, 5.0, 99.0, 99.0, 7.0, 99.0, 99.0, 6.0))
  assert result["best"] == 7.0 and recorder.saved(tmp_path / "run", "best")[0] == [6]


def test_another_validation_number_may_choose(tmp_path):
  result, _ = recorder.run(tmp_path / "run", train__best_metric="val/image", method__losses=LOSSES)
  assert result["best"] == pytest.approx(104.5) and recorder.saved(tmp_path / "run", "best")[0] == [3]


@pytest.mark.parametrize("delta,losses,step,best", [
    # 5 at 3, then less by 0.1 and 0.3: neither counts with a delta of 0.5, so that it ends at 9
    (0.5, {3: 5.0, 6: 4.9, 9: 4.7, 12: 0.0}, 9, 5.0),
    # the same gains count without a delta, and at 12 and 15 nothing is gained
    (0.0, {3: 5.0, 6: 4.6, 9: 4.2, 12: 4.2, 15: 4.3}, 15, 4.2),
    # a gain in between starts the count afresh
    (0.0, {3: 5.0, 6: 6.0, 9: 4.0, 12: 6.0, 15: 6.0}, 15, 4.0)])
def test_training_ends_early_after_so_many_validations_without_a_gain(tmp_path, delta, losses, step, best):
  table = tuple(losses.get(s, 0.0) for s in range(19))
  result, _ = recorder.run(tmp_path / "run", method__stages=(("main", 18),), method__losses=table,
                           train__steps=18, train__early_stop=2, train__early_delta=delta,
                           train__save_every=0)
  assert result["step"] == step and result["finished"]
  assert result["best"] == pytest.approx(best)
  assert recorder.saved(tmp_path / "run")[0] == [step]


def test_the_last_state_is_validated_and_needs_no_delta(tmp_path):
  """9 is no multiple of 4; its gain of 0.1 is less than early_delta and counts all the same."""
  table = (9.0,) * 4 + (5.0,) + (9.0,) * 3 + (5.0, 4.9)
  result, _ = recorder.run(tmp_path / "run", train__eval_every=4, method__losses=table,
                           train__early_delta=0.5, train__save_every=0)
  assert result["best"] == pytest.approx(4.9)
  assert list(recorder.lines(tmp_path / "run", "val/loss")) == [4, 8, 9]


def test_a_loss_that_is_not_finite_is_named_with_its_step_and_not_saved(tmp_path):
  with pytest.raises(FloatingPointError, match="not finite at step 6.*checkpoint of step 4 is kept"):
    recorder.run(tmp_path / "run", data__nan_at=6, train__steps_per_call=4, train__log_every=100)
  assert recorder.saved(tmp_path / "run")[0] == [4]


def test_a_run_that_goes_on_writes_the_lines_after_its_checkpoint_afresh(plain, tmp_path):
  """It broke at step 6 and goes on from 4: numbers of steps 5 and 6 must not be there twice."""
  with pytest.raises(FloatingPointError):
    recorder.run(tmp_path / "run", method__losses=LOSSES, data__nan_at=6)
  assert max(recorder.lines(tmp_path / "run", "train/loss")) >= 6
  _, stats = recorder.run(tmp_path / "run", method__losses=LOSSES)
  same(plain[2], stats)
  for key in ("train/loss", "val/loss"):
    assert recorder.lines(tmp_path / "run", key) == recorder.lines(plain[0], key)


# ----------------------------------------------------------------------------------- stages, resume
STAGES = {"method__stages": (("small", 4), ("large", 5)), "method__losses": LOSSES}


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("staged") / "run"
  return workdir, *recorder.run(workdir, **STAGES)


def test_stages_begin_where_the_one_before_ended(staged):
  _, result, stats = staged
  assert result["step"] == 9
  np.testing.assert_array_equal(stats["begin"], [0] * 4 + [4] * 5)
  assert stats["grown"][0] == 0 and 0 < stats["grown"][1] < 1
  assert len(set(np.round([*stats["draw"], stats["init"], stats["grown"][1]], 6))) == 11


def test_no_stage_repeats_the_data_of_another_stage_or_seed(staged, tmp_path):
  """Stage 1 of seed 0 was once stage 0 of seed 1."""
  _, other = recorder.run(tmp_path / "run", **STAGES, seed=1)
  rows = [staged[2]["rows"][:4], staged[2]["rows"][4:8], other["rows"][:4], other["rows"][4:8]]
  assert len({r.tobytes() for r in rows}) == 4


def test_the_method_is_told_what_validation_found(plain, staged):
  """At 3, 6 and 9: 5, 3 and 3; the best checkpoint holds the state that was validated."""
  for workdir, _, stats in (plain, staged):
    assert float(stats["told"]) == 11.0
    _, (state, _) = recorder.saved(workdir, "best")
    assert float(state.stats["net"]["told"]) == 5.0


def test_only_the_last_stage_chooses_the_best(staged):
  """At step 3, in the first stage, the loss is worse than later; it must not have been kept."""
  workdir, result, _ = staged
  assert result["best"] == 3.0 and recorder.saved(workdir, "best")[0] == [6]
  assert recorder.lines(workdir, "val/loss") == {3: 5.0, 6: 3.0, 9: 3.0}


def test_numbers_of_earlier_stages_do_not_compare(tmp_path):
  table = (0.0,) * 4 + (2.0,) * 6
  result, _ = recorder.run(tmp_path / "run", **{**STAGES, "method__losses": table})
  assert result["best"] == 2.0 and recorder.saved(tmp_path / "run", "best")[0] == [6]


@pytest.mark.parametrize("at", [2, 4, 6, 7])
def test_a_resumed_run_repeats_nothing_and_skips_nothing(staged, tmp_path, monkeypatch, at):
  """2: inside the first stage; 4: exactly between the two; 6: where validation is due; 7: later."""
  workdir = tmp_path / "run"
  with monkeypatch.context() as patch:
    patch.setattr(interrupt.GracefulStop, "requested", lambda self, step: step == at)
    result, _ = recorder.run(workdir, **STAGES)
  assert result["step"] == at and not result["finished"]
  result, stats = recorder.run(workdir, **STAGES)
  assert result["step"] == 9 and result["finished"] and result["best"] == 3.0
  same(staged[2], stats)
  for key in ("val/loss", "train/loss"):
    assert recorder.lines(workdir, key) == recorder.lines(staged[0], key)
  assert recorder.saved(workdir)[0] == sorted({*recorder.saved(staged[0])[0], at})


def test_a_finished_run_is_left_alone(staged):
  result, stats = recorder.run(staged[0], **STAGES)
  assert result["step"] == 9 and result["finished"]
  same(staged[2], stats)


def test_fitting_sees_every_normal_image_once_and_reaches_both_checkpoints(tmp_path):
  """10 training images in batches of 4: padding must not count; the order is that of the source."""
  recorder.run(tmp_path / "run", method__name="tests.unit.training.recorder:FittedMethod",
               data__n=10, method__losses=LOSSES)
  for which, step in (("last", 9), ("best", 6)):
    _, (state, meta) = recorder.saved(tmp_path / "run", which)
    assert int(state.step) == step and meta["done"]
    np.testing.assert_array_equal(state.extra["order"], np.arange(10))
    assert float(state.extra["mean"]) == 4.5 and float(state.extra["of"]) == step


def test_several_runs_at_once_are_what_each_is_alone(staged, tmp_path):
  """Seeds 0 and 1 in one program: keys, batches, validations and checkpoints of their own."""
  folders = [str(tmp_path / name) for name in ("zero", "one")]
  results = train.train_runs([recorder.config(**STAGES, seed=s) for s in (0, 1)], folders)
  alone = [staged, (tmp_path / "alone", *recorder.run(tmp_path / "alone", **STAGES, seed=1))]
  for folder, result, (workdir, single, stats) in zip(folders, results, alone):
    assert (result["step"], result["best"], result["error"]) == (9, single["best"], None)
    same(parallel.to_host(result["state"].stats["net"]), stats)
    for key in ("val/loss", "val/image", "val/noise", "train/loss"):
      assert recorder.lines(folder, key) == recorder.lines(workdir, key)
    for which in ("last", "best"):
      assert recorder.saved(folder, which)[0] == recorder.saved(workdir, which)[0]
