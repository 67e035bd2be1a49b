"""The contracts of the Method protocol, over every method: see medae_jax/core/method.py."""

import shutil

import jax
import numpy as np
import pytest

from data_pipelines import dataset as datasets, stream
from medae_jax.core import scoring
from medae_jax import train
from medae_jax.training import feed
from medae_jax.core import parallel
from medae_jax.core import trained as trained_lib
from medae_jax.core import method as method_lib
from tests.contract import cases
from tests.contract.run_steps import flat

NAMES = cases.names()


def example_batch(config, n=8):
  dataset = datasets.open_dataset(config.data, config.seed)
  return next(stream.eval_batches(dataset.split(dataset.splits[0]), batch_size=n))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """Trains a case once for all tests of this module: name -> (workdir, result)."""
  done = {}

  def get(name):
    if name not in done:
      workdir = tmp_path_factory.mktemp(name)
      done[name] = workdir, train.train(cases.config(name), str(workdir))
    return done[name]
  return get


@pytest.mark.parametrize("name", NAMES)
def test_trains_to_the_end_and_says_so(name, trained):
  workdir, result = trained(name)
  config = cases.config(name)
  stages = method_lib.stages_of(method_lib.load(config))
  assert result["finished"] and result["step"] == sum(s.steps for s in stages)
  assert (workdir / "config.json").exists()


@pytest.mark.parametrize("name", NAMES)
def test_restored_from_workdir_alone_scores_the_same(name, trained):
  workdir, result = trained(name)
  run = trained_lib.load(workdir, {"eval.checkpoint": "last"})
  config = run.config
  batch = example_batch(config)
  fresh = scoring.score_fn(config, result["state"])(batch)
  restored = run.score_fn(batch)
  assert run.info["step"] == result["step"]
  for key in fresh:
    np.testing.assert_array_equal(fresh[key], restored[key], err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_score_treats_examples_independently(name, trained):
  """Each example alone, in another order and beside padding: the same up to float order."""
  workdir, _ = trained(name)
  run = trained_lib.load(workdir, {"eval.checkpoint": "last"})
  batch, score = example_batch(run.config), run.score_fn
  together = jax.device_get(score(batch))
  order = np.array([3, 1, 0, 2, 7, 7, 7, 7])
  shuffled = jax.device_get(score({k: v[order] for k, v in batch.items()}))
  for key, value in together.items():
    assert value.shape[0] == 8, f"{key} has no batch axis"
    np.testing.assert_allclose(shuffled[key], value[order], rtol=1e-5, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_train_step_is_pure(name, trained):
  """Twice from the same state and batch: the same numbers, and the state given is not changed."""
  config = cases.config(name)
  method = method_lib.load(config)
  stages = method_lib.stages_of(method)
  if not stages:
    assert trained(name)[1]["step"] == 0
    return
  dataset = feed.stage_dataset(config, stages[0], datasets.open_dataset(config.data, config.seed))
  batch = next(feed.batches_of(dataset, config, stages[0], 0, 0))
  state = train.init_state(method, config, batch)
  before = jax.tree.map(np.array, flat(state.params))
  step = jax.jit(lambda s, b, r: method.train_step(s, b, r, stage=stages[0], axis_name=None))
  results = [flat(step(state, batch, jax.random.key(7))[0].params) for _ in range(2)]
  for key, value in before.items():
    np.testing.assert_array_equal(results[0][key], results[1][key])
    np.testing.assert_array_equal(flat(state.params)[key], value)
  moved = any(np.any(results[0][k] != before[k]) for k in before)
  metrics = step(state, batch, jax.random.key(7))[1]
  assert "loss" in metrics and all(np.ndim(m) == 0 for m in metrics.values())
  assert moved or float(metrics.get("lr", 1)) == 0


@pytest.mark.parametrize("name", NAMES)
def test_resume_is_exact(name, trained, tmp_path):
  """Stopped after step 2 and resumed: bit for bit the parameters of the unbroken run."""
  workdir, result = trained(name)
  if not (workdir / "checkpoints" / "last" / "2").exists():
    assert result["step"] == 0 or result["step"] <= 2, "no checkpoint in mid-training"
    return
  shutil.copytree(workdir, tmp_path / "broken")
  shutil.rmtree(tmp_path / "broken" / "checkpoints" / "last" / str(result["step"]))
  again = train.train(cases.config(name), str(tmp_path / "broken"))
  assert again["finished"] and again["best"] == result["best"]
  for part in ("params", "stats", "opt", "extra"):
    old = flat(parallel.to_host(getattr(result["state"], part)))
    new = flat(parallel.to_host(getattr(again["state"], part)))
    assert sorted(old) == sorted(new)
    for key in old:
      np.testing.assert_array_equal(old[key], new[key], err_msg=f"{part}{key}")


def test_batch_lacks_what_the_method_needs():
  config = cases.config("TwoStreamMethod")
  with config.unlocked():
    config.data.streams = False
  with pytest.raises(ValueError, match="noisy/image"):
    train.train(config, "/nonexistent/never_written")


def test_unknown_method_names_the_known_ones():
  config = cases.config("BatchNormMethod")
  with config.unlocked():
    config.method.name = "nosuch"
  with pytest.raises(ValueError, match="nosuch.*dae"):
    method_lib.load(config)
