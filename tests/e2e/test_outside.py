"""A method, a data set and a config outside the tree: the ones printed in CONTRIBUTING.md, word by word."""

import json
import pathlib
import re
import sys

import numpy as np
from PIL import Image
import pytest

from data_pipelines import outside
from tests import console

PAGE = pathlib.Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """The current folder, with the page's code: mine_method.py, mine_data.py, mine_config.py."""
  blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
  names = ("mine_method", "mine_data", "mine_config")
  assert len(blocks) == len(names)
  for name, text in zip(names, blocks):
    (tmp_path / f"{name}.py").write_text(text)
  monkeypatch.delenv(outside.VARIABLE)  # set for all other tests
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  yield tmp_path
  for name in names:
    sys.modules.pop(name, None)


def call(*args):
  code, text = console.call("--allow_code", *args)
  assert code == 0, text[-3000:]
  return text


@pytest.mark.slow
def test_trains_evaluates_predicts_and_exports(folder):
  call("--config=mine_config.py", "--workdir=run")
  result = json.loads((folder / "run" / "evaluation" / "test.json").read_text())
  assert result["dataset"] == "synthetic dots" and result["n_images"] == 12
  assert 0 <= result["pixel_ap"] <= 1 and result["image_auroc"] is not None
  (folder / "images").mkdir()
  grey = np.full((16, 16), 80, np.uint8)
  grey[4:10, 4:10] = 255
  Image.fromarray(grey).save(folder / "images" / "one.png")
  call("--mode=predict", "--workdir=run", "--input=images", "--output=maps")
  assert (folder / "maps" / "predictions.csv").read_text().count("one") >= 1
  call("--mode=export", "--workdir=run", "--output=exported")
  assert (folder / "exported" / "score.stablehlo").is_file()


@pytest.mark.parametrize("field, name", [
    ("data", "mine_data:Nothing"), ("data", "nosuch:Dots"), ("data", "no.such:Dots"),
    ("method", "mine_method:Nothing"), ("method", "nosuch:Method")])
def test_wrong_names_are_one_line(folder, field, name):
  code, text = console.call("--allow_code", "--config=mine_config.py", "--workdir=run",
                            f"--config.{field}.name={name}")
  assert code == 1 and f"config.{field}.name={name!r} is not a" in text
  assert ":" in text.split("of your own")[1]
  assert not (folder / "run").exists()


@pytest.mark.parametrize("field", ["method", "data"])
def test_a_foreign_config_imports_nothing_unless_the_user_says_so(field, tmp_path, monkeypatch):
  monkeypatch.delenv(outside.VARIABLE)
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / "evil.py").write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n")
  config = {"method": "dae", "data": "synthetic", field: "evil:system"}
  code, text = console.call("--config=dae_brats.py:smoke", f"--workdir={tmp_path / 'run'}",
                            *(f"--config.{k}.name={v}" for k, v in config.items()))
  assert code == 1 and "--allow_code" in text and f"config.{field}.name='evil:system'" in text
  assert not (tmp_path / "ran").exists() and not (tmp_path / "run").exists()
