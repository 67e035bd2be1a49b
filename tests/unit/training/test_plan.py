"""Which run a folder holds: durations that the data decided and old random streams do not count."""

import dataclasses
import json
import pathlib
import shutil

import pytest

from configs import sweep_benchmark
from medae_jax import sweep
from medae_jax.core import config as config_lib
from medae_jax.core.errors import UserError
from medae_jax.reporting import seeds_table
from medae_jax.training import durations, job as job_lib, plan
from tests import tiny_sweep
from tests.unit.training import recorder

EPOCHS = {"train__steps": 0, "train__epochs": 2.0, "train__eval_every": 0,
          "train__eval_every_epochs": 1.0}


def job(tmp_path, written=None, **changes):
  config = recorder.config(**changes)
  if written is not None:
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "config.json").write_text(json.dumps(written.to_dict()))
    (tmp_path / "evaluation" / "test.json").write_text('{"image_auroc": 0.5}')
  return job_lib.Job("run", config, tmp_path)


def test_a_run_whose_length_the_data_decided_is_its_own(tmp_path):
  written = durations.resolve(recorder.config(**EPOCHS), lambda: 12)
  assert written.train.steps == 6 and written.train.eval_every == 3
  found = job(tmp_path, written, **EPOCHS)
  assert not found.foreign() and found.read("test") == {"image_auroc": 0.5}
  assert found.read("val") is None


def test_a_run_from_before_the_named_streams_is_its_own(tmp_path):
  old = recorder.config(train__random_streams="legacy")
  assert not job(tmp_path, old).foreign()


@pytest.mark.parametrize("word, foreign", [("legacy", False), ("files", True)])
def test_a_run_that_keeps_the_split_of_before_is_its_own(tmp_path, word, foreign):
  written, asked = recorder.config(), recorder.config()
  for config, grouping in ((written, word), (asked, "names")):
    with config.unlocked():
      config.data.update(grouping=grouping, group_pattern=grouping)
  (tmp_path / "config.json").write_text(json.dumps(written.to_dict()))
  assert job_lib.Job("run", asked, tmp_path).foreign() == foreign


@pytest.mark.parametrize("changes", [{"seed": 4}, {"train__batch_size": 8}, {"train__steps": 12}])
def test_another_config_is_another_run(tmp_path, changes):
  found = job(tmp_path, recorder.config(), **changes)
  assert found.foreign() and found.read("test") is None


def test_a_folder_that_another_sweep_filled_meanwhile_is_left_alone(tmp_path):
  late = job(tmp_path, recorder.config(), seed=4)  # `foreign` was asked before the other one's run was there
  before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
  assert sweep._run_group([late], ("test",)) == {"run": job_lib.FOREIGN}
  assert {p: p.read_bytes() for p in before} == before


@pytest.mark.parametrize("name", ["config.json", "evaluation/test.json"])
def test_a_damaged_file_of_a_run_is_named(tmp_path, name):
  found = job(tmp_path, recorder.config())
  (tmp_path / name).write_text('{"image_auroc": 0.')
  with pytest.raises(UserError, match=rf"{pathlib.Path(name).name} is damaged .*delete"):
    found.read("test")


def test_an_empty_folder_is_nobodys(tmp_path):
  assert not job(tmp_path).foreign() and job(tmp_path).read("test") is None


def test_the_table_of_seeds_by_hand(tmp_path):
  of_0 = {"auc": 0.5, "n": 3, "synthetic": True, "seconds": 1.5, "pixel_ap": 0.75,
          "baseline": {"pixel_ap": 0.25, "pixel_ap_median5": 0.5}}
  rows = {(0, "test"): of_0, (1, "test"): {"auc": 0.8, "n": 3}, (0, "val"): {"auc": 0.25}}
  found = seeds_table.write(tmp_path, (0, 1, 2), ("val", "test"), lambda s, k: rows.get((s, k)),
                            {"seed_2": "interrupted"})
  assert found["splits"]["test"] == {"auc": {"mean": pytest.approx(0.65), "values": [0.5, 0.8, None],
                                             "std": pytest.approx(0.3 / 2**0.5)},
                                     "pixel_ap": {"mean": 0.75, "values": [0.75, None, None], "std": None}}
  assert found["splits"]["val"]["auc"]["std"] is None  # of one number
  assert found["missing"] == ["seed_1: val", "seed_2: val", "seed_2: test"] and found["synthetic"]
  assert list(found["baselines"]["test"]) == ["pixel_ap"] and not found["baselines"]["val"]
  text = (tmp_path / "seeds.md").read_text()
  assert "| test | auc | 0.6500 | 0.2121 | 0.5000 0.8000 - |" in text
  assert "| test | pixel_ap, baseline | 0.5000 | - | 0.5000 - - |" in text and "seconds" not in text
  assert "FAILED seed_2: interrupted" in text and "SYNTHETIC" in text
  assert "Seeds 0, 1, 2; std: sample standard deviation;" in text
  assert json.loads((tmp_path / "seeds.json").read_text())["seeds"] == [0, 1, 2]


