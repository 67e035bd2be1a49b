"""The contracts of the Method protocol, over every method: see medae_jax/core/method.py."""

import functools
import shutil

import jax
import numpy as np
from PIL import Image
import pytest

from data_pipelines import dataset as datasets, stream
from medae_jax import bench, evaluate, export, predict, train
from medae_jax.core import (
  example,
  method as method_lib,
  needs,
  parallel,
  scoring,
  streams,
  trained as trained_lib,
)
from medae_jax.core.device import timing
from medae_jax.core.errors import UserError
from medae_jax.tasks.anomaly import evaluator
from medae_jax.training import feed, start
from tests import tiny_methods
from tests.contract import cases
from tests.contract.run_steps import flat
from tests.contract.spoilt import spoilt, with_pixel
from tests.watched import fields_of, unread, watch, watch_fields

pytestmark = pytest.mark.usefixtures("one_trace")
NAMES = cases.names()
MODES_TRIED = ("dae_brats", "annotation_removal", "noisy_skin")  # in every run


def example_batch(config, n=8):
  dataset = datasets.open_dataset(config.data, config.seed)
  return next(stream.eval_batches(dataset.split(dataset.splits[0]), batch_size=n))


@pytest.fixture(scope="module")
def read():
  """{name of a method: fields of its config that it has read so far}."""
  with pytest.MonkeyPatch.context() as patch:
    yield watch_fields(patch)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, read):
  """Trains a case once for all tests of this module, watched: name -> (workdir, result)."""
  done = {}

  def get(name):
    if name not in done:
      workdir = tmp_path_factory.mktemp(name)
      with pytest.MonkeyPatch.context() as patch:
        watch(patch)
        done[name] = workdir, train.train(cases.config(name), str(workdir))
    return done[name]
  return get


@pytest.fixture(scope="module")
def restored(trained):
  """name -> (the run as its workdir alone gives it, examples): opened, and its score compiled, once."""
  @functools.cache
  def get(name):
    run = trained_lib.load(trained(name)[0], {"eval.checkpoint": "last"})
    return run, example_batch(run.config)
  return get


@pytest.mark.slow
@pytest.mark.parametrize("name", [  # a family shares what scores; the other real ones by hand
    n if n in (*cases.TINY, *MODES_TRIED) else pytest.param(n, marks=pytest.mark.campaign)
    for n in NAMES if ":" not in n])
def test_the_other_modes_read_members_of_the_protocol_only(name, trained, monkeypatch, tmp_path, request):
  """Training is watched by the fixture; here evaluate, export, bench and, for pictures, predict."""
  workdir, _ = trained(name)
  shutil.copytree(workdir, tmp_path / "w")
  read = watch(monkeypatch)
  evaluate.evaluate(tmp_path / "w")
  assert {"score", "score_needs", "score_optional"} <= read
  if name in ("annotation_removal", "noisy_skin", "dpa_camelyon16", "piad_camelyon16"):
    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(picture).save(tmp_path / "in" / "a.png")
    assert predict.predict(tmp_path / "w", {"predict.input": str(tmp_path / "in"),
                                            "predict.output": str(tmp_path / "out")})
  folder = export.export(tmp_path / "w", tmp_path / "x")
  assert "inference_state" in read
  with np.load(folder / "weights.npz", allow_pickle=False) as weights:
    foreign = [n for n in weights.files if "critic" in n or n.startswith(("params/dis/", "stats/policy/"))]
  assert not foreign
  by_hand = "campaign" in (request.config.getoption("-m") or "")
  if by_hand or name not in MODES_TRIED[1:]:  # whose steps take half a minute to compile once more
    config = cases.config(name)
    with config.unlocked():
      config.bench.update(repeats=1, seconds=1e-3)
    monkeypatch.setitem(timing.MATMUL_SIZES, "cpu", (128,))
    bench.bench(config)
    assert {"needs", "stages", "pretrained", "init"} <= read


def test_an_undeclared_attribute_stops_a_mode(monkeypatch):
  watch(monkeypatch)
  method = method_lib.load(cases.config("BatchNormMethod"))
  assert method.fits is False
  with pytest.raises(AssertionError, match="method.net"):
    hasattr(method, "net")


@pytest.mark.parametrize("name", NAMES)
def test_trains_to_the_end_and_says_so(name, trained):
  workdir, result = trained(name)
  config = cases.config(name)
  stages = method_lib.stages_of(method_lib.load(config))
  assert result["finished"] and result["step"] == sum(s.steps for s in stages)
  assert (workdir / "config.json").exists()


@pytest.mark.parametrize("name", NAMES)
def test_restored_from_workdir_alone_scores_the_same(name, trained, restored):
  result, (run, batch) = trained(name)[1], restored(name)
  fresh, again = scoring.score_fn(run.config, result["state"])(batch), run.score_fn(batch)
  assert run.info["step"] == result["step"]
  for key in fresh:
    np.testing.assert_array_equal(fresh[key], again[key], err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_inference_state_is_what_score_reads(name, restored):
  """Nothing less: the same scores bit for bit. Nothing more: the compiled score uses every array."""
  run, batch = restored(name)
  method, kept = run.method, run.method.inference_state(run.state)
  batch = {k: v for k, v in batch.items() if k in method.score_needs}
  whole, part = run.score_fn(batch), scoring.score_fn(run.config, kept)(batch)
  assert sorted(whole) == sorted(part)
  for key, value in whole.items():
    np.testing.assert_array_equal(value, part[key], err_msg=key)
  assert not kept.opt and not unread(method, kept, batch)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in cases.TINY])
