"""Every field of every config against values that no field can have: refused in one line, or allowed."""

import json
import math

import ml_collections
import pytest

from configs import (
  ae_cxr,
  annotation_removal,
  dae_brats,
  dpa_cifar10,
  morphaeus_cxr,
  noisy_skin,
  own_folder,
  piad_cifar10,
)
from data_pipelines import dataset
from medae_jax.core import checks, config as config_lib, method as method_lib
from medae_jax.core.errors import UserError
from medae_jax.models import conv_ae
from medae_jax.tasks import base as tasks

CONFIGS = {m.__name__.rpartition(".")[2]: m for m in (annotation_removal, dae_brats, dpa_cifar10, noisy_skin,
                                                      piad_cifar10)}
BAD = (-1, 2**70, math.nan, math.inf, -1.5, "abc", (), (1, 2, 3, 4, 5, 6, 7), ("abc",), [[1]], {"a": 1})


def _refused(config, name, value):
  """The line with which a config is refused; "" where it is accepted. Anything else is raised."""
  config = ml_collections.ConfigDict(json.loads(json.dumps(config.to_dict())))
  config = config_lib.override(config, {name: value})
  try:
    checks.check(config)
    tasks.check(config)
    if name.startswith("data."):
      dataset.open_dataset(config.data, config.seed)
  except (UserError, OSError) as e:
    return str(e)
  return ""


@pytest.mark.parametrize("name", CONFIGS)
def test_no_field_takes_what_it_cannot_use(name):
  """Numbers refuse text, NaN, infinity and what is beyond 32 bits; text refuses numbers; tuples text."""
  config = CONFIGS[name].get_config("smoke")
  wrong = []
  for field, default in config_lib.flat(config).items():
    if default is None or field.startswith("data.") or field in (
        "predict.input", "predict.output", "predict.threshold"):
      continue
    for value in BAD:
      same = (isinstance(value, type(default)) and not isinstance(value, float)) or (
          isinstance(default, (tuple, float)) and isinstance(value, (tuple, list, int)))
      line = _refused(config, field, value)
      if "\n" in line or (not line and not same):
        wrong.append((field, value, line))
  assert not wrong


@pytest.mark.parametrize("name", CONFIGS)
def test_fields_of_data_refuse_what_they_cannot_use(name):
  config = CONFIGS[name].get_config("smoke")
  wrong = []
  for field, default in config_lib.flat(config.data).items():
    if default is None or field == "name":
      continue
    for value in (math.nan, 2**70) if isinstance(default, (int, float)) else ({"a": 1},):
      if not _refused(config, f"data.{field}", value):
        wrong.append((field, value))
  assert not wrong


@pytest.mark.parametrize("field, value", [
    ("seed", 2**64), ("seed", -1), ("train.steps", -1), ("train.accum", 0), ("train.keep", 0),
    ("train.log_every", 0), ("train.steps_per_call", 0), ("model.dtype", "float12"), ("model.wf", 28),
    ("model.depth", 0), ("model.depth", None), ("optim.lr", "fast"), ("optim.b1", 1.0), ("data.noise_res", 0),
    ("data.image_size", (64,)), ("data.image_size", 0), ("data.n_patients", (1, 2)), ("data.modalities", ()),
    ("data.noise_std", math.nan), ("eval.quantile", 2), ("export.image_size", (1, 2, 3)),
    ("method.score.median", -1), ("method.loss_over", "some"), ("eval.splits", "val"), ("seeds", (0, -1)),
    ("eval.components", 2**63), ("eval.panel_images", 2**63), ("eval.bootstrap", 10**9),
    ("bench.seconds", 1e30),
    ("predict.overlay_slices", 2**63), ("predict.slide.least", 2**63), ("predict.slide.mpp", 1e30),
    ("export.image_size", (0, 64)), ("export.image_size", 10**9), ("eval.splits", ("val", "val"))])
def test_values_at_the_edge(field, value):
  assert f"config.{field}" in _refused(dae_brats.get_config("smoke"), field, value)


@pytest.mark.parametrize("variant", ["smoke", "demo", "small"])
@pytest.mark.parametrize("module", [dpa_cifar10, piad_cifar10])
def test_a_file_of_weights_is_read_in_every_variant(module, variant):
  given = module.get_config(f"{variant},vgg=some.pth").method
  assert given.vgg_weights == "some.pth" and tuple(given.vgg_widths) == (64, 128, 256, 512, 512)
  assert module.get_config(variant).method.vgg_weights == "random:0"


