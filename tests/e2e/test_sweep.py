"""Sweeps on the synthetic toy data: grid, table, resume, runs together, search by folds."""

import csv
import functools
import json
import pathlib

import jax
import numpy as np
import pytest

from medae_jax import sweep
from medae_jax.core import files, places, streams, trained
from medae_jax.training import interrupt
from tests import tiny_methods, tiny_sweep
from tests.contract import cases


class FrozenMethod(tiny_methods.AdversarialMethod):
  """Two optimisers and a frozen network that all runs share."""
  frozen = ("frozen",)

  def init(self, rng, batch):
    state = super().init(rng, batch)
    same = super().init(jax.random.key(0), batch).params["frozen"]
    return state.replace(params={**state.params, "frozen": same})


class BrokenMethod(tiny_methods.BatchNormMethod):
  """The loss of the run with seed 11 is not finite after two steps."""

  def init(self, rng, batch):
    state = super().init(rng, batch)
    with self.config.copy_and_resolve_references().unlocked() as config:
      config.seed = 11
    same = jax.random.key_data(rng) == jax.random.key_data(streams.init_key(config))
    return state.replace(extra={"bad": same.all().astype(np.float32)})

  def train_step(self, state, batch, rng, *, stage, axis_name):
    new, metrics = super().train_step(state, batch, rng, stage=stage, axis_name=axis_name)
    broken = (state.extra["bad"] > 0) & (state.step >= 2)
    return new, {"loss": jax.numpy.where(broken, np.nan, metrics["loss"])}


def _params(folder, name):
  state = trained.load(folder / "runs" / name, {"eval.checkpoint": "last"}).state
  return jax.tree.map(np.asarray, state.params)


def _close(a, b, atol):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
    np.testing.assert_allclose(x, y, atol=atol)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
  """A finished sweep of four runs, one by one: (folder, config, result)."""
  folder = tmp_path_factory.mktemp("sweep")
  config = tiny_sweep.config(folder)
  return folder, config, sweep.sweep(config, str(folder / "w"))


def test_table(done):
  folder, _, result = done
  assert [r["cell"] for r in result["rows"]] == [{"cls": 0}, {"cls": 1}]
  for row in result["rows"]:
    values = [json.loads((folder / f"w/runs/cls{row['cell']['cls']}_run{r}/evaluation/test.json")
                         .read_text())["image_auroc"] for r in (0, 1)]
    assert row["values"] == values and row["runs"] == 2
    assert row["mean"] == pytest.approx(np.mean(values))
    assert row["std"] == pytest.approx(np.std(values, ddof=1))
    assert any(k.startswith("trivial") for k in row["trivial"])
  assert result["synthetic"] and "SYNTHETIC" in (folder / "w/table.md").read_text()
  rows = list(csv.DictReader((folder / "w/table.csv").open()))
  assert [r["cls"] for r in rows] == ["0", "1"]
  assert float(rows[0]["mean"]) == pytest.approx(result["rows"][0]["mean"])


def test_nothing_is_done_twice(done, monkeypatch):
  folder, config, result = done
  def never(*_):
    raise AssertionError("a finished run was trained again")
  monkeypatch.setattr(sweep.train_lib, "train", never)
  assert sweep.sweep(config, str(folder / "w"))["rows"] == result["rows"]


def test_a_missing_run_is_made_up_for(done):
  folder, config, result = done
  (folder / "w/runs/cls1_run0/evaluation/test.json").unlink()
  assert sweep.sweep(config, str(folder / "w"))["rows"] == result["rows"]


def test_other_settings_need_another_folder(done):
  folder, config, _ = done
  other = tiny_sweep.config(folder)
  with other.unlocked():
    other.method.rate = 0.2
  with pytest.raises(ValueError, match="4 runs failed.*other settings"):
    sweep.sweep(other, str(folder / "w"))
  assert sweep.Plan(config, folder / "w").changes == {}


def test_changes_of_the_command_line_reach_every_run(done, tmp_path):
  config = tiny_sweep.config(tmp_path)
  with config.unlocked():
    config.train.steps = 2
  plan = sweep.Plan(config, tmp_path / "w")
  assert plan.changes == {"train.steps": 2}
  assert {plan.config(t).train.steps for t in plan.trials()} == {2}
  assert sorted({plan.config(t).seed for t in plan.trials()}) == [10, 11]


RUNS = {"tests.tiny_methods:BatchNormMethod": 3, "tests.e2e.test_sweep:FrozenMethod": 2}


@pytest.fixture(scope="module")
def in_both_ways(tmp_path_factory):
  """method -> folder of two sweeps of RUNS[method] runs, "alone" one after the other and "both" at once."""
  @functools.cache
  def get(method):
    folder = tmp_path_factory.mktemp("ways")
    for name, together in (("alone", 1), ("both", RUNS[method])):
      config = tiny_sweep.config(folder, method, grid={"run": tuple(range(RUNS[method]))}, together=together)
      sweep.sweep(config, str(folder / name))
    return folder
  return get


