"""The checksum of a checkpoint finds bytes that decode without error and are wrong."""

import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.core import checkpoint, checksums
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


NEW = {"checksum": 0.0, "stage": "main", "batches": {}, "best": None, "stale": 0, "evaluated": -1,
       "done": False}


@pytest.mark.parametrize("name, value, fine", [
    ("evaluated", 0, True), ("evaluated", -2, False), ("evaluated", 0.5, False), ("best", -3.5, True),
    ("best", "x", False), ("stale", -1, False), ("stale", 7, True), ("checksum", -1.0, False),
    ("checksum", float("nan"), False), ("stage", 3, False), ("batches", [], False), ("done", 1, False)])
def test_what_a_checkpoint_says_of_itself_is_looked_at(name, value, fine):
  """NEW is of a run that was not validated yet, and has no best value."""
  assert set(NEW) == set(checksums.META) and checksums.check_meta(dict(NEW), NEW) == {}
  if fine:
    checksums.check_meta({**NEW, name: value}, NEW)
  else:
    with pytest.raises(ValueError, match=f"meta: {name}="):
      checksums.check_meta({**NEW, name: value}, NEW)
  with pytest.raises(ValueError, match=f"meta lacks {name}"):
    checksums.check_meta({k: v for k, v in NEW.items() if k != name}, NEW)


def test_checksums_of_arrays_and_of_the_meta_data_come_back_and_tell_what_changed():
  """Values that change places keep the sum of absolute values; a flipped sign does as well."""
  trees = {"params": {"w": np.array([1.0, 2.0], np.float32)}, "opt": {"m": np.zeros(3, np.float32)}}
  meta = checksums.signed(NEW, "dae", **trees)
  noted = checksums.check_meta(dict(meta), NEW, "dae")
  assert set(noted) == {"params", "opt", "meta"}
  assert all(checksums.agrees(noted, name, tree) for name, tree in trees.items())
  for wrong in ([2.0, 1.0], [1.0, -2.0], [1.0, 2.0000002]):
    assert not checksums.agrees(noted, "params", {"w": np.array(wrong, np.float32)})
  assert checksums.agrees(noted, "stats", {"w": np.ones(2)})  # none was noted
  changed = {**meta, "stale": 1}
  with pytest.raises(ValueError, match="checksum of the meta data differs"):
    checksums.check_meta(dict(changed), NEW, "dae")
  assert set(checksums.check_meta(dict(changed), ("stage",), "dae")) == {"params", "opt", "meta"}  # to score
  with pytest.raises(ValueError, match="of the method dae, and config.json says dpa"):
    checksums.check_meta(dict(meta), NEW, "dpa")


def test_a_checkpoint_whose_values_changed_places_is_passed_over(tmp_path, monkeypatch):
  """As `checksum` alone would not notice."""
  made = checkpoint.Checkpoints(tmp_path)
  try:
    for step in (1, 2):
      state = State.create({"net": {"w": jnp.array([1.0, 3.0])}}).replace(step=jnp.int32(step))
      if step == 2:  # what is noted is of other bytes
        signed = checksums.signed
        other = {"net": {"w": np.array([3.0, 1.0], np.float32)}}
        monkeypatch.setattr(checksums, "signed", lambda meta, method, model, opt: signed(
            meta, method, model={**model, "params": other}, opt=opt))
      made.save("last", state, {"stage": "main", "best": None, "checksum": 4.0, "batches": {}})
    made.wait()
    state, _ = made.restore_model("last")
  finally:
    made.close()
  assert int(state.step) == 1
