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
