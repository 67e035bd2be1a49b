"""What a sweep does with its runs, with training replaced: order, interruptions, rounds, the study, seeds."""

import json
import shlex
import sys
import types

import pytest

from configs import sweep_brains
from medae_jax import sweep
from medae_jax.core import config as config_lib
from medae_jax.core.errors import UserError
from medae_jax.training import job as job_lib, plan, slurm
from tests import tiny_sweep
from tests.unit.training import recorder


def job(tmp_path, name, **changes):
  return job_lib.Job(name, recorder.config(**changes), tmp_path / "runs" / name)


@pytest.mark.parametrize("held", [1, 9])
def test_a_run_that_another_process_holds_is_asked_for_once_more(tmp_path, monkeypatch, held):
  asked = []

  def group(jobs, splits):
    asked.append(jobs[0].name)
    return {"a": job_lib.ELSEWHERE} if asked[-1] == "a" and asked.count("a") <= held else {}
  monkeypatch.setattr(sweep, "_run_group", group)
  found = sweep.run([job(tmp_path, "a"), job(tmp_path, "b")], ("test",), 1)
  assert asked == ["a", "b", "a"] and found == ({} if held == 1 else {"a": job_lib.ELSEWHERE})


def test_a_signal_ends_the_sweep_and_is_no_failure(tmp_path, monkeypatch):
  """Neither the next run nor, after a search, the final ones begin."""
  begun = []

  def one(config, folder):
    begun.append(folder)
    return job_lib.INTERRUPTED
  monkeypatch.setattr(sweep, "_one", one)
  jobs = [job(tmp_path, "a"), job(tmp_path, "b")]
  assert sweep._train_group(jobs[:1]) == {"a": job_lib.INTERRUPTED} and len(begun) == 1
  monkeypatch.setattr(sweep.train_lib, "train_runs", lambda *_: [{"error": None, "stopped": True}] * 2)
  assert sweep._train_group(jobs) == {"a": job_lib.INTERRUPTED} and len(begun) == 1
  monkeypatch.setattr(sweep.report_lib, "write", lambda folder: None)
  config = tiny_sweep.config(tmp_path, grid={"cls": (0, 1)}, folds=2, average=())
  search = plan.Plan(config, str(tmp_path / "w"))
  for t in search.trials()[:2]:  # of cls 0 the choice is known, and its final run could be trained
    tiny_sweep.write_result(search.job(t), 0.5)
  result = sweep.sweep(config, str(tmp_path / "w"))
  assert list(result["chosen"]) == ["cls=0"] and [f.rpartition("/")[2] for f in begun] == [
      "a", "cls1_setting0_fold0"]
  assert result["failed"] == {"cls1_setting0_fold0": job_lib.INTERRUPTED}


def test_the_table_is_written_whenever_a_run_has_ended_and_the_log_says_what_is_left(tmp_path, monkeypatch):
  """By the runs that came before; not after the last one, whose table is the sweep's."""
  config = tiny_sweep.config(tmp_path, grid={"cls": (0, 1, 2)}, folds=0, average=())
  whole, seen, said = plan.Plan(config, str(tmp_path / "w")), [], []
  clock = iter((0.0, 60.0, 90.0, 0.0))
  monkeypatch.setattr(sweep.time, "monotonic", lambda: next(clock))
  monkeypatch.setattr(sweep.logging, "info", lambda text, *values: said.append(text % values))

  def group(jobs, splits):
    table = json.loads((tmp_path / "w/sweep.json").read_text())
    seen.append((sorted(table["missing"]), table["failed"]))
    if jobs[0].name.startswith("cls0"):
      return {jobs[0].name: "full"}
    tiny_sweep.write_result(jobs[0], 0.5)
    return {}
  monkeypatch.setattr(sweep, "_run_group", group)
  joined = []  # the mean of several runs takes resamples, and may be refused: at the start and the end alone
  monkeypatch.setattr(sweep, "_ensembles", lambda plan, trials: joined.append(len(seen)) or [])
  names = [t.name for t in whole.trials()]
  with pytest.raises(UserError, match="1 runs failed, e.g. cls0"):
    sweep.sweep(config, str(tmp_path / "w"))
  assert seen == [(names, {}), (names, {names[0]: "full"}), ([names[0], names[2]], {names[0]: "full"})]
  assert joined == [0, 3]
  told = [line for line in said if "runs done" in line]
  assert [line.partition(", until")[0] for line in told] == [
      "1 of 3 runs done, 1 min 0 s each; the others: about 2 min 0 s",
      "2 of 3 runs done, 45 s each; the others: about 45 s"]


def test_runs_together_are_of_one_signature_and_no_more_than_asked_for(tmp_path, monkeypatch):
  monkeypatch.setattr(sweep.together, "signature", lambda config: config.train.batch_size % 3 and "same")
  jobs = [job(tmp_path, str(b), train__batch_size=b) for b in (1, 2, 3, 4, 6)]
  names = lambda n: [[j.name for j in g] for g in sweep._groups(jobs, n)]
  assert names(2) == [["1", "2"], ["4"], ["3"], ["6"]] and names(3) == [["1", "2", "4"], ["3"], ["6"]]
  assert names(1) == [[j.name] for j in jobs]