@pytest.mark.parametrize("method", RUNS)
def test_runs_together_are_the_runs_alone(in_both_ways, method):
  """Up to float order; the folders are those of single runs, best checkpoints included."""
  tmp_path = in_both_ways(method)
  for run in range(RUNS[method]):
    alone, both = (_params(tmp_path / k, f"run{run}") for k in ("alone", "both"))
    _close(alone, both, 2e-5)
    scores = [json.loads((tmp_path / k / f"runs/run{run}/evaluation/test.json").read_text())
              for k in ("alone", "both")]
    assert scores[0]["image_auroc"] == pytest.approx(scores[1]["image_auroc"], abs=1e-6)
    # The sums are of parameters that differ by float order.
    sums = [score["checkpoint"].pop("checksum") for score in scores]
    assert scores[0]["checkpoint"] == scores[1]["checkpoint"] and sums[0] == pytest.approx(sums[1], rel=2e-5)
    steps = [[json.loads(line)["step"] for line in
              (tmp_path / k / f"runs/run{run}/metrics.jsonl").read_text().splitlines()]
             for k in ("alone", "both")]
    assert steps[0] == steps[1]
  assert np.any(_params(tmp_path / "both", "run0")["net"]["Conv_0"]["kernel"]
                != _params(tmp_path / "both", "run1")["net"]["Conv_0"]["kernel"])


def test_runs_together_resume(tmp_path, in_both_ways, monkeypatch):
  """Stopped after the second step and called again: the numbers of the unbroken sweep."""
  unbroken = in_both_ways("tests.tiny_methods:BatchNormMethod") / "both"
  config = tiny_sweep.config(tmp_path, grid={"run": (0, 1, 2)}, together=3)
  with monkeypatch.context() as m:
    m.setattr(interrupt.GracefulStop, "requested", lambda self, step: step == 2)
    stopped = sweep.sweep(config, str(tmp_path / "broken"))
  assert "interrupted" in stopped["failed"].values()  # said in the table; no error, as after a single run
  assert not (tmp_path / "broken/runs/run0/evaluation").exists()
  sweep.sweep(config, str(tmp_path / "broken"))
  for run in range(3):
    whole, broken = (_params(folder, f"run{run}") for folder in (unbroken, tmp_path / "broken"))
    _close(whole, broken, 1e-6)


@pytest.mark.parametrize("together", [1, 3])
def test_a_failing_run_leaves_the_others_alone(tmp_path, together):
  config = tiny_sweep.config(tmp_path, "tests.e2e.test_sweep:BrokenMethod", grid={"run": (0, 1, 2)},
                   together=together)
  with pytest.raises(ValueError, match="1 runs failed.*run1.*not finite"):
    sweep.sweep(config, str(tmp_path / "w"))
  result = json.loads((tmp_path / "w/sweep.json").read_text())
  assert result["rows"][0]["runs"] == 2 and list(result["failed"]) == ["run1"]
  assert "FAILED run1" in (tmp_path / "w/table.md").read_text()


def _seeds(seeds, **changes):
  config = cases.config("BatchNormMethod")
  with config.unlocked():
    config.seeds = seeds
    config.train.best_metric = "val/loss"
    config.update_from_flattened_dict(changes)
  return config.lock()


def test_several_seeds_in_one_go(tmp_path, monkeypatch, capsys):
  """Killed after step 2 and called again: runs of their own, the same as single ones, one table."""
  with monkeypatch.context() as m:
    m.setattr(interrupt.GracefulStop, "requested", lambda self, step: step == 2)
    stopped = sweep.seeds(_seeds((3, 0, 7)), str(tmp_path / "w"))
  assert "interrupted" in stopped["failed"].values()
  assert not (tmp_path / "w/seed_3/evaluation").exists()
  result = sweep.seeds(_seeds((3, 0, 7)), str(tmp_path / "w"))
  assert result["seeds"] == [3, 0, 7] and not result["failed"] and not result["missing"]
  for split in ("val", "test"):
    values = [json.loads((tmp_path / f"w/seed_{s}/evaluation/{split}.json").read_text())["image_auroc"]
              for s in (3, 0, 7)]
    row = result["splits"][split]["image_auroc"]
    assert row["values"] == values
    assert row["mean"] == pytest.approx(np.mean(values))
    assert row["std"] == pytest.approx(np.std(values, ddof=1))
  assert result == json.loads((tmp_path / "w/seeds.json").read_text())
  assert "| test | image_auroc |" in (tmp_path / "w/seeds.md").read_text()
  assert "| test | image_auroc |" in capsys.readouterr().out
  alone = _seeds(())
  with alone.unlocked():
    alone.seed = 7
  sweep.train_lib.train(alone, str(tmp_path / "alone"))
  both = [jax.tree.map(np.asarray, trained.load(f, {"eval.checkpoint": "last"}).state.params)
          for f in (tmp_path / "alone", tmp_path / "w/seed_7")]
  _close(*both, 2e-5)
  def never(*_):
    raise AssertionError("a finished run was trained again")
  monkeypatch.setattr(sweep.train_lib, "train", never)
  monkeypatch.setattr(sweep.train_lib, "train_runs", never)
  assert sweep.seeds(_seeds((3, 0, 7)), str(tmp_path / "w")) == result


