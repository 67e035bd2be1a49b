"""The table of a sweep by hand: cells, means over runs, the sample deviation, trivial scores."""

import csv
import json
import types

import ml_collections
import pytest

from medae_jax.reporting import tables


def trial(labels=(), setting=0, **cell):
  name = "_".join([*(v for _, v in labels), *(f"{k}{v}" for k, v in cell.items())])
  return types.SimpleNamespace(cell=tuple(cell.items()), setting=setting, name=name, labels=labels)


def fields(**changes):
  return ml_collections.ConfigDict({**dict(average=("run",), settings=(), folds=0, metric="image_auroc",
                                           split="test", config="c.py", arg=""), **changes})


def test_cells_are_means_over_their_runs(tmp_path):
  sweep = fields()
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
  assert "| 1 | 0.6000 | - | 1/3 |" in text  # done of planned
  assert "FAILED cls1_run2: broken" in text


def run_of(value, ends, before, trivial, synthetic=False):
  """An evaluation: pixel_ap with its interval, that of the configured score, a score without a network."""
  return {"pixel_ap": value, "image_auroc": 0.9, "ci95": {"image_auroc": [0.8, 1.0], "pixel_ap": ends},
          "n_images": 4, "synthetic": synthetic, "score_chosen": f"kind={value}",
          "before_choice": {"pixel_ap": before, "ci95": {"pixel_ap": [before - 0.125, before + 0.125]}},
          "baseline": {"image_auroc": 0.75}, "trivial_scores": trivial}


def test_every_number_of_a_cell_is_of_its_own_runs_metric_and_score(tmp_path):
  """Two methods with other arguments and other trivial scores; a 0 counts, and one run is of drawn data."""
  dae, vae = (("model", "dae"),), (("model", "vae"),)
  runs = {"dae_size1_run0": run_of(0.0, [0.0, 0.25], 0.25, {"jpeg": {"pixel_ap": 0.0}}),
          "dae_size1_run1": run_of(0.5, [0.25, 0.75], 0.75, {"jpeg": {"pixel_ap": 0.5}}, synthetic=True),
          "vae_width8_run0": run_of(0.75, [0.5, 1.0], 0.5, {"median": {"pixel_ap": 0.125, "image_auroc": 1}})}
  trials = [trial(dae, size=1, run=0), trial(dae, size=1, run=1), trial(vae, width=8, run=0)]
  rounds = [{"members": ["a", "b"], "val_auroc": 0.75, "pixel_ap": p, "ci95": {"pixel_ap": [p - 0.25, p]}}
            for p in (0.5, 1.0)]
  found = tables.write(tmp_path, fields(metric="pixel_ap"), trials, lambda t: runs[t.name], {}, {},
                       ensembles=rounds)
  one, two = found["rows"]
  assert one["cell"] == {"model": "dae", "size": 1} and two["cell"] == {"model": "vae", "width": 8}
  assert one["mean"] == 0.25 and one["runs"] == 2 and one["ci95"] == [0.125, 0.5] and two["ci95"] == [0.5, 1]
  assert one["before_choice"]["mean"] == 0.5 and one["before_choice"]["ci95"] == [0.375, 0.625]
  assert one["trivial"] == {"trivial jpeg": 0.25} and two["trivial"] == {"trivial median": 0.125}
  assert one["synthetic"] and not two["synthetic"] and found["synthetic"] and found["mean"] == 0.5
  assert found["ensemble"]["mean"] == 0.75 and found["ensemble"]["ci95"] == [0.5, 0.75]
  with open(tmp_path / "table.csv", encoding="utf-8") as f:
    row = next(csv.DictReader(f))
  assert [row[k] for k in ("mean", "ci95_low", "ci95_high", "before_mean", "before_ci95_low",
                           "before_ci95_high")] == ["0.25", "0.125", "0.5", "0.5", "0.375", "0.625"]
  lines = (tmp_path / "table.md").read_text().splitlines()
  assert [n for n in lines if n.startswith(("Mean of the runs that val chooses", "  a + b"))] == [
      "Mean of the runs that val chooses, standardised by its normal images: pixel_ap (test) 0.7500, std "
      "0.3536 over 2 rounds, 95 % 0.500 to 0.750.", "  a + b: val 0.7500, pixel_ap (test) 0.5000",
      "  a + b: val 0.7500, pixel_ap (test) 1.0000"]
  head, first, second = ([c.strip() for c in lines[i].split("|")[1:-1]] for i in (0, 2, 3))
  assert head == ["model", "size", "width", "as configured", "std", "95 %", "pixel_ap (test)", "std", "95 %",
                  "runs", "trivial jpeg", "trivial median"]
  assert first == ["dae", "1", "", "0.5000", "0.3536", "0.375 to 0.625", "0.2500", "0.3536", "0.125 to 0.500",
                   "2/2", "0.2500", "-"]
  assert second == ["vae", "", "8", "0.5000", "-", "0.375 to 0.625", "0.7500", "-", "0.500 to 1.000",
                    "1/1", "-", "0.1250"]


@pytest.mark.parametrize("folds, cells", [(0, [{"cls": 0, "setting": 0}, {"cls": 0, "setting": 1}]),
                                          (3, [{"cls": 0}])])
def test_settings_are_rows_but_where_folds_have_chosen_one(tmp_path, folds, cells):
  trials = [trial(setting=s, cls=0, run=s) for s in (0, 1)]
  result = {"image_auroc": 0.5, "n_images": 7, "synthetic": False}
  found = tables.write(tmp_path, fields(folds=folds), trials, lambda _: result, {}, {})
  assert [r["cell"] for r in found["rows"]] == cells and not found["synthetic"]
