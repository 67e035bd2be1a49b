"""The launcher as a user meets it: every mode in turn on a small run, and wrong input of every kind."""

import json
import os
import re
import subprocess
import sys

import nibabel
import numpy as np
import pytest

from tests import console
from tests.contract import cases

ROOT = cases.ROOT


def launch(*args, code=0):
  """Runs the command line in this process; returns its output after checking the exit code."""
  found, text = console.call(*args)
  assert found == code, text[-3000:]
  return text


def error_line(*args, code=1):
  """The one error line of a call that must fail without a traceback."""
  text = launch(*args, code=code)
  lines = [x for x in text.splitlines() if x.startswith("medae_jax: error")]
  assert len(lines) == 1 and "Traceback" not in text, text[-3000:]
  return lines[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run") / "smoke"
  script = ("import atexit, runpy, sys\natexit.register(lambda: print('HEAVY', [m for m in ('keras', "
            "'sklearn', 'pandas', 'matplotlib') if m in sys.modules]))\n"
            "runpy.run_path('launch.py', run_name='__main__')")
  command = [sys.executable, "-c", script, "--config=configs/dae_brats.py:smoke", f"--workdir={workdir}"]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
  assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
  (workdir / "said.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
  return workdir


@pytest.mark.slow
def test_train_then_evaluates(run):
  result = json.loads((run / "evaluation" / "test.json").read_text())
  for key in ("dataset", "synthetic", "n_images", "n_patients", "pixel_ap", "pixel_auroc", "dice_best",
              "dice_best_threshold", "dice_val_threshold", "dice_components", "image_auroc",
              "image_ap", "ci95", "baseline", "model_better"):
    assert key in result, key
  assert result["synthetic"] is True and "synthetic" in result["dataset"]
  assert set(result["baseline"]) >= {"pixel_ap", "dice_best", "image_auroc"}
  for name in ("config.json", "calibration.json", "metrics.jsonl", "report.html",
               "evaluation/test.csv", "evaluation/test_panel.png"):
    assert (run / name).stat().st_size > 0, name
  assert list(run.glob("events*"))
  assert "SYNTHETIC" in (run / "report.html").read_text().upper()
  said = (run / "said.txt").read_text(encoding="utf-8")
  assert "HEAVY []" in said  # seconds of import that no part of such a run needs
  assert "INTERNAL" not in said and '{"' not in said  # no alarm where there is none, no JSON for people
  assert "train         3      12" in said            # counts per split, as a table
  shown = f"Pixel average precision ↑{result['pixel_ap']:.3f}"
  assert shown in re.sub(r"  +", "", said) and "The model is" in said


@pytest.mark.slow
def test_evaluate_again_from_the_workdir_alone(run):
  before = json.loads((run / "evaluation" / "test.json").read_text())
  launch("--mode=evaluate", f"--workdir={run}", "--config.eval.batch_size=5",
         "--config.eval.splits=('test',)")  # tuples come back from config.json as tuples
  after = json.loads((run / "evaluation" / "test.json").read_text())
  for key in ("pixel_ap", "dice_best", "image_auroc", "n_images"):
    assert after[key] == pytest.approx(before[key], rel=1e-4), key


@pytest.mark.slow
def test_predict_on_the_input_grid(run, tmp_path):
  from data_pipelines.datasets import synthetic
  synthetic.write_nifti(tmp_path / "scans", 1, seed=5)
  launch("--mode=predict", f"--workdir={run}", f"--input={tmp_path / 'scans'}",
         f"--output={tmp_path / 'maps'}")
  scan = nibabel.load(next((tmp_path / "scans").rglob("*flair*")))
  written = list((tmp_path / "maps").rglob("*.nii.gz"))
  assert len(written) >= 2
  for path in written:
    out = nibabel.load(path)
    assert out.shape[:3] == scan.shape[:3]
    np.testing.assert_allclose(out.affine, scan.affine, atol=1e-6)


@pytest.mark.slow
def test_export_bench_and_list(run, tmp_path):
  launch("--mode=export", f"--workdir={run}", f"--output={tmp_path / 'exported'}")
  assert (tmp_path / "exported" / "config.json").exists()
  text = launch("--mode=bench", "--config=configs/dae_brats.py:smoke", "--config.bench.repeats=1",
                "--config.bench.seconds=0.01")
  numbers = json.loads(text[text.index("{\n"):text.rindex("}") + 1])
  assert numbers
  assert "dae" in launch("--mode=list")


WRONG = {
    "folder that is not there": (
        ["--config=configs/dae_brats.py:smoke", "--workdir={tmp}/w", "--config.data.dir={tmp}/nowhere"],
        "nowhere"),
    "empty folder": (
        ["--config=configs/dae_brats.py:smoke", "--workdir={tmp}/w", "--config.data.dir={tmp}/empty"],
        "empty"),
    "depth": (["--config=configs/dae_brats.py:smoke", "--workdir={tmp}/w", "--config.model.depth=7"],
              "config.model.depth"),
    "no checkpoint": (["--mode=evaluate", "--config=configs/dae_brats.py:smoke",
                       "--workdir={tmp}/empty"], "config.json"),
    "sweep without workdir": (["--mode=sweep", "--config=configs/dae_brats.py:smoke"], "--workdir"),
    "predict without input": (["--mode=predict", "--config=configs/dae_brats.py:smoke",
                               "--workdir={tmp}/w"], "--input"),
    "schedule": (["--config=configs/dae_brats.py:smoke", "--workdir={tmp}/w",
                  "--config.optim.schedule=linear"], "config.optim.schedule"),
    "method": (["--config=configs/dae_brats.py:smoke", "--workdir={tmp}/w",
                "--config.method.name=nosuch"], "nosuch"),
    "data set": (["--config=configs/dae_brats.py:smoke", "--workdir={tmp}/w",
                  "--config.data.name=nosuch"], "nosuch"),
    "metric": (["--config=configs/dae_brats.py:smoke", "--workdir={tmp}/w",
                "--config.train.best_metric=val/los"], "best_metric"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", sorted(WRONG))
def test_wrong_input_is_one_line(what, tmp_path):
  (tmp_path / "empty").mkdir()
  args, word = WRONG[what]
  assert word in error_line(*(a.format(tmp=tmp_path) for a in args))
  assert not list((tmp_path / "empty").iterdir()), "something was left in the folder"


@pytest.mark.slow
@pytest.mark.parametrize("args, word", [
    (["--config=configs/dae_brats.py:smoke", "--config.train.stepz=3"], "stepz"),
    (["--config=configs/dpa_cifar10.py:cls=12"], "cls is 0 to 9"),
    (["--config=configs/dae_brats.py:nosuch"], "nosuch"),
    (["--config=configs/nosuch.py"], "nosuch"), (["--config=configs/fields/scores.py"], "no function"),
    (["--mode=fly"], "fly"),
    (["--config=configs/dae_brats.py:smoke", "--config.train.steps=many"], "many"),
])
def test_wrong_command_line_is_one_line(args, word, tmp_path):
  assert word in error_line(*args, f"--workdir={tmp_path / 'w'}", code=2)
  assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_a_field_that_a_config_file_lacks_is_said_with_its_line(tmp_path):
  file = tmp_path / "mine_config.py"
  file.write_text("from configs import common\n\n\ndef get_config(arg=None):\n  c = common.base()\n"
                  "  c.method.name = 'mine'\n  return c.lock()\n")
  said = error_line(f"--config={file}", f"--workdir={tmp_path / 'w'}", code=2)
  assert "no field 'method' (line 6 of mine_config.py)" in said


def test_another_python_than_that_of_make_is_said():
  bare = [sys.executable, "-S", "launch.py", "--mode=list"]  # -S: without installed packages
  done = subprocess.run(bare, cwd=ROOT, capture_output=True, text=True, env={"PATH": ""}, check=False)
  assert done.returncode == 1 and done.stderr.count("\n") == 1
  assert "source .venv/bin/activate" in done.stderr


@pytest.mark.slow
def test_help_helps():
  text = launch("--help")
  assert "--workdir" in text and "predict" in text
  assert launch("--version").startswith("medae_jax 0.")
  assert launch().count("python launch.py") == 3  # no flags: how to start


@pytest.mark.parametrize("args, code, words", [
    (["--help"], 0, "run.score"), (["--version"], 0, "medae_jax 0."), ([], 0, "--mode=predict"),
    (["--mode=evaluate", "--workdir=nope"], 1, "nope holds no config.json"),
    (["--mode=predict", "--workdir={tmp}", "--input=nowhere"], 1, "--input=nowhere does not exist"),
    (["--mode=convert", "--config=dae_brats:smoke", "--workdir=w", "--input=no.pt"], 1, "no.pt does not")])
def test_answers_come_before_heavy_imports(args, code, words, tmp_path):
  """From a folder that is not the clone; config names are found beside the package, with or without .py."""
  (tmp_path / "config.json").write_text(json.dumps(cases.config("dae_brats").to_dict(), default=list))
  script = ("import atexit, sys\natexit.register(lambda: print([m for m in ('jax', 'tensorflow') if m in "
            "sys.modules]))\nfrom medae_jax import cli\ncli.console()")
  command = [sys.executable, "-c", script, *(a.format(tmp=tmp_path) for a in args)]
  done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False,
                        env={**os.environ, "PYTHONPATH": str(ROOT)})
  assert done.returncode == code and words in done.stdout + done.stderr, done.stderr
  assert done.stdout.splitlines()[-1] == "[]"


BUG = """
import sys
from medae_jax import cli
def run(mode):
  raise {error}
cli.run = run
cli.console()
"""


@pytest.mark.slow
@pytest.mark.parametrize("error, code", [
    ("KeyError('nosuch')", 70), ("ValueError('of the code, not of the user')", 70),
    ("KeyboardInterrupt", 130), ("FloatingPointError('loss is nan')", 1),
    ("OSError(28, 'No space left on device')", 1), ("cli.UserError('wrong')", 1),
    ("MemoryError('64 GB')", 1)])
def test_exit_codes(error, code, tmp_path):
  """A fault of the program is told from the user's, and its traceback kept."""
  (tmp_path / "w").mkdir()
  for workdir, log in ((tmp_path / "w", tmp_path / "w" / "error.log"),
                       (tmp_path / "none", tmp_path / "medae_jax_error.log")):
    done = subprocess.run([sys.executable, "-c", BUG.format(error=error), "--mode=list",
                           f"--workdir={workdir}"], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    lines = [x for x in done.stderr.splitlines() if x.startswith("medae_jax: ")]
    assert done.returncode == code and len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert log.exists() is (code == 70)
    if code == 70:
      assert "a fault of medae_jax" in lines[0] and log.name in lines[0]
      assert "Traceback" in log.read_text() and "in run" in log.read_text()


@pytest.mark.slow
def test_a_field_that_the_config_lacks_is_the_users(tmp_path):
  script = BUG.format(error="__import__('ml_collections').ConfigDict({'median': 5}).erosion")
  done = subprocess.run([sys.executable, "-c", script, "--mode=list"], cwd=tmp_path, text=True,
                        capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
  assert done.returncode == 1 and "the config has no field 'erosion', which" in done.stderr
  assert "Traceback" in (tmp_path / "medae_jax_error.log").read_text()


@pytest.mark.slow
def test_workdir_without_checkpoint(tmp_path):
  from medae_jax.core.files import write_json
  write_json(tmp_path / "config.json", cases.config("dae_brats").to_dict())
  assert "no checkpoint" in error_line("--mode=evaluate", f"--workdir={tmp_path}")
