"""config.data in every config file: fields of the data set, complete, without TensorFlow."""

import ast
import importlib
import pathlib

import pytest

from data_pipelines import dataset as datasets, fields
from data_pipelines.errors import UserError
from tests import blocked

ROOT = pathlib.Path(__file__).resolve().parents[3]
FILES = sorted((ROOT / "configs").rglob("*.py"))
CONFIGS = [p.stem for p in FILES if p.parent.name == "configs" and "def get_config(arg" in p.read_text()]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("arg", ["", "smoke"])
def test_data_fields_are_exactly_those_of_the_data_set(name, arg):
  data = importlib.import_module(f"configs.{name}").get_config(arg or None).data
  module = datasets.module(data.name)
  assert set(data) == set(module.defaults())
  assert module.resolve(data).to_dict() == data.to_dict()


@pytest.mark.parametrize("window", [(5, 3), (3, 3), (0, 0, 1), (0.0,), ("a", "b"), (0, float("inf"))])
def test_a_window_is_black_below_white(window):
  known = datasets.module("nih").defaults()
  assert tuple(fields.resolve({"window": (-3, 5.5)}, known.copy_and_resolve_references()).window) == (-3, 5.5)
  with pytest.raises(UserError, match="config.data.window"):
    fields.resolve({"window": window}, known)


@pytest.mark.parametrize("name, field, wrong, right", [
    ("annotations", "image_size", (8, 0), (8, 1)),
    ("annotations", "image_size", (8, 8, 8), (8, 8)),
    ("annotations", "marks.style", "other", "reference"),
    ("brats", "image_size", (16, 0), (16, 16)), ("brats", "image_size", (16,), (16, 24)),
    ("segmentation", "channels", 1, 3), ("segmentation", "image_size", 0, 1),
    ("segmentation", "synthetic_counts", (3, 2), (3, 2, 1)), ("synthetic", "n_patients", (3, 2), (3, 2, 1)),
    ("synthetic", "n_patients", (0, 2, 1), (1, 1, 1)), ("synthetic", "n_patients", (3, 2, -1), (3, 2, 1)),
    ("synthetic", "n_slices", 0, 1), ("chest_xray", "channels", 3, 1), ("own_folder", "channels", 2, 3),
    ("own_folder", "channels", 4, 1), ("own_folder", "val_share", 0.0, 0.5),
    ("own_folder", "test_share", 1.0, 0.5), ("slides", "crop_size", 0, 1), ("slides", "stain", 1.0, 0.0),
    ("slides", "mpp", 0.0, 0.25), ("synthetic_radiographs", "channels", 3, 1),
    ("synthetic_radiographs", "image_size", 7, 8), ("synthetic_radiographs", "findings", (), ("nodule",)),
    ("synthetic_textures", "image_size", 7, 8), ("synthetic_textures", "channels", 2, 3)])
def test_what_a_data_set_cannot_do_is_refused_and_what_lies_beside_it_is_not(name, field, wrong, right):
  module = datasets.module(name)
  def resolved(value):
    cfg = module.defaults()
    group, _, last = field.rpartition(".")
    with cfg.ignore_type():
      (cfg[group] if group else cfg)[last] = value
    if field == "mpp":
      cfg.magnification = 0.0
    return module.resolve(cfg)
  assert resolved(right)
  with pytest.raises(UserError, match=rf"config\.data.*{field.split('.')[-1]}"):
    resolved(wrong)


def test_configs_import_without_tensorflow():
  modules = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in FILES]
  blocked.run_without_tensorflow(
      "import importlib\n"
      f"for name in {modules!r}: importlib.import_module(name)\n"
      f"for name in {CONFIGS!r}: importlib.import_module('configs.' + name).get_config(None)")


def test_locals_of_configs_have_names():
  bad = []
  for path in FILES:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
      if isinstance(node, ast.Assign):
        names = [t.id for target in node.targets for t in ast.walk(target) if isinstance(t, ast.Name)]
        bad += [(path.name, name) for name in names if len(name) == 1]
  assert not [b for b in bad if b[0] != "common.py"]
