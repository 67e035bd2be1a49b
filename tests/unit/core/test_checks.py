"""Values that no run can have are refused by name, before anything is opened or compiled."""

import ml_collections
import pytest

from configs import common, dae_brats, dpa_camelyon16, piad_camelyon16
from medae_jax import bench, convert, train
from medae_jax.core import checks, trained
from medae_jax.core.errors import UserError
from medae_jax.tasks import base
from tests.contract import cases
from tests.unit import fake_run, tiny_dae

WRONG = {
    "method.score": ("mean", 3), "method.score.test_noise_draws": (-1,),
    "method.score.test_noise_mirror": (3, True),
    "method.ssim_window": (10, 0),
    "method.score.erosion": (-1, "five"), "method.score.image_score": ("mode",),
    "method.score.weights_positive": ((-1.0,), "one", (float("nan"), 1.0)),
    "model.dtype": ("float12", "int8", 32), "model.wf": (-1, 28, 2.5), "model.depth": (0, -1, True),
    "model.precision": ("none",), "optim.lr": (-1.0, float("nan"), "fast"), "optim.b1": (1.0, -0.1),
    "optim.clip": (-1.0,), "seed": (-1, 2**70, 1.5, "0"), "train.steps": (-1, 1.5),
    "train.batch_size": (0, -4), "train.accum": (0, -1), "train.steps_per_call": (0, -1),
    "train.log_every": (0, -1), "train.eval_every": (-1,), "train.save_every": (-5,),
    "train.keep": (0,), "train.best_mode": ("most",), "train.early_delta": (float("inf"), -1.0),
    "eval.splits": ((), (1,), "test", ("test", "val", "test")),
    "eval.batch_size": (0,), "eval.checkpoint": ("nosuch", None),
    "eval.bootstrap": (-1,), "parallel.mode": ("pmapp",), "parallel.reduce": ("float16",),
    "bench.repeats": (0,),
    "bench.seconds": (0.0,), "export.formats": (("tflite",), (), ("onnx", "onnx")),
    "export.image_size": ((1, 2, 3), -1),
}


def changed(config, name, value):
  config = ml_collections.ConfigDict(config.to_dict())
  *groups, field = name.split(".")
  node = config
  for group in groups:
    node = node[group]
  with node.ignore_type():
    node[field] = value
  return config


@pytest.mark.parametrize("name", WRONG)
def test_out_of_range(name):
  for value in WRONG[name]:
    with pytest.raises(checks.UserError, match=rf"config\.{name}(=| is missing)") as e:
      checks.check(changed(tiny_dae.config(), name, value))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("path", cases.config_files(), ids=lambda p: p.stem)
def test_every_config_of_the_house_passes(path):
  config = cases.load_config(path, "smoke")
  checks.check(config)
  base.check(config)


@pytest.mark.parametrize("name", ["train", "eval", "predict", "model", "method.name", "data.name",
                                  "train.steps", "eval.kind", "seed"])
def test_what_is_missing_is_named(name):
  config = tiny_dae.config().to_dict()
  *groups, field = name.split(".")
  node = config
  for group in groups:
    node = node[group]
  del node[field]
  with pytest.raises(checks.UserError, match=rf"config\.{name} is missing"):
    checks.check(ml_collections.ConfigDict(config))
  node[field] = None
  with pytest.raises(checks.UserError, match=rf"config\.{name} is missing"):
    checks.check(ml_collections.ConfigDict(config))


def test_methods_outside_the_house_may_mean_something_else():
  config = changed(tiny_dae.config(), "model.depth", "deep")
  config.method.name = "my_lab.method:Method"
  checks.check(config)


def test_every_mode_asks_before_it_works(tmp_path):
  wrong = changed(tiny_dae.config(), "train.accum", 0)
  for call in (lambda: train.train(wrong, str(tmp_path / "w")), lambda: bench.bench(wrong),
               lambda: convert.convert(tmp_path / "none.pt", wrong, tmp_path / "w")):
    with pytest.raises(checks.UserError, match="config.train.accum=0: .* whole number from 1"):
      call()
  assert not (tmp_path / "w").exists()
  run = fake_run.make(tmp_path / "run")
  with pytest.raises(checks.UserError, match="config.eval.batch_size=0"):
    trained.load(run, {"eval.batch_size": 0})