def test_seeds_that_cannot_be(tmp_path):
  for seeds in ((0, 0), (0, "a"), (0.5, 1)):
    with pytest.raises(ValueError, match="config.seeds"):
      sweep.seeds(_seeds(seeds), str(tmp_path))


def test_search_chooses_by_folds_and_trains_the_choice(tmp_path, monkeypatch):
  """Training is replaced by written results: fold scores decide, then the mean best step."""
  config = tiny_sweep.config(tmp_path, grid={"cls": (0, 1), "run": (0, 1)}, folds=3, final_steps="mean_best",
                   settings=({"method.rate": 0.1}, {"method.rate": 0.3}))
  trained = []

  def fake(config, folder):
    trained.append((config.method.rate, config.data.cls, config.data.fold, config.train.steps))
    path = pathlib.Path(folder)
    good = (config.method.rate == 0.3) == (config.data.cls == 1)
    write = files.write_json
    write(path / "config.json", json.loads(json.dumps(config.to_dict())))
    write(path / "evaluation/test.json", {
        "image_auroc": 0.9 if good else 0.6, "synthetic": True, "n_images": 4,
        "checkpoint": {"step": 3 + max(config.data.fold, 0)}})
  monkeypatch.setattr(sweep, "_one", fake)
  result = sweep.sweep(config, str(tmp_path / "w"))
  folds = [t for t in trained if t[2] >= 0]
  final = [t for t in trained if t[2] < 0]
  assert len(folds) == 2 * 2 * 3  # settings, classes, folds; seeds are not searched
  assert sorted(final) == [(0.1, 0, -1, 4), (0.1, 0, -1, 4), (0.3, 1, -1, 4), (0.3, 1, -1, 4)]
  assert result["chosen"]["cls=1, run=0"]["fields"] == {"method.rate": 0.3}
  assert result["mean"] == pytest.approx(0.9) and [r["runs"] for r in result["rows"]] == [2, 2]


def test_shards_divide_the_runs(tmp_path, monkeypatch):
  done = []
  monkeypatch.setattr(sweep, "_one", lambda config, folder: done.append(folder) or "not trained")
  for i in range(2):
    with pytest.raises(ValueError, match="2 runs failed"):
      sweep.sweep(tiny_sweep.config(tmp_path, shard=(i, 2)), str(tmp_path / "w"))
  assert len(done) == len(set(done)) == 4


def test_errors(tmp_path):
  with pytest.raises(ValueError, match="needs a config with a group `sweep`"):
    sweep.sweep(cases.config("BatchNormMethod"), str(tmp_path))
  with pytest.raises(ValueError, match="argument without values"):
    sweep.sweep(tiny_sweep.config(tmp_path, grid={"cls": ()}), str(tmp_path))
  with pytest.raises(FileNotFoundError, match="config.sweep.config"):
    sweep.sweep(tiny_sweep.config(tmp_path, config="configs/nothing.py"), str(tmp_path))
  with pytest.raises(ValueError, match="there is no 'colour'"):
    sweep.sweep(tiny_sweep.config(tmp_path, settings=({"method.colour": 1},)), str(tmp_path))


def test_benchmark_config():
  get = places.config_module("configs/sweep_benchmark.py").get_config
  c = get("method=piad,data=svhn,cls=3+8,runs=2,root=somewhere")
  assert dict(c.sweep.grid) == {"cls": (3, 8), "run": (0, 1)} and c.sweep.arg == "root=somewhere"
  plan = sweep.Plan(c, "w")
  assert [plan.config(t).seed for t in plan.trials()] == [8523, 391, 5403, 6553]
  searched = get("method=dpa,data=cifar10,search=1,root=x")
  plan = sweep.Plan(searched, "w")
  assert len(plan.trials()) == 10 * 15 * 3
  config = plan.config(plan.trials()[-1])
  assert config.data.fold == 2 and config.model.latent_dim == 256
  for bad, text in (("method=vae", "method=vae"), ("cls=12", "cls=12"), ("cls=x", "cls=x"),
                    ("exp=pg+wo_pg,data=nih,search=1", "search"), ("runs=0", "runs=0"),
                    ("method=all,exp=none", "exp=none")):
    with pytest.raises(ValueError, match=text):
      get(bad)