def test_values_of_seeds_stand_at_their_place_and_a_number_that_one_lacks_is_not_dropped(tmp_path):
  rows = {0: {"auc": None, "ap": 0.25}, 2: {"auc": 0.5, "ap": 0.75, "dice": 0.125}}
  found = seeds_table.write(tmp_path, (0, 1, 2), ("test",), lambda s, _: rows.get(s), {})
  assert {k: v["values"] for k, v in found["splits"]["test"].items()} == {
      "ap": [0.25, None, 0.75], "auc": [None, None, 0.5], "dice": [None, None, 0.125]}
  assert "| test | ap | 0.5000 | 0.3536 | 0.2500 - 0.7500 |" in (tmp_path / "seeds.md").read_text()


def test_a_sweep_of_which_every_run_is_refused_leaves_nothing(tmp_path):
  config = tiny_sweep.config(tmp_path, method="tests.tiny_methods:NoSuch")
  with pytest.raises(UserError, match="4 runs failed.*NoSuch"):
    sweep.sweep(config, str(tmp_path / "w"))
  assert not (tmp_path / "w").exists()
  (tmp_path / "w").mkdir()  # a folder that was there stays, with the reasons
  with pytest.raises(UserError, match="4 runs failed"):
    sweep.sweep(config, str(tmp_path / "w"))
  assert (tmp_path / "w" / "failures.jsonl").exists()


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0), (0,), (0, 1, 2), "01", (0.0, 1)])
def test_a_shard_is_one_of_so_many(tmp_path, shard):
  with pytest.raises(UserError, match=r"config.sweep.shard=.*\(i, n\) with i from 0 to n - 1"):
    plan.Plan(tiny_sweep.config(tmp_path, shard=shard), str(tmp_path / "w"))


def test_a_search_does_not_repeat_what_is_averaged_and_its_choice_holds_for_all_runs(tmp_path):
  settings = ({"method.rate": 0.1}, {"method.rate": 0.2})
  found = plan.Plan(tiny_sweep.config(tmp_path, folds=3, settings=settings), str(tmp_path / "w"))
  searched = [(*dict(t.cell).values(), t.setting, t.fold) for t in found.trials()]
  assert sorted(searched) == [(c, 0, s, f) for c in (0, 1) for s in (0, 1) for f in (0, 1, 2)]
  chosen = {found._label(0, (("cls", c), ("run", 0))): (1 - c, 7, 0.0) for c in (0, 1)}
  assert [(*dict(t.cell).values(), t.setting, t.steps) for t in found.final_trials(chosen)] == [
      (0, 0, 1, 7), (0, 1, 1, 7), (1, 0, 0, 7), (1, 1, 0, 7)]


def test_whatever_tells_two_runs_apart_stands_in_their_folders_names(tmp_path):
  base = dict(cell=(("cls", 0),))
  named = {plan.Trial(**base, **more).name: more for more in (
      {}, {"setting": 1}, {"fold": 0}, {"fold": 1}, {"fold": 0, "setting": 1}, {"steps": 7}, {"steps": 8},
      {"epochs": 1.5}, {"epochs": 1.25}, {"prefix": "dae"})}
  assert list(named) == ["cls0", "cls0_setting1", "cls0_setting0_fold0", "cls0_setting0_fold1",
                         "cls0_setting1_fold0", "cls0_steps7", "cls0_steps8", "cls0_epochs1.5",
                         "cls0_epochs1.25", "dae_cls0"]


def test_a_setting_goes_before_the_command_line_and_the_first_of_equal_ones_is_chosen(tmp_path):
  config = tiny_sweep.config(tmp_path, grid={"cls": (0,)}, folds=2, average=(),
                             settings=({"method.rate": 0.1}, {"train.batch_size": 4}))
  with config.unlocked():
    config.method.rate = 0.5
  found = plan.Plan(config, str(tmp_path / "w"))
  trials = found.trials()
  assert [found.config(t).method.rate for t in trials] == [0.1, 0.1, 0.5, 0.5]
  assert [found.config(t).data.fold for t in trials] == [0, 1, 0, 1]
  for t in trials:
    tiny_sweep.write_result(found.job(t), 0.75)
  assert found.choose() == {"cls=0": (0, 0, 0)}


