"""The notebooks of examples/ run as they stand, in this process, from a folder of their own.

`jupyter execute --inplace examples/*.ipynb`, run in examples/, refreshes what they show.
"""

import ast
import json
import shutil
import sys

import pytest

from tests.contract.cases import ROOT

EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted(p.name for p in EXAMPLES.glob("*.ipynb"))


def cells(name):
  """The code cells."""
  found = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))["cells"]
  return [c for c in found if c["cell_type"] == "code"]


def run(source, names):
  """Runs a cell; what its last line shows, as in Jupyter: None after a semicolon."""
  tree = ast.parse(source)
  last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) and not source.endswith(";") else None
  exec(compile(tree, "cell", "exec"), names)
  return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
  for path in EXAMPLES.glob("*.py"):
    shutil.copy(path, tmp_path)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
  names: dict = {}
  shown = [run("".join(c["source"]), names) for c in cells(name)]
  for value, cell in zip(shown, cells(name)):
    assert (value is not None) == any(o["output_type"] == "execute_result" for o in cell["outputs"])
  found = names["found"]
  assert found.map.min() >= 0 and found.map.max() > 0 and "abnormal" in found.verdict
  result = names["run"].evaluation("test")
  assert result["image_auroc"] > 0.7 and "<table" in result._repr_html_()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_stored_with_what_it_shows(name):
  outputs = [o for c in cells(name) for o in c["outputs"]]
  assert all(c["execution_count"] for c in cells(name)) and outputs
  assert not [o for o in outputs if o["output_type"] == "error"]
  text = (EXAMPLES / name).read_text(encoding="utf-8")
  assert len(text) < 600_000 and not [n for n in ("home", "root", "tmp") if f"/{n}/" in text]
