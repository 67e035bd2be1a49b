"""predict: two processes do not write into one folder at the same time."""

import errno

import numpy as np
from PIL import Image
import pytest

from medae_jax import predict
from medae_jax.core import scratch
from medae_jax.core.errors import UserError
from tests.unit import known_maps


def test_two_predictions_do_not_write_into_one_folder_at_once(tmp_path, monkeypatch):
  """The table of the one that ended first was written over."""
  run = known_maps.write(tmp_path / "run", known_maps.config(""), last=1.0)
  out = tmp_path / "out"
  for folder in (out, tmp_path / "in"):
    folder.mkdir()
  Image.fromarray(np.full((8, 8), 100, np.uint8)).save(tmp_path / "in/a.png")
  asked = {"predict.input": str(tmp_path / "in"), "predict.output": str(out)}
  with scratch.alone(out, "--output"), pytest.raises(UserError, match=(
      "another process writes its results into .*out: wait for it, or choose another --output$")):
    predict.predict(run, asked)
  assert not any(out.iterdir())

  def no_locks(*_):
    raise OSError(errno.ENOLCK, "no locks here")
  with monkeypatch.context() as changed:
    changed.setattr(scratch.fcntl, "flock", no_locks)
    assert [row["error"] for row in predict.predict(run, asked)] == [""]
  assert [row["error"] for row in predict.predict(run, asked)] == [""]  # the lock goes with its run