def test_the_length_that_a_search_has_chosen_is_the_only_one(tmp_path):
  """Where a config counts in examples or in epochs, a final run in steps is of so many steps."""
  found = plan.Plan(tiny_sweep.config(tmp_path), str(tmp_path / "w"))
  found.changes = {"train.examples": 10**6, "train.steps": 0, "train.epochs": 0.0}
  cell = found.cells[0][1]
  for chosen, length in (({}, (0, 0, 10**6)), ({"steps": 5}, (5, 0, 0)), ({"epochs": 2.5}, (0, 2.5, 0))):
    train = found.config(found.trial(0, cell, **chosen)).train
    assert (train.steps, train.epochs, train.examples) == length


@pytest.mark.parametrize("last, best", [(0.3, 1), (0.45, 2)])
def test_the_best_mean_over_folds_is_chosen_with_their_mean_length(tmp_path, last, best):
  """Means 0.6, 0.7, and 0.65 or 0.725: one fold alone does not decide."""
  settings = tuple({"method.rate": rate} for rate in (0.1, 0.2, 0.3))
  found = plan.Plan(tiny_sweep.config(tmp_path, grid={"cls": (0,)}, folds=2, average=(), settings=settings,
                                      final_steps="mean_best"), str(tmp_path / "w"))
  results = zip(found.trials(), (0.7, 0.5, 0.5, 0.9, 1.0, last), (1, 2, 10, 25, 10, 25), strict=True)
  for t, auroc, step in results:
    tiny_sweep.write_result(found.job(t), auroc)
    path = found.job(t).folder / "evaluation/test.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "checkpoint": {"step": step}}))
  chosen = found.choose()
  assert chosen == {"cls=0": (best, 17, 0)}
  assert found.describe(chosen) == {"cls=0": {"setting": best, "fields": dict(settings[best]), "steps": 17}}


@pytest.mark.parametrize("folds, chosen", [(2, {"cls=0": (0, 0, 0.0)}), (0, {})])
def test_what_a_search_has_chosen_stands_in_the_table_while_it_goes_on(tmp_path, monkeypatch, folds, chosen):
  """Of all folds scored before: the table that is written first is not one without a choice."""
  config = tiny_sweep.config(tmp_path, grid={"cls": (0,)}, folds=folds, average=())
  found = plan.Plan(config, str(tmp_path / "w"))
  for t in found.trials():
    tiny_sweep.write_result(found.job(t), 0.75)

  def stop(of, said, choice):
    assert said == {}
    seen.append(choice)
    raise KeyboardInterrupt
  seen = []
  monkeypatch.setattr(sweep, "_write", stop)
  with pytest.raises(KeyboardInterrupt):
    sweep.sweep(config, str(tmp_path / "w"))
  assert [{cell: tuple(choice) for cell, choice in c.items()} for c in seen] == [chosen]


def test_parts_of_a_sweep_have_labels_and_a_sweep_of_one_file_has_none(tmp_path):
  config = tiny_sweep.config(tmp_path, labels={"model": "other"})
  part = dict(config=config.sweep.config, arg="", grid={"cls": (0, 1)}, settings=())
  alone = plan.Plan(config, str(tmp_path / "w"))
  assert (alone.parts[0].labels, alone.parts[0].prefix) == ((), "")
  assert alone._label(0, (("cls", 1),)) == "cls=1"
  with config.unlocked():
    config.sweep.parts = tuple({**part, "name": name, "labels": {"model": name, "data": "nih"}}
                               for name in ("dae", "vae"))
  several = plan.Plan(config, str(tmp_path / "w"))
  assert [(p.labels, p.prefix) for p in several.parts] == [
      ((("model", name), ("data", "nih")), name) for name in ("dae", "vae")]
  assert several._label(1, (("cls", 1),)) == "model=vae, data=nih, cls=1"
  assert [t.name for t in several.trials()] == ["dae_cls0", "dae_cls1", "vae_cls0", "vae_cls1"]


@pytest.mark.parametrize("field, most", [("together", 10_000), ("folds", 1000), ("retries", 100),
                                         ("slurm", 100_000)])
