"""What a run decides after a validation, at the end of a stage and of training; nothing is compiled."""

import json
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from data_pipelines import dataset
from medae_jax.core import streams
from medae_jax.core.method import Stage, State
from medae_jax.training import bookkeeping, feed, together, validate, writer
from tests.unit.training import recorder


class Kept:
  """Checkpoints that note what they are asked for: `done` ends as [(how, which, step, best, done)]."""

  def __init__(self, last=(), best=None):
    self.done, self._last, self._best = [], list(last), best

  def save(self, which, state, meta, how="save"):
    self.done.append((how, which, int(state.step), meta["best"], meta["done"]))

  def replace(self, which, state, meta):
    self.save(which, state, meta, "replace")

  def steps(self, which):
    return self._last

  def restore_model(self, which):
    return self._best

  def wait(self):
    pass


def state(step, **extra):
  return State.create({"net": {"w": jnp.ones(2)}}).replace(step=jnp.int32(step), extra=extra)


def run(values=(), **changes):
  """A run whose validations find `values`, one after the other."""
  made, found = object.__new__(bookkeeping.Run), iter(values)
  train = {"best_metric": "val/loss", "best_mode": "min", "eval_batch_size": 2}
  vars(made).update(
      workdir="w", alone=False, error=None, ended=False, between=lambda: None, before_checkpoints=None,
      config=ml_collections.ConfigDict({"train": train}), checkpoints=Kept(),
      meta={"stage": "main", "batches": {"main": {}}, "best": None, "stale": 0, "evaluated": -1,
            "done": False},
      validator=lambda s, step, between: {"val/loss": next(found)},
      writer=types.SimpleNamespace(scalars=lambda *_: None),
      method=types.SimpleNamespace(
          after_validation=lambda s, v: s.replace(extra={"told": v["val/loss"]}), fits=False))
  vars(made).update(changes)
  return made


def test_any_gain_counts_where_no_least_gain_is_given():
  """Runs from before config.train.early_delta have none."""
  made = run((5.0, 4.9, 4.95, 4.8))
  stale = []
  for step in (3, 6, 9, 12):
    assert float(made.evaluate(state(step)).extra["told"]) > 0
    stale.append(made.meta["stale"])
  assert stale == [0, 0, 1, 0] and made.meta["best"] == 4.8 and made.meta["evaluated"] == 12
  assert [c[:4] for c in made.checkpoints.done] == [("save", "best", 3, 5.0), ("save", "best", 6, 4.9),
                                                    ("save", "best", 12, 4.8)]
  made.evaluate(state(12))  # done: the numbers of a step are written once
  made.validator = lambda *_: {"val/loss": 1.0}
  made.evaluate(state(15), choose=False)
  assert made.meta["best"] == 4.8 and made.meta["stale"] == 0 and len(made.checkpoints.done) == 3


@pytest.mark.parametrize("mode, kept", [("min", [6, 12]), ("max", [6])])
def test_a_validation_that_is_not_finite_is_said_and_never_the_best(mode, kept, caplog):
  """Chosen once, nothing beat it any more, and no checkpoint whose best is NaN can be read again."""
  made = run((np.nan, 5.0, np.inf if mode == "max" else -np.inf, 4.0))
  made.config.train.best_mode = mode
  for step in (3, 6, 9, 12):
    made.evaluate(state(step))
  assert [c[2] for c in made.checkpoints.done] == kept and made.meta["best"] == {"min": 4.0, "max": 5.0}[mode]
  assert made.meta["stale"] == {"min": 0, "max": 2}[mode]
  said = [r.getMessage() for r in caplog.records]
  assert [m[:16] for m in said] == ["val/loss of step"] * 2 and "of step 3 is not finite (nan)" in said[0]


@pytest.mark.parametrize("last, replaced", [((), False), ((9, 6), True)])
def test_a_validation_after_a_signal_reaches_the_checkpoint_that_was_there(last, replaced):
  made, order = run((1.0,), checkpoints=Kept(last)), []
  made.meta["best"], made.config.train.early_delta = 1.25, 0.5  # at the end any gain counts
  made.checkpoints.save = lambda which, s, meta, how="save": order.append((how, which, meta["best"]))
  made.leave(state(9), validate=True, picture=lambda s: order.append("picture"))
  again = [("replace", "last", 1.0)] if replaced else []
  assert order == [("save", "best", 1.0), *again, "picture", ("save", "last", 1.0)]
  order.clear()
  made.leave(state(9), validate=True)  # nothing new is known of it
  assert order == [("save", "last", 1.0)]