def test_every_field_of_the_config_is_read(name, restored, read):
  """By the method and what it calls: a field that is dropped on its way would act no more."""
  run, batch = restored(name)
  run.score_fn(batch)
  assert not fields_of(run.config) - read[run.config.method.name] - cases.UNREAD.get(name, set())


@pytest.mark.parametrize("name", NAMES)
def test_score_treats_examples_independently(name, restored):
  """Each example alone, in another order and beside padding: the same up to float order."""
  run, batch = restored(name)
  score = run.score_fn
  together = jax.device_get(score(batch))
  order = np.array([3, 1, 0, 2, 7, 7, 7, 7])
  shuffled = jax.device_get(score({k: v[order] for k, v in batch.items()}))
  for key, value in together.items():
    assert value.shape[0] == 8, f"{key} has no batch axis"
    np.testing.assert_allclose(shuffled[key], value[order], rtol=1e-5, atol=1e-5, err_msg=key)


@pytest.mark.slow
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
  batch = next(feed.batches_of(dataset, config, stages[0], 0, 0, method.views))
  before = jax.tree.map(np.array, start.init_state(method, config, batch))
  stage = stages[0]
  step = parallel.train_step_fn(  # the program of training, which is compiled already; it takes its state
      lambda s, b, r, axis: method.train_step(s, b, r, stage=stage, axis_name=axis),
      streams.step_key(config, stage), mode=config.parallel.mode, reduce=config.parallel.reduce)
  given = [jax.tree.map(np.array, before) for _ in range(2)]
  (one, metrics), (two, _) = [step(s, jax.tree.map(lambda x: x[None], dict(batch))) for s in given]
  results = [flat(s.params) for s in (one, two)]
  for key, value in flat(before.params).items():
    np.testing.assert_array_equal(results[0][key], results[1][key])
    np.testing.assert_array_equal(flat(given[0].params)[key], value)
  moved = any(np.any(results[0][k] != v) for k, v in flat(before.params).items())
  assert "loss" in metrics and all(np.shape(m) == (1,) for m in metrics.values())
  assert moved or float(metrics.get("lr", [1])[0]) == 0


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_images_in_the_unit_range(name, restored):
  """Also of bright images and of a network that is far off."""
  run, batch = restored(name)
  need = run.method.needs.get("image")
  if need is not None and need.high is None:
    batch = {**batch, "image": 3 * batch["image"]}
  wild = run.state.replace(params={net: jax.tree.map(lambda x: 3 * x, p) if net != "vgg" else p
                                   for net, p in run.state.params.items()})
  for key, value in scoring.pictures_fn(run.config, wild)(batch).items():
    assert value.ndim == 4 and value.shape[:3] == batch["image"].shape[:3], key
    assert value.min() >= 0 and value.max() <= 1, key


def test_pictures_are_never_merged_into_what_score_returns(trained, tmp_path, monkeypatch):
  shutil.copytree(trained("BatchNormMethod")[0], tmp_path / "w")
  black = lambda self, state, batch, rng: {"map": 0 * batch["image"], "score": 0 * batch["image"]}
  monkeypatch.setattr(tiny_methods.BatchNormMethod, "pictures", black, raising=False)
  shown, show = [], evaluator.Evaluator.show
  monkeypatch.setattr(evaluator.Evaluator, "show",
                      lambda self, *args: (shown.append(args), show(self, *args)))
  evaluate.evaluate(tmp_path / "w")
  score = trained_lib.load(tmp_path / "w").score
  assert shown
  for batch, outputs, pictures in shown:
    assert not np.any(pictures["map"]) and not np.any(pictures["score"])
    for key, value in score(batch["image"]).items():
      np.testing.assert_allclose(outputs[key], value, rtol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_batch_is_checked_against_needs(name):
  config = cases.config(name)
  method = method_lib.load(config)
  stages = method_lib.stages_of(method)
  batch = example.example_batch(method, config, 8, stages[0] if stages else None, C=3)
  needs.check_batch(method, batch)
  for key, need in method.needs.items():
    assert name in cases.TINY or need.low is not None, f"{key} of {name} says no range"
    refused = [(lambda x: None, f"the data has no '{key}'"), (lambda x: x[..., 0], "has shape"),
               (lambda x: x.astype(np.float16), "is float16, the method needs"),
               (with_pixel(np.nan), "holds NaN"), (with_pixel(np.inf), "holds NaN or infinity")]
    if need.low is not None:
      refused.append((with_pixel(need.low - 0.01), "holds values from"))
    if need.high is not None:
      refused.append((with_pixel(need.high + 0.01), "holds values from"))
    for change, text in refused:
      with pytest.raises(UserError, match=text) as error:
        needs.check_batch(method, spoilt(batch, key, change))
      assert key in str(error.value) and "\n" not in str(error.value)
    edges = [with_pixel(v) for v in (need.low, need.high) if v is not None]
    for change in edges:
      needs.check_batch(method, spoilt(batch, key, change))


def test_training_refuses_values_out_of_range_before_it_writes(tmp_path, monkeypatch):
  config = cases.config("BatchNormMethod")
  monkeypatch.setattr(tiny_methods.BatchNormMethod, "needs",
                      {"image": needs.Need("BHWC", low=2)}, raising=False)
  with pytest.raises(UserError, match=r"'image' holds values from .* needs \[B,H,W,C\] float32 >= 2"):
    train.train(config, str(tmp_path / "w"))
  assert not (tmp_path / "w").exists()


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