@pytest.mark.parametrize("splits, missing", [(("val", "tset"), "tset"), (("train", "tset"), "tset")])
def test_a_misspelt_split_is_refused_beside_a_known_one(splits, missing):
  with pytest.raises(UserError, match=f"no split .*{missing}"):
    tasks.split_order(("val", "test"), splits)
  assert tasks.split_order(("test",), ("val", "test")) == ["test"]


@pytest.mark.parametrize("field, value", [
    ("modalities", -1), ("modalities", None), ("modalities", [[1]]), ("modalities", {"a": 1}),
    ("image_size", "x"), ("normal_words", [["a"]]), ("lesion_values", [{"a": 1}])])
def test_fields_of_one_s_own_folder(field, value):
  assert f"config.data.{field}" in _refused(own_folder.get_config("smoke"), f"data.{field}", value)


@pytest.mark.parametrize("value", [-1, math.nan, "abc", (0,)])
def test_the_factor_of_a_schedule(value):
  assert "config.optim.factor" in _refused(ae_cxr.get_config("aae,smoke"), "optim.factor", value)


@pytest.mark.parametrize("name, value, said", [
    ("layers", "", "method.score.trunk_layers is empty"),
    ("layers", "r99", "method.score.trunk_layers='r99': 'r99' is not a VGG19 layer"),
    ("layers", "8:r12", "method.score.trunk_layers='8:r12': name layers, without a resolution"),
    ("layers", ",", "method.score.trunk_layers=',': name layers"),
    ("widths", (4, 4), r"method.score.trunk_widths=\(4, 4\): give the channels of the five"),
    ("weights", "random:x", "method.score.trunk_weights='random:x': write random:SEED")])
def test_a_score_of_a_network_needs_its_layers_weights_and_widths(name, value, said):
  """Each field is called by its own name; layers of a resolution were a traceback."""
  config = config_lib.override(morphaeus_cxr.get_config("smoke"), {
      "method.score.trunk": "vgg19", f"method.score.trunk_{name}": value})
  with pytest.raises(UserError, match=f"config.{said}"):
    scores = method_lib.load(config)._scores
    scores.pretrained()
    scores.init_params()


@pytest.mark.parametrize("fields, said", [
    ({"choose_score": ("x",)}, "choose_score has 'x', no field of config.method.score"),
    ({"measures": ("perceptual",), "trunk_weights": "gone.pth"}, "trunk_weights=gone.pth does not exist"),
    ({"measures": ("perceptual",), "trunk_weights": "random:1", "trunk": "x"}, "eval.trunk='x' is no back"),
    ({"measures": ("perceptual",), "trunk_weights": "random:1", "trunk_layers": ("x",)}, "is not a VGG16")])
def test_what_evaluation_cannot_have_is_said_before_the_training(fields, said):
  config = config_lib.override(dae_brats.get_config("smoke"), {f"eval.{k}": v for k, v in fields.items()})
  with pytest.raises((UserError, FileNotFoundError), match=said):
    tasks.check(config)


@pytest.mark.parametrize("field", ["scale", "gain", "gamma"])
@pytest.mark.parametrize("value", [(0.0, 0.0), (2.0, 1.0)])
def test_factors_of_frames(field, value):
  """0 made all of them black, or ended in a traceback of TensorFlow."""
  assert f"data.{field}" in _refused(annotation_removal.get_config("smoke"), f"data.{field}", value)


@pytest.mark.parametrize("field", ["model.widths", "model.strides"])
def test_widths_and_strides_are_several(field):
  assert f"config.{field}=[]" in _refused(morphaeus_cxr.get_config("smoke"), field, ())


def test_strides_are_as_many_as_widths_or_one_more():
  """What was left over was dropped without a word."""
  for widths, strides, said in ((2, 1, True), (2, 2, False), (2, 3, False), (2, 4, True), (3, 2, True)):
    try:
      conv_ae.check_strides((8,) * widths, (2,) * strides)
      assert not said
    except UserError as e:
      assert said and f"config.model.strides=({', '.join('2' * strides)}" in str(e)


def test_a_long_value_is_not_repeated_whole():
  config = config_lib.override(dae_brats.get_config("smoke"), {"train.best_mode": "a" * 5000})
  with pytest.raises(UserError, match="config.train.best_mode='aaa.* ...: it must be one of 'min'") as said:
    checks.check(config)
  assert len(str(said.value)) < 300