def test_counts_of_a_sweep_begin_at_0_and_have_an_end(tmp_path, field, most):
  for fine in (0, 1, most):
    plan.Plan(tiny_sweep.config(tmp_path, **{field: fine}), str(tmp_path / "w"))
  for wrong in (-1, most + 1, 0.5, True):
    with pytest.raises(UserError, match=f"config.sweep.{field}="):
      plan.Plan(tiny_sweep.config(tmp_path, **{field: wrong}), str(tmp_path / "w"))


def test_a_length_that_was_found_is_given_to_configs_of_fewer_fields_too(tmp_path, monkeypatch):
  """A config of somebody's own may count in steps alone."""
  found = plan.Plan(tiny_sweep.config(tmp_path), str(tmp_path / "w"))
  trial = dataclasses.replace(found.trials()[0], steps=7)
  whole = found.config(trial).train
  assert (whole.steps, whole.epochs, whole.examples) == (7, 0.0, 0)
  fewer = found._fresh(trial).copy_and_resolve_references()
  with fewer.unlocked():
    del fewer.train["epochs"], fewer.train["examples"]
  monkeypatch.setattr(found, "_fresh", lambda _: fewer)
  train = found.config(trial).train
  assert train.steps == 7 and "epochs" not in train and "examples" not in train


@pytest.mark.parametrize("others", ["", "deep_if+"])
def test_frozen_features_run_beside_the_methods_of_the_published_runner_and_alone(others):
  found = sweep_benchmark.get_config(f"method={others}frozen,data=svhn,root=x,cls=1+4").sweep
  parts = [(p["config"], p["grid"]["cls"]) for p in found.parts] or [(found.config, found.grid.cls)]
  published = [("configs/deep_if_svhn.py", (1, 4))] * (2 * bool(others))
  assert parts == [*published, ("configs/frozen_svhn.py", (1, 4))]


@pytest.mark.parametrize("values, said", [
    (3, r"config.sweep.grid.run=3: give its values in parentheses, \(3,\)"), ("ab", "'ab': give its"),
    ((), "an argument without values: run"), ((0, 1, 0), "config.sweep.grid.run has 0 twice: one run would"),
    ((1, "1"), "has '1' twice")])
def test_a_grid_has_each_value_once_and_in_parentheses(values, said):
  """A number was a traceback, a text its letters, a value given twice two runs in one folder."""
  with pytest.raises(UserError, match=said):
    job_lib.grid_of({"run": values})
  assert job_lib.grid_of({"run": [0, 1], "cls": ("a",)}) == {"run": (0, 1), "cls": ("a",)}


def test_fields_of_a_sweep_that_nothing_reads_are_refused():
  known = ("sweep.grid", "sweep.average")
  job_lib.check_names({"grid": {}, "average": ()}, known)
  with pytest.raises(UserError, match="config.sweep.avarage: there is no 'avarage'; did you mean average"):
    job_lib.check_names({"grid": {}, "avarage": ()}, known)
  with pytest.raises(UserError, match="config.sweep.x: .* nothing would read it"):
    job_lib.check_names({"x": 1}, known)


def test_every_run_is_listed_with_what_it_is(tmp_path):
  """Of two classes and two runs four lines, the last one done."""
  labels = {"model": "tiny", "data": "dots"}
  found = plan.Plan(tiny_sweep.config(tmp_path, labels=labels), str(tmp_path / "w"))
  trials = found.trials()
  tiny_sweep.write_result(found.job(trials[3]), 0.5)
  lines = found.listing(trials)
  assert [(r["name"], r["run"], r["fold"], r["setting"], r["done"]) for r in lines] == [
      (f"cls{c}_run{k}", str(k), -1, 0, (c, k) == (1, 1)) for c in (0, 1) for k in (0, 1)]
  assert found.listing(trials[1:2]) == lines[1:2] and found.listing([]) == []


def test_a_run_and_a_sweep_have_folders_of_their_own(tmp_path):
  """The run's results were in no report any more."""
  config, workdir = tiny_sweep.config(tmp_path), tmp_path / "w"
  for name, call, said in (
      ("config.json", lambda: plan.Plan(config, workdir), "w holds a run, and a sweep has a folder"),
      ("table.csv", lambda: plan.Plan(config, workdir), "w/table.csv is there, and no sweep has written"),
      ("sweep.json", lambda: config_lib.check_workdir(config, workdir), "w is the folder of a sweep")):
    workdir.mkdir()
    call()
    (workdir / name).write_text("{}")
    with pytest.raises(UserError, match=f"{said}.*: choose another"):
      call()
    shutil.rmtree(workdir)
  workdir.mkdir()
  for name in ("table.csv", "sweep.json"):
    (workdir / name).write_text("{}")
  plan.Plan(config, workdir)
