"""The table of a sweep by hand: cells, means over runs, the sample deviation, trivial scores."""

import csv
import json
import types

import ml_collections
import pytest

from medae_jax.reporting import tables


def trial(**cell):
  name = "_".join(f"{k}{v}" for k, v in cell.items())
  return types.SimpleNamespace(cell=tuple(cell.items()), setting=0, name=name)


def test_cells_are_means_over_their_runs(tmp_path):
  sweep = ml_collections.ConfigDict(dict(average=("run",), settings=(), folds=0, metric="image_auroc",
                                         split="test", config="c.py", arg=""))
  trials = [trial(cls=c, run=r) for c in (0, 1) for r in (1, 2, 3)]
  values = {"cls0_run1": 0.5, "cls0_run2": 0.7, "cls0_run3": 0.9, "cls1_run1": 0.6}

  def read(t):
    if t.name not in values:
      return None
    return {"image_auroc": values[t.name], "n_images": 7, "synthetic": t.name == "cls1_run1",
            "baseline": {"image_auroc": 0.25, "image_auroc_median5": 0.75, "pixel_ap": 0.1}}
  found = tables.write(tmp_path, sweep, trials, read, {"cls1_run2": "broken"}, {})
  one, two = found["rows"]
  assert one["cell"] == {"cls": 0} and one["mean"] == pytest.approx(0.7)
  assert one["std"] == pytest.approx(0.2)             # of a sample: n - 1
  assert (one["runs"], one["of"], two["runs"], two["of"]) == (3, 3, 1, 3)
  assert two["mean"] == 0.6 and two["std"] is None
  assert found["mean"] == pytest.approx(0.65) and found["cells_in_mean"] == 2
  assert found["missing"] == ["cls1_run2", "cls1_run3"] and found["synthetic"] is True
  assert one["trivial"] == {"trivial image_auroc": 0.25, "trivial image_auroc_median5": 0.75}
  assert json.loads((tmp_path / "sweep.json").read_text())["mean"] == pytest.approx(0.65)
  with open(tmp_path / "table.csv", encoding="utf-8") as f:
    assert [row["cls"] for row in csv.DictReader(f)] == ["0", "1"]
  text = (tmp_path / "table.md").read_text()
  assert "| 0 | 0.7000 | 0.2000 | 3/3 |" in text and "SYNTHETIC DATA" in text
  assert "FAILED cls1_run2: broken" in text
