"""Checkpoints: what is damaged is passed over, said, and replaced by the next save; nothing is deleted."""

import json
import os
import pathlib
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medae_jax.core import checkpoint
from medae_jax.core.errors import UserError
from medae_jax.core.method import State

OPTIMISER = optax.adam(1e-3)


def state_of(step, scale=1.0):
  params = {"net": {"kernel": scale * jnp.arange(1.0, 13.0).reshape(3, 4)}}
  return State.create(params, {"net": {"mean": jnp.full(4, scale)}},
                      {"main": OPTIMISER.init(params["net"])}).replace(
                          step=jnp.int32(step), extra={"fit": {"mean": jnp.full(3, scale + step)}})


def meta_of(state):
  return {"stage": "main", "batches": {}, "best": 0.5, "stale": 0, "evaluated": 1, "done": False,
          "checksum": checkpoint.checksum(state.params)}


def opt_of(_):
  return jax.eval_shape(lambda: state_of(0)).opt


@pytest.fixture
def saved(tmp_path):
  """Checkpoints of steps 1 and 2."""
  saver = checkpoint.Checkpoints(tmp_path)
  for step in (1, 2):
    saver.save("last", state_of(step), meta_of(state_of(step)))
  saver.close()
  return tmp_path


def _newest(workdir):
  return workdir / "checkpoints" / "last" / "2"


def _zero_largest(part):
  def damage(workdir):
    path = max((p for p in (_newest(workdir) / part).rglob("*") if p.is_file()),
               key=lambda p: p.stat().st_size)
    path.write_bytes(bytes(path.stat().st_size))
  return damage


def _remove(part):
  return lambda workdir: shutil.rmtree(_newest(workdir) / part)


def _meta(change):
  def damage(workdir):
    path = next(p for p in (_newest(workdir) / "meta").rglob("*") if p.name == "metadata")
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
  return damage


def _of_another_optimiser(meta):
  """Each part is whole; they are not of one state."""
  found = meta.pop("crc")
  meta["crc"] = {**found, "opt": found["opt"] ^ 1}


def _cut_meta(workdir):
  path = next(p for p in (_newest(workdir) / "meta").rglob("*") if p.name == "metadata")
  path.write_text(path.read_text()[:20])


def _pipe(name):
  def damage(workdir):
    path = next(p for p in sorted(_newest(workdir).rglob("*")) if p.name == name)
    path.unlink()
    os.mkfifo(path)
  return damage