@pytest.mark.parametrize("best, fitted", [(6, [6, 9]), (9, [9]), (None, [9])])
def test_the_fit_reaches_the_best_first_and_each_is_of_its_own_state(best, fitted, monkeypatch):
  """A kill between the two must not leave a last one that says both are done."""
  asked = []
  kept = Kept(best=None if best is None else (state(best, old=1), {"best": 0.5, "done": False}))
  made = run(checkpoints=kept, state=state(9), method=types.SimpleNamespace(fits=True))

  def finalize(s):
    asked.append(int(s.step))
    return s.replace(extra={"fit": int(s.step)})
  monkeypatch.setattr(made, "finalize", finalize)
  made.finish()
  assert sorted(asked) == fitted and made.meta["done"] and made.state.extra == {"fit": 9}
  want = [("replace", "last", 9, None, True)]
  assert kept.done == ([("replace", "best", best, 0.5, True)] if best else []) + want
  made.finish()
  assert len(asked) == len(fitted)


def test_a_failure_ends_its_own_run_where_others_go_on():
  def broken(error):
    raise error
  made = run(checkpoints=Kept((6, 3)))
  assert made.guard(lambda a: a + 1, 1) == 2 and made.going
  assert made.guard(broken, FloatingPointError("nan.")) is None and not made.going
  assert made.error == "nan. The checkpoint of step 6 is kept."
  assert made.guard(lambda: pytest.fail("asked")) is None
  for error in (OSError("full"), ValueError("odd")):
    with pytest.raises(type(error), match=str(error)):
      run(alone=True).guard(broken, error)
  with pytest.raises(FloatingPointError, match="There is no checkpoint yet"):
    run(alone=True).guard(broken, FloatingPointError("nan."))
  with pytest.raises(KeyError):
    run().guard(broken, KeyError("a bug"))


def test_numbers_that_are_not_finite_are_named_with_their_step():
  with pytest.raises(FloatingPointError, match="train/loss is not finite at step 7:"):
    bookkeeping._check_finite(9, {"loss": np.array([1.0, np.inf, 2.0])})


def test_runs_that_fit_together_share_what_is_compiled_and_the_shape_of_images():
  def of(crop=None, **changes):
    config = recorder.config(**changes).unlock()
    config.data.crop_size = crop
    return together.signature(config.lock())
  assert of() == of(seed=3) == of(data__n=24)
  assert len({of(), of(4), of(8), of(train__accum=2), of(method__losses=(2.0,))}) == 5


def test_a_stage_opens_its_own_data_where_it_changes_them(monkeypatch):
  """The size of a batch is no matter of the data set, and the run's config stays as it is."""
  opened = []
  monkeypatch.setattr(feed.datasets, "open_dataset",
                      lambda data, seed: opened.append((data.to_dict(), seed)) or "own")
  config = ml_collections.ConfigDict({"seed": 3, "data": {"name": "a", "image_size": 32}}).lock()
  for data, found in (({}, "given"), ({"batch_size": 8}, "given"),
                      ({"batch_size": 8, "image_size": 16}, "own")):
    assert feed.stage_dataset(config, Stage("s", 5, data), "given") == found
  assert opened == [({"name": "a", "image_size": 16}, 3)] and config.data.image_size == 32


def test_images_of_unknown_label_do_not_count_in_the_auroc():
  """-1: a slice of an abnormal scan that nobody marked. One of four pairs is in the wrong order."""
  made = object.__new__(validate.Validator)
  made._config = ml_collections.ConfigDict({"train": {"eval_batch_size": 3}})
  arrays = {"image": np.array([1.0, 3.0, 2.0, 4.0, 9.0, 0.0]), "label": np.array([0, 0, 1, 1, -1, -1])}
  made._dataset = types.SimpleNamespace(split=lambda name: {"val": dataset.ArraySource(arrays)}[name])
  made._score = lambda model, batch: batch["image"]
  assert made._image_auroc(None, lambda: None) == 0.75


@pytest.mark.parametrize("most, loss, calls", [(0, 4.0, 3), (1, 2.0, 1)])
def test_a_validation_by_hand(most, loss, calls):
  """Means over the images, not over batches; one picture, of the first batch, with what is shown."""
  made, pictures, between = object.__new__(validate.Validator), [], []
  made._config = ml_collections.ConfigDict({"train": {"eval_batch_size": 2, "eval_batches": most}})
  levels = np.array([1.0, 3.0, 2.0, 4.0, 10.0])
  made._source = dataset.ArraySource({"image": np.ones((5, 2, 3, 1)) * levels[:, None, None, None] / 10})
  made._step = lambda model, batch: {"loss": 10 * batch["image"][:, 0, 0, 0]}
  made._pictures = lambda model, batch: {"recon": 1 - batch["image"]}
  made._writer = types.SimpleNamespace(image=lambda *told: pictures.append(told))
  made._auroc = False
  found = made(State.create({}), 7, lambda: between.append(1))
  assert found == {"val/loss": pytest.approx(loss)} and len(between) == calls
  (step, name, picture), = pictures
  assert (step, name, picture.shape, picture.dtype) == (7, "val/image_recon", (4, 6, 3), np.uint8)
  np.testing.assert_array_equal(picture[[0, 2]][:, [0, 3], 0], [[25, 229], [76, 178]])