def test_an_ensemble_is_of_a_whole_round(tmp_path, monkeypatch):
  """Of each seed the runs of all methods; a round that lacks a run has none."""
  config = tiny_sweep.config(tmp_path, ensemble=True)
  found = plan.Plan(config, str(tmp_path / "w"))
  for t in found.trials():
    if t.cell != (("cls", 1), ("run", 1)):
      tiny_sweep.write_result(found.job(t), 0.5)
  monkeypatch.setattr(sweep.ensemble, "measure", lambda runs, split: {"of": list(runs), "split": split})
  assert sweep._ensembles(found, found.trials()) == [{"of": ["cls0_run0", "cls1_run0"], "split": "test"}]
  monkeypatch.setattr(sweep.ensemble, "measure", lambda runs, split: None)  # of one method
  assert sweep._ensembles(found, found.trials()) == []


def test_a_page_that_is_missing_is_written_without_training(tmp_path, monkeypatch):
  done, made = [], []
  monkeypatch.setattr(sweep, "_one", lambda config, folder: done.append(folder))
  monkeypatch.setattr(sweep.report_lib, "write", made.append)
  whole, paged = (job(tmp_path, n) for n in ("whole", "paged"))
  for one in (whole, paged):
    tiny_sweep.write_result(one, 0.5)
  (whole.folder / "report.html").write_text("page")
  assert sweep.run([whole, paged], ("test",), 1) == {} and not done and made == [paged.folder]


def test_the_study_is_of_all_runs_by_their_seeds_and_of_none_while_one_is_missing(tmp_path, monkeypatch):
  config = tiny_sweep.config(tmp_path, study="brain_scores")
  found, seen, said = plan.Plan(config, str(tmp_path / "w")), [], []

  def write(workdir, runs, command):
    seen.append([(seed, folder.name) for seed, folder in runs])
    said.append(command)
    (workdir / "scores.md").write_text("table")
  monkeypatch.setattr(sweep.score_table, "write", write)
  monkeypatch.setattr(sweep, "run", lambda *_: {})
  for k, t in enumerate(found.trials()):
    sweep.sweep(config, str(tmp_path / "w"))
    assert not seen, k
    tiny_sweep.write_result(found.job(t), 0.5)
  sweep.sweep(config, str(tmp_path / "w"))
  assert seen == [[(0, "cls0_run0"), (1, "cls0_run1"), (0, "cls1_run0"), (1, "cls1_run1")]]
  assert said[0].startswith("SYNTHETIC DATA. ")  # the results of tiny_sweep are


def test_every_seed_is_a_run_of_its_own_as_if_it_were_alone(tmp_path, monkeypatch):
  seen = []
  monkeypatch.setattr(sweep, "run", lambda jobs, splits, at_once: seen.extend(jobs) or {})
  config = recorder.config().copy_and_resolve_references()
  with config.unlocked():
    config.seeds = (3, 0)
  sweep.seeds(config.lock(), str(tmp_path / "w"))
  assert [(j.config.seed, tuple(j.config.seeds), j.folder) for j in seen] == [
      (s, (), tmp_path / "w" / f"seed_{s}") for s in (3, 0)]


@pytest.mark.parametrize("splits, whole", [(("test",), True), (("val", "test"), False), ((), True)])
def test_a_run_is_complete_with_all_its_splits(tmp_path, splits, whole):
  one = job(tmp_path, "a")
  tiny_sweep.write_result(one, 0.5)
  assert one.complete(splits) == whole
  assert job_lib.failures({"a": job_lib.ELSEWHERE, "b": job_lib.INTERRUPTED, "c": "full"}) == {"c": "full"}


def test_shards_are_disjoint_and_together_all(tmp_path):
  """Every n-th run: of a table in rounds each shard has runs of every method."""
  trials = plan.Plan(tiny_sweep.config(tmp_path), str(tmp_path / "w")).trials()
  name = types.SimpleNamespace(job=lambda t: t.name)
  for n in (1, 2, 3, 5):
    name.s = types.SimpleNamespace()
    parts = []
    for i in range(n):
      name.s.shard = (i, n)
      parts.append(plan.Plan.mine(name, trials))
    assert parts == [[t.name for t in trials][i::n] for i in range(n)]


def test_a_cluster_repeats_the_command_without_what_its_file_sets():
  words = ["--mode=sweep", "--config.sweep.slurm=4", "-config.sweep.retries", "3", "--config=a b.py",
           "--config.sweep.shard", "(0,2)", "--config.sweep.retries=2", "--config.sweep.shards=1", "slurm"]
  kept = ["--mode=sweep", "--config=a b.py", "--config.sweep.shards=1", "slurm"]
  assert slurm._command(["launch.py", *words]) == shlex.join([sys.executable, "launch.py", *kept])
  assert slurm._command(["medae-jax", *words]) == shlex.join(["medae-jax", *kept])


