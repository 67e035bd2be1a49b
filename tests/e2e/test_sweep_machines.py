"""Sweeps over several files and by several processes: locks, repetitions, the launcher file. No training."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from medae_jax import sweep
from medae_jax.training import lock
from tests import tiny_sweep


def test_a_run_of_another_process_is_left_to_it(tmp_path, monkeypatch):
  """... and asked for once more at the end; what it has completed meanwhile is not repeated."""
  config = tiny_sweep.config(tmp_path, grid={"run": (0, 1)})
  done = []
  monkeypatch.setattr(sweep, "_one", lambda config, folder: done.append(pathlib.Path(folder).name))
  with lock.held(tmp_path / "w/runs/run0", "sweep"):  # flock counts open files, not processes
    result = sweep.sweep(config, str(tmp_path / "w"))
  assert done == ["run1"] and result["elsewhere"] == ["run0"] and not result["failed"]
  assert "IN WORK ELSEWHERE run0" in (tmp_path / "w/table.md").read_text()
  assert not (tmp_path / "w/failures.jsonl").exists()


def test_failed_runs_are_tried_again_and_kept(tmp_path, monkeypatch):
  config = tiny_sweep.config(tmp_path, grid={"run": (0, 1, 2)}, retries=2)
  tried = []

  def fake(config, folder):
    tried.append(pathlib.Path(folder).name)
    return None if tried.count(tried[-1]) > 1 or tried[-1] == "run0" else "disk full"
  monkeypatch.setattr(sweep, "_one", fake)
  assert sweep.sweep(config, str(tmp_path / "w"))["failed"] == {}
  assert tried == ["run0", "run1", "run2", "run1", "run2"]
  lines = [json.loads(line) for line in (tmp_path / "w/failures.jsonl").read_text().splitlines()]
  assert [(e["run"], e["why"], e["attempt"]) for e in lines] == [("run1", "disk full", 0),
                                                                ("run2", "disk full", 0)]


def test_a_setting_that_fails_is_not_chosen_and_one_that_is_missing_is_waited_for(tmp_path):
  plan = sweep.Plan(tiny_sweep.config(tmp_path, grid={"cls": (0,)}, folds=2, average=(), final_steps="",
                            settings=({"method.rate": 0.1}, {"method.rate": 0.3})), tmp_path / "w")
  for trial in plan.trials()[:3]:  # setting 1 lacks its second fold
    tiny_sweep.write_result(plan.job(trial), 0.9 if trial.setting else 0.6)
  assert plan.choose() == {}
  assert plan.choose({plan.trials()[3].name}) == {"cls=0": (0, 0, 0)}
  tiny_sweep.write_result(plan.job(plan.trials()[3]), 0.8)
  assert plan.choose() == {"cls=0": (1, 0, 0)}


def test_epochs_of_the_folds_become_epochs_of_the_final_run(tmp_path):
  """Folds have fewer images: the mean of their best states is taken in passes, not in steps."""
  config = tiny_sweep.config(tmp_path, grid={"run": (0, 1)}, folds=2, final_steps="mean_best")
  with config.unlocked():
    config.train.update(steps=0, epochs=8.0)
  plan = sweep.Plan(config, tmp_path / "w")
  for trial, steps in zip(plan.trials(), (12, 20)):  # the best state is that of step 3
    tiny_sweep.write_result(plan.job(trial), 0.7, steps=steps)
  chosen = plan.choose()
  assert chosen == {"run=0": (0, 0, 1.6)}  # of 8: 3/12 and 3/20
  final = plan.final_trials(chosen)
  assert [t.name for t in final] == ["run0_epochs1.6", "run1_epochs1.6"]
  assert (plan.config(final[0]).train.epochs, plan.config(final[0]).train.steps) == (1.6, 0)
  assert plan.describe(chosen)["run=0"] == {"setting": 0, "fields": {}, "epochs": 1.6}


def test_several_files_in_one_sweep(tmp_path, monkeypatch):
  """Parts with grids of their own; changes reach those that know the field; the plan lists every run."""
  config = tiny_sweep.config(tmp_path)
  file = config.sweep.config
  other = tmp_path / "other.py"
  other.write_text(pathlib.Path(file).read_text().replace("c.method.rate = 0.1", "pass"))
  with config.unlocked():
    config.sweep.parts = tuple(
        dict(name=name, labels={"model": name, "exp": "x"}, config=str(path), arg="", grid=grid)
        for name, path, grid in (("a", file, {"cls": (0, 1), "run": (0, 1)}), ("b", other, {"run": (0,)})))
    config.sweep.unpublished = ("b/x/run_1",)
    config.method.rate = 0.2
  plan = sweep.Plan(config, tmp_path / "w")
  assert [t.name for t in plan.trials()] == ["a_cls0_run0", "a_cls0_run1", "a_cls1_run0", "a_cls1_run1",
                                            "b_run0"]
  assert plan.config(plan.trials()[0]).method.rate == 0.2
  assert "rate" not in plan.config(plan.trials()[4]).method
  monkeypatch.setattr(sweep, "_one", lambda config, folder: tiny_sweep.write_result(
      sweep.Job("", config, pathlib.Path(folder)), 0.5 + config.data.cls / 10))
  result = sweep.sweep(config, str(tmp_path / "w"))
  assert [r["cell"] for r in result["rows"]] == [{"model": "a", "exp": "x", "cls": 0},
                                                {"model": "a", "exp": "x", "cls": 1},
                                                {"model": "b", "exp": "x"}]
  assert [r["mean"] for r in result["rows"]] == [0.5, 0.6, 0.5] and result["unpublished"] == ["b/x/run_1"]
  assert [(r["method"], r["run"], r["done"]) for r in result["runs"]] == [
      ("a x", "0", True), ("a x", "1", True), ("a x", "0", True), ("a x", "1", True), ("b x", "0", True)]
  assert "b/x/run_1" in (tmp_path / "w/table.md").read_text()
  with config.unlocked():
    config.sweep.parts = (config.sweep.parts[0], config.sweep.parts[0])
  with pytest.raises(ValueError, match="same name"):
    sweep.Plan(config, tmp_path / "w")


def test_launcher_file(tmp_path, monkeypatch):
  """Run with a sbatch that starts the jobs at once: shards, repetitions, what is stopped is put back."""
  monkeypatch.setattr(sys, "argv", ["launch.py", "--mode=sweep", "--config=c.py:a=b c",
                                    "--config.sweep.slurm", "2", "--config.sweep.shard=(0,9)"])
  monkeypatch.chdir(tmp_path)
  config = tiny_sweep.config(tmp_path, slurm=2, folds=1, settings=({"method.rate": 0.1},))
  assert sweep.sweep(config, str(tmp_path / "w w")) == {} and not (tmp_path / "w w/runs").exists()
  path = tmp_path / "w w/slurm.sh"
  for name, text in (("sbatch", """for a in "$@"; do case $a in --array=*) range=${a#--array=};; esac; done
echo "$@" >> sbatch.txt
for i in $(seq ${range%-*} ${range#*-}); do
  SLURM_JOB_ID=7 SLURM_ARRAY_TASK_ID=$i bash "${@: -1}" >> jobs.txt; done
echo 41"""), ("scontrol", 'echo "$@" >> requeued.txt'), ("python", """echo "$@" >> calls.txt
[ "$(grep -c . calls.txt)" -ne 1 ] || exit 1  # the first call fails
if [ "$(grep -c . calls.txt)" -eq 3 ]; then kill -TERM $PPID; sleep 5; fi""")):
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "bin" / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
    (tmp_path / "bin" / name).chmod(0o755)
  path.write_text(path.read_text().replace(sys.executable, "python"))
  env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
  env.pop("SLURM_JOB_ID", None)
  done = subprocess.run(["bash", str(path)], env=env, capture_output=True, text=True, timeout=60)
  assert done.returncode == 0 and "the last job is 41" in done.stdout, done.stderr
  calls = (tmp_path / "calls.txt").read_text()
  shards = [line.partition("shard=")[2].split()[0] for line in calls.splitlines()]
  assert shards == ["(0,2)", "(0,2)", "(1,2)", "(0,2)", "(1,2)", "(0,1)"]
  assert "--config=c.py:a=b c" in calls and "slurm" not in calls and "(0,9)" not in calls
  assert (tmp_path / "requeued.txt").read_text() == "requeue 7\n"
  submitted = (tmp_path / "sbatch.txt").read_text().splitlines()
  assert [("afterany:41" in line) for line in submitted] == [False, True, True]