TASK = [
    ("eval.kind", "nonsense", "config.eval.kind='nonsense'"),
    ("eval.kind", "restoration", "needs config.eval.fit_threshold.*made for another task"),
    ("eval.baseline_channel", 9, "baseline_channel=9: the images have 1 channel"),
    ("eval.quantile", 2.0, "eval.quantile=2.0: .* up to 1"),
    ("eval.dice_thresholds", "abc", "eval.dice_thresholds='abc'"),
    ("eval.components", -1, "eval.components=-1"),
    ("eval.splits", ("train", "tset"), "has no split train, tset; config.eval.splits can be val, test"),
    ("predict.orientation", "LLL", "predict.orientation='LLL'"),
    ("predict.threshold", float("nan"), "predict.threshold=nan"),
    ("predict.batch_size", 0, "predict.batch_size=0"),
    ("method.score.weights_positive", (1.0, 2.0), "weights_positive=.*one weight each"),
]


@pytest.mark.parametrize("name, value, match", TASK, ids=[f"{n}={v}" for n, v, _ in TASK])
def test_what_evaluation_refuses_is_refused_before_training(name, value, match, tmp_path):
  config = cases.config("BatchNormMethod")
  config = ml_collections.ConfigDict(config.to_dict())
  config.method.score.weights_positive = ()
  with pytest.raises(checks.UserError, match=match):
    train.train(changed(config, name, value), str(tmp_path / "w"))
  assert not (tmp_path / "w" / "config.json").exists()


@pytest.mark.parametrize("task", ["anomaly", "restoration", "segmentation"])
def test_a_task_brings_its_own_fields_and_no_others(task):
  own = base.plugin(task, "fields")
  config = common.base(task)
  assert config.eval.kind == task
  assert {f"eval.{k}" for k in own.EVAL} | {f"predict.{k}" for k in own.PREDICT} <= set(own.RULES)
  for other in {"anomaly", "restoration", "segmentation"} - {task}:
    for name in set(base.plugin(other, "fields").EVAL) - set(own.EVAL):
      assert name not in config.eval


def test_segmentation_and_restoration_ranges():
  c = common.base("restoration")
  c.method = ml_collections.ConfigDict({"name": "x", "score": {"threshold": 0.5, "dilate": 1,
                                                              "fill": "network"}})
  base.check(c)
  for name, value in (("predict.tile", 100), ("predict.tile", 50), ("predict.overlap", 300),
                      ("predict.overlap", -1), ("method.score.dilate", -1),
                      ("eval.inpaint", "magic"), ("method.score.fill", "zeros")):
    with pytest.raises(checks.UserError, match=name):
      base.check(changed(c, name, value))
  c = common.base("segmentation")
  base.check(c)
  for name, value in (("predict.threshold", 1.0), ("eval.overlays", -1)):
    with pytest.raises(checks.UserError, match=name):
      base.check(changed(c, name, value))


def test_fields_of_the_data_are_checked_where_no_data_are_opened():
  """predict reads config.data.modalities of a run; an edited config.json is one line there too."""
  config = dae_brats.get_config("demo").copy_and_resolve_references()
  base.check(config)
  with config.unlocked(), config.data.ignore_type():
    config.data.modalities = -1
  with pytest.raises(UserError, match="config.data.modalities=-1"):
    base.check(config)


@pytest.mark.parametrize("value", [None, (), 3])
def test_optim_is_a_group(value):
  config = dae_brats.get_config("demo").copy_and_resolve_references()
  with config.unlocked(), config.ignore_type():
    config.optim = value
  with pytest.raises(UserError, match=r"config\.optim"):
    checks.check(config)


@pytest.mark.parametrize("size, accum, fits", [
    (8, 1, True), (8, 4, True), (8, 8, True), (8, 3, False), (8, 16, False), (6, 4, False)])
def test_slices_of_a_batch_are_alike(size, accum, fits):
  config = changed(changed(tiny_dae.config(), "train.batch_size", size), "train.accum", accum)
  if fits:
    return checks.check(config)
  with pytest.raises(checks.UserError, match=f"accum={accum} does not divide config.train.batch_size={size}"):
    checks.check(config)


@pytest.mark.parametrize("module, term", [(dpa_camelyon16, "adversarial"), (piad_camelyon16, "adv_image"),
                                          (piad_camelyon16, "adv_latent")])
def test_every_field_of_every_critic_is_checked(module, term):
  plain = module.get_config("smoke")
  checks.check(plain)
  for name, value in plain.method[term].items():
    config = plain.copy_and_resolve_references()
    with config.unlocked():
      config.method[term][name] = "none" if isinstance(value, str) else -1 * abs(value) - 1
    with pytest.raises(UserError, match=rf"config\.method\.{term}\.{name}="):
      checks.check(config)
