"""Options of the loop that must not change the numbers, or only as they say."""

import json

import jax
import numpy as np
import pytest

from medae_jax import train
from medae_jax.core import example, method as method_lib, places, streams
from medae_jax.core.errors import UserError
from medae_jax.training import feed
from tests.contract import cases
from tests.contract.run_steps import flat

pytestmark = pytest.mark.usefixtures("one_trace")


def trained(tmp_path, tag, **changes):
  config = cases.config("dae_brats")
  with config.unlocked():
    config.train.update(eval_every=0, save_every=0, best_metric="val/loss", batch_size=8)
    config.update_from_flattened_dict(changes)
  return train.train(config, str(tmp_path / tag))["state"]


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory):
  return tmp_path_factory.mktemp("plain")


@pytest.fixture(scope="module")
def plain(plain_folder):
  return flat(trained(plain_folder, "run").params)


def gradient_norms(workdir):
  """Of every step, before clipping."""
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return [line["train/grad_norm"] for line in lines if "train/grad_norm" in line]


def assert_close(a, b, atol):
  assert sorted(a) == sorted(b)
  for key in a:
    np.testing.assert_allclose(a[key], b[key], atol=atol, rtol=0, err_msg=key)


def test_steps_per_call_changes_nothing(plain, tmp_path):
  """3 does not divide 4: the last dispatch is shorter. 2: with resident data, below."""
  assert_close(plain, flat(trained(tmp_path, "k", **{"train.steps_per_call": 3}).params), 1e-5)


def test_accumulated_gradients_are_those_of_the_batch(plain, plain_folder, tmp_path):
  """Adam and clipping hide a factor in the parameters: the norm before them must agree as well."""
  assert_close(plain, flat(trained(tmp_path, "a", **{"train.accum": 4}).params), 2e-5)
  want, found = gradient_norms(plain_folder / "run"), gradient_norms(tmp_path / "a")
  assert len(want) == 4 and found == pytest.approx(want, rel=1e-3)


def test_rematerialisation_changes_nothing(plain, tmp_path):
  assert_close(plain, flat(trained(tmp_path, "r", **{"model.remat": True}).params), 1e-5)


def test_bfloat16_keeps_float32_parameters(plain, tmp_path):
  """The steps of a bfloat16 network go where those of float32 go, within a part of the way."""
  params = flat(trained(tmp_path, "b", **{"model.dtype": "bfloat16"}).params)
  config = cases.config("dae_brats")
  method = method_lib.load(config)
  start = flat(method_lib.fresh_state(method, streams.init_key(config),
                                      example.example_batch(method, config, 8)).params)
  assert all(v.dtype == np.float32 for v in params.values())
  length = lambda a, b: np.sqrt(sum(np.sum(np.square(a[k] - b[k], dtype=np.float64)) for k in a))
  moved, apart = length(plain, start), length(plain, params)
  assert moved > 0 and 1e-3 * moved < apart < 0.5 * moved, (apart, moved)


def test_resident_data_and_noise_on_the_device(plain, tmp_path):
  """Deterministic, and another order and noise than the pipeline's."""
  a = flat(trained(tmp_path, "d1", **{"data.resident": True}).params)
  b = flat(trained(tmp_path, "d2", **{"data.resident": True, "train.steps_per_call": 2}).params)
  assert_close(a, b, 1e-5)
  assert any(np.any(np.abs(plain[k] - a[k]) > 1e-6) for k in plain)


def test_resident_order_visits_every_example_once_an_epoch():
  """The rows that the device picks: a permutation in every epoch, whatever the batch size."""
  class Data:
    def resident_arrays(self):
      return {"row": np.arange(10, dtype=np.int32)}
  for size in (4, 7, 10, 13):
    config = cases.config("dae_brats")
    with config.unlocked():
      config.data.resident = True
      config.train.batch_size = size
    arrays, sample = feed.resident_data(Data(), config)
    pick = jax.jit(lambda step: sample(arrays, np.arange(size, dtype=np.int32), step)["row"])
    rows = np.concatenate([pick(np.int32(s)) for s in range(20)])
    for epoch in range(len(rows) // 10):
      assert sorted(rows[10 * epoch:10 * epoch + 10]) == list(range(10)), (size, epoch)


@pytest.fixture(scope="module")
def validated(tmp_path_factory):
  """(workdir, result) of a run with validations."""
  workdir = tmp_path_factory.mktemp("validated")
  return workdir, train.train(cases.config("dae_brats"), str(workdir))


def test_two_noisy_validations_are_the_same_number(validated, tmp_path):
  assert train.train(cases.config("dae_brats"), str(tmp_path))["best"] == validated[1]["best"]


def test_depth_that_the_image_cannot_be_halved_by(tmp_path):
  config = cases.config("dae_brats")
  with config.unlocked():
    config.model.depth = 7
  with pytest.raises(ValueError, match="config.model.depth=7"):
    train.train(config, str(tmp_path / "x"))


def test_batch_that_the_devices_do_not_divide(monkeypatch, tmp_path):
  monkeypatch.setattr(jax, "device_count", lambda: 3)
  with pytest.raises(ValueError, match="not divisible by the 3 devices"):
    train.train(cases.config("dae_brats"), str(tmp_path / "x"))


def test_workdir_of_another_experiment_is_refused(validated):
  config = cases.config("dae_brats")
  with config.unlocked():
    config.model.wf = 3
  with pytest.raises(ValueError, match="another config.model"):
    train.train(config, str(validated[0]))


def test_stage_at():
  stages = [method_lib.Stage("a", 3, begin=0), method_lib.Stage("b", 2, begin=3)]
  assert [method_lib.stage_at(stages, s) for s in (0, 2, 3, 4, 5, 9)] == [0, 0, 1, 1, 1, 1]
  assert method_lib.stage_at([], 0) == 0


@pytest.mark.parametrize("name", ["file", "file/run", "loop", "gone/run"])
def test_workdirs_that_can_be_no_folder_are_one_line(tmp_path, name):
  (tmp_path / "file").touch()
  (tmp_path / "loop").symlink_to("loop")
  (tmp_path / "gone").symlink_to("nothing")
  with pytest.raises(UserError, match=f"{name.split('/')[0]} is no folder but a file, or a link to nothing"):
    places.check_workdir(tmp_path / name)
  with pytest.raises(UserError, match="--workdir is blank"):
    places.check_workdir(" ")