def test_failures_are_noted_beside_those_of_other_machines(tmp_path):
  """Half a line of a killed process is passed over, and what the sweep wrote is read."""
  assert job_lib.failed_ever(tmp_path) == set()
  job_lib.note_failures(tmp_path, {"a": "full"}, 1)
  with open(tmp_path / "failures.jsonl", "a") as file:
    file.write('{"run": "b", "wh\n3\n{"why": "odd"}\n')
  job_lib.note_failures(tmp_path, {"c": "odd"}, 0)
  job_lib.note_failures(None, {"d": "nowhere"}, 0)
  assert job_lib.failed_ever(tmp_path) == {"a", "c"}


def test_the_failure_of_runs_that_trained_together_is_noted_for_the_one_that_failed(tmp_path, monkeypatch):
  """The others are evaluated; the message is that run's."""
  group = [types.SimpleNamespace(name=n, config=n, folder=tmp_path / n) for n in ("a", "b", "c")]
  results = [{"error": "not finite", "stopped": False}, *[{"error": None, "stopped": False}] * 2]
  monkeypatch.setattr(sweep.train_lib, "train_runs", lambda configs, folders: results)
  gone_on = []
  monkeypatch.setattr(sweep, "_one", lambda config, folder: gone_on.append(config))
  assert sweep._train_group(group) == {"a": "not finite"} and gone_on == ["b", "c"]


@pytest.mark.parametrize("text, why", [("disk full\nat step 3", "disk full"), ("\n odd ", "odd")])
def test_why_a_run_failed_is_the_first_line_of_its_error(monkeypatch, text, why):
  def train(config, folder):
    raise ValueError(text)
  monkeypatch.setattr(sweep.train_lib, "train", train)
  assert sweep._one(None, "w/a") == why


def test_every_run_that_failed_is_told_and_the_next_ones_go_on(tmp_path, monkeypatch):
  jobs = [job(tmp_path, name) for name in "abcd"]
  monkeypatch.setattr(sweep.train_lib, "train_runs", lambda *_: [{"error": None, "stopped": False}] * 4)
  monkeypatch.setattr(sweep, "_one", lambda config, folder: {"a": "full", "c": "odd"}.get(folder[-1]))
  assert sweep._train_group(jobs) == {"a": "full", "c": "odd"}


def test_a_sweep_for_a_cluster_leaves_the_list_of_its_runs_beside_the_file(tmp_path, monkeypatch, capsys):
  """Nothing is trained; report and benchmark can read what is planned."""
  monkeypatch.setattr(sweep, "run", lambda *_: pytest.fail("trained here"))
  assert sweep.sweep(tiny_sweep.config(tmp_path, slurm=3), str(tmp_path / "w")) == {}
  made = sorted(p.name for p in (tmp_path / "w").iterdir())
  assert made == ["slurm.sh", "sweep.json", "table.csv", "table.md"]
  planned = json.loads((tmp_path / "w/sweep.json").read_text())
  assert [(r["name"], r["done"]) for r in planned["runs"]] == [
      (f"cls{c}_run{k}", False) for c in (0, 1) for k in (0, 1)]
  assert capsys.readouterr().out == f"4 runs for 3 tasks: bash {tmp_path / 'w/slurm.sh'}\n"


@pytest.mark.parametrize("change", [{}, {"seed": 99}])
def test_a_sweep_built_without_the_arguments_of_its_runs_keeps_each_ones_own(tmp_path, change):
  """Folds 1 and 3 were trained as fold 0, that of the config without arguments."""
  config = tiny_sweep.config(tmp_path, grid={"cls": (1, 3), "run": (2, 4)})  # base: class 0, run 0
  config = config_lib.override(config, {"train.steps": 7, **change})
  found = [made.job(t).config for made in [plan.Plan(config, tmp_path / "w")]
           for t in made.trials()]
  assert [(c.data.cls, c.seed, c.train.steps) for c in found] == [
      (cls, change.get("seed", 10 + run), 7) for cls in (1, 3) for run in (2, 4)]


@pytest.mark.parametrize("study", ["scores", "noise", "training,changes=loss_l1"])
def test_folds_of_the_brains_sweep_are_those_that_are_asked_for(tmp_path, study):
  config = sweep_brains.get_config(f"small,root={tmp_path},study={study},on=1+3,runs=2")
  found = plan.Plan(config, tmp_path / "w")
  jobs = [found.job(t) for t in found.trials()]
  assert {j.config.data.fold for j in jobs} == {1, 3} and {j.config.seed for j in jobs} == {0, 1}
  assert all(f"fold{j.config.data.fold}" in j.name and f"run{j.config.seed}" in j.name for j in jobs)


def test_a_field_of_a_sweep_that_nothing_reads_ends_it_at_the_start(tmp_path):
  with pytest.raises(UserError, match="config.sweep.avarage: .* did you mean average"):
    plan.Plan(tiny_sweep.config(tmp_path, avarage=("run",)), tmp_path / "w")