DAMAGE = {
    "pipe for the model": _pipe("manifest.ocdbt"),
    "model zeroed": _zero_largest("model"), "model gone": _remove("model"),
    "optimiser zeroed": _zero_largest("opt"), "optimiser gone": _remove("opt"),
    "meta gone": _remove("meta"), "meta cut": _cut_meta,
    "meta without batches": _meta(lambda m: m.pop("batches")),
    "meta without stage": _meta(lambda m: m.pop("stage")),
    "meta without done": _meta(lambda m: m.pop("done")),
    "meta without checksum": _meta(lambda m: m.pop("checksum")),
    "another checksum": _meta(lambda m: m.update(checksum=1.0)),
    "another optimiser": _meta(_of_another_optimiser),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_the_older_one_is_taken_and_the_next_save_replaces_it(saved, what):
  DAMAGE[what](saved)
  saver = checkpoint.Checkpoints(saved)
  state, meta = saver.restore("last", opt_of)
  assert int(state.step) == 1 and meta["stage"] == "main"
  jax.tree.map(np.testing.assert_array_equal, state.opt, state_of(1).opt)
  again = state_of(2, 3.0)
  saver.save("last", again, meta_of(again))
  saver.close()
  reader = checkpoint.Checkpoints(saved)
  state, _ = reader.restore("last", opt_of)
  reader.close()
  assert int(state.step) == 2
  np.testing.assert_array_equal(state.params["net"]["kernel"], again.params["net"]["kernel"])
  assert [p.name for p in (saved / "checkpoints" / "last.damaged").iterdir()] == ["2"]


def test_a_smaller_step_than_the_damaged_one_is_saved(saved):
  DAMAGE["model gone"](saved)
  shutil.rmtree(saved / "checkpoints" / "last" / "1")
  saver = checkpoint.Checkpoints(saved)
  with pytest.raises(ValueError, match=r"no checkpoint under .*last can be read: step 2: .*delete"):
    saver.restore("last", opt_of)
  saver.save("last", state_of(1), meta_of(state_of(1)))
  saver.close()
  assert checkpoint.Checkpoints(saved).steps("last") == [1]


def test_a_listed_step_that_nobody_has_read_is_looked_at(saved):
  DAMAGE["model zeroed"](saved)
  saver = checkpoint.Checkpoints(saved)  # as with the best one, which resuming does not read
  saver.save("last", state_of(2), meta_of(state_of(2)))
  saver.close()
  assert int(checkpoint.Checkpoints(saved).restore("last", opt_of)[0].step) == 2


def test_a_sound_one_is_left_alone(saved):
  before = {p: p.stat().st_mtime_ns for p in _newest(saved).rglob("*")}
  saver = checkpoint.Checkpoints(saved)
  saver.save("last", state_of(2, 5.0), meta_of(state_of(2, 5.0)))
  saver.close()
  assert before == {p: p.stat().st_mtime_ns for p in _newest(saved).rglob("*")}
  assert not pathlib.Path(saved / "checkpoints" / "last.damaged").exists()


def test_scoring_needs_neither_optimiser_nor_the_loops_notes(saved):
  for what in ("optimiser gone", "meta without stage"):
    DAMAGE[what](saved)
  state, _ = checkpoint.Checkpoints(saved).restore_model("last")
  assert int(state.step) == 2
  for part in ("params", "stats", "extra"):  # of which what was fitted after training is one
    jax.tree.map(np.testing.assert_array_equal, getattr(state, part), getattr(state_of(2), part))


def test_a_pipe_that_the_manager_would_open_is_refused(saved):
  """It waited for ever."""
  _pipe("_CHECKPOINT_METADATA")(saved)
  with pytest.raises(UserError, match="last/2/_CHECKPOINT_METADATA is no file but"):
    checkpoint.Checkpoints(saved)


@pytest.mark.parametrize("step, where", [(7, "the checkpoint of step 7"), (None, "a checkpoint")])
def test_a_failed_save_is_one_line_and_an_interruption_goes_on(step, where):
  for kind in (KeyboardInterrupt, SystemExit):
    with pytest.raises(kind), checkpoint._readable_errors(step):
      raise kind
  for text, said in (("ENOSPC\nand", "the disk is full; free some space"), ("odd\nand", "odd. Earlier")):
    with (pytest.raises(OSError, match=f"{where} could not be saved: {said}") as error,
          checkpoint._readable_errors(step)):
      raise ValueError(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("later, found", [((3,), 3), ((), None)])
def test_a_step_that_was_replaced_meanwhile_gives_way_to_the_newer_one(tmp_path, monkeypatch, later, found):
  """It was listed, and is gone when it is read: no damage."""
  manager = types.SimpleNamespace(directory=tmp_path, steps=[2], reload=lambda: manager.steps.__setitem__(
      slice(None), later), all_steps=lambda: manager.steps)
  made = object.__new__(checkpoint.Checkpoints)
  vars(made).update(_managers={"last": manager}, _damaged={"last": set()}, _sound={"last": set()})

  def read(which, step, structure):
    if step == 2:
      raise FileNotFoundError(step)
    return step
  monkeypatch.setattr(made, "_read", read)
  assert made.restore("last", None) == found and not made._damaged["last"]
  assert made.restore("last", None, at_most=2) is None


def test_one_best_is_kept_and_as_many_last_as_asked_and_a_step_is_at_most_itself(tmp_path):
  saver = checkpoint.Checkpoints(tmp_path, keep=2)
  for step in (1, 2, 3):
    for which in ("last", "best"):
      saver.save(which, state_of(step), meta_of(state_of(step)))
  saver.wait()
  assert saver.steps("last") == [3, 2] and saver.steps("best") == [3]
  assert [int(saver.restore("last", opt_of, at_most=n)[0].step) for n in (2, 3, 9)] == [2, 3, 3]
  assert saver.restore("last", opt_of, at_most=1) is None
  saver.close()


def test_networks_and_optimisers_of_older_checkpoints_have_the_names_of_today(tmp_path):
  """DPA's critic was called dis: its optimiser is found by the name that its network has."""
  (tmp_path / "config.json").write_text(json.dumps({"method": {"name": "dpa"}}))
  given = state_of(3)
  given = given.replace(params={"dis": given.params["net"]}, opt={"dis": given.opt["main"]}, stats={})
  saver = checkpoint.Checkpoints(tmp_path)
  saver.save("last", given, meta_of(given))
  saver.wait()
  found, _ = saver.restore("last", lambda meta: {"critic": opt_of(None)["main"]})
  assert set(found.params) == set(found.opt) == {"critic"}
  jax.tree.map(np.testing.assert_array_equal, found.opt["critic"], given.opt["dis"])


@pytest.mark.parametrize("index, moved", [(0, True), (1, False)])
def test_folders_are_moved_by_the_first_process_alone(tmp_path, monkeypatch, index, moved):
  monkeypatch.setattr(checkpoint.jax, "process_index", lambda: index)
  (tmp_path / "3").mkdir()
  checkpoint.Checkpoints._move(None, [(tmp_path / "3", tmp_path / "old" / "3")])
  assert (tmp_path / "old" / "3").is_dir() == moved != (tmp_path / "3").is_dir()


def test_what_a_model_has_none_of_is_there_and_empty():
  one = {"net": {"w": 1}}
  assert checkpoint._fill_empty({"params": one, "stats": None}) == {"params": one, "stats": {}, "extra": {}}