@pytest.mark.parametrize("streams", [(), ("clean", "noisy")])
def test_validations_go_through_the_same_batches(monkeypatch, streams):
  """Their graph is made once (tenths of a second each time): streams side by side, the shortest ends it."""
  asked = []
  monkeypatch.setattr(validate.stream, "evaluation", lambda source, **options: asked.append(options) or [
      {"image": np.full((2, 1, 1, 1), v), "valid": np.array([True, v < 3]), "index": np.arange(2)}
      for v in range(1, source + 1)])
  made = object.__new__(validate.Validator)
  made._config = ml_collections.ConfigDict({"train": {"eval_batch_size": 2, "eval_batches": 0}})
  made._source = dict(zip(streams, (3, 2))) if streams else 3
  made._step = lambda model, batch: {"loss": (batch["noisy"] if streams else batch)["image"].ravel()}
  made._pictures = lambda model, batch: {}
  for _ in range(2):
    assert made._losses(None, 7, lambda: None) == {"loss": 6 / 4 if streams else 9 / 5}
  assert len(asked) == (len(streams) or 1) and asked[0]["batch_size"] == 2 and asked[0]["with_batch_ops"]


@pytest.mark.parametrize("before, grown", [("first", True), ("second", False)])
def test_a_new_stage_grows_the_state_once_by_its_own_key(before, grown, monkeypatch):
  """Of runs from before named streams the key depends on the stage's place alone."""
  batches = lambda data, config, stage, number, step, views: iter([(stage.name, number, step), "next"])
  monkeypatch.setattr(feed, "stage_dataset", lambda config, stage, data: (stage.name, data))
  monkeypatch.setattr(feed, "batches_of", batches)
  monkeypatch.setattr(bookkeeping.checkpoint, "batch_spec", lambda batch: ("shape", batch))
  monkeypatch.setattr(bookkeeping.streams, "grow_key", lambda config, stage, number: (stage.name, number))
  monkeypatch.setattr(bookkeeping, "Validator", lambda method, data, config, writer: data)
  stage = Stage("second", 9, begin=4)
  method = types.SimpleNamespace(
      views=None, grow=lambda s, stage, key, batch: s.replace(extra={"by": (key, batch)}))
  made = run(method=method, state=state(7), dataset="given")
  made.meta["stage"] = before
  made.enter(stage, 1)
  assert made.state.extra == ({"by": (("second", 1), ("second", 1, 3))} if grown else {})
  assert made.meta["stage"] == "second" and made.validator == ("second", "given")
  assert made.meta["batches"] == {"main": {}, "second": ("shape", ("second", 1, 3))}
  assert next(made.batches) == "next"


@pytest.mark.parametrize("resident", [None, "arrays"])
def test_every_stage_has_the_key_of_its_own_steps(monkeypatch, resident):
  """The same key in two stages would draw the same noise in both."""
  built, c = [], recorder.config()
  monkeypatch.setattr(feed, "resident_data", lambda *_: (resident, None))
  monkeypatch.setattr(together.parallel, "train_step_fn", lambda fn, key, **more: built.append((key, more)))
  method = types.SimpleNamespace(views=1, cache=lambda state, arrays, stage: (arrays, stage.name))
  run = types.SimpleNamespace(config=c, method=method, state=None, stage_data=None, batches=[],
                              first_batch={"index": np.arange(2)})
  stages = [Stage("small", 4), Stage("large", 4)]
  for stage in stages:
    together.Alone(run, stage)
  bits = lambda key: tuple(jax.random.key_data(key).tolist())
  assert [bits(key) for key, _ in built] == [bits(streams.step_key(c, stage)) for stage in stages]
  assert len({bits(key) for key, _ in built}) == 2
  assert [more["resident"] for _, more in built] == [
      None if resident is None else (resident, stage.name) for stage in stages]


@pytest.mark.parametrize("index", [0, 1])
def test_the_first_process_alone_writes_the_log(monkeypatch, index):
  asked = []
  monkeypatch.setattr(bookkeeping, "Writer", lambda *given, **more: asked.append((*given, more)))
  monkeypatch.setattr(jax, "process_index", lambda: index)
  bookkeeping.Run("config", "w", None, None, None, {"evaluated": 3}, state(3), None)
  assert asked == [("w", 3, {"active": index == 0, "validated": True, "config": "config"})]


@pytest.mark.parametrize("validated, kept", [(True, [1, 2, 2]), (False, [1, 2])])
def test_a_resumed_run_keeps_the_numbers_up_to_its_step(tmp_path, validated, kept):
  """Those of the validation at that step where it is not made again."""
  path = tmp_path / "metrics.jsonl"
  events = [{"step": 1, "val/loss": 1.0}, {"step": 2, "train/loss": 2.0}, {"step": 2, "val/loss": 3.0},
            {"step": 3, "train/loss": 4.0}]
  path.write_text("".join(json.dumps(e) + "\n" for e in events))
  writer._drop_after(path, 2, validated)
  found = [json.loads(line) for line in path.read_text().splitlines()]
  assert [e["step"] for e in found] == kept and found[:2] == events[:2]
