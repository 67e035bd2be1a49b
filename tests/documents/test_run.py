"""Commands of README and docs that take seconds are run here, word for word, one after another in one folder.

What is not run, and why, stands in NOT_RUN: every command is in exactly one of the two (test_commands.py
resolves all of them). The folder holds runs of a detector in closed form and two scans.
"""

import re
import runpy
import shutil
import sys

import pytest

from medae_jax import evaluate
from tests import console
from tests.documents import commands
from tests.unit import fake_run
from tests.unit.modes.test_predict import brain, rotated, save

LAUNCH = "python launch.py"
COMPARED = "runs/dae/benchmark/comparison.html"
# Command -> a file that is there afterwards, or else words that it says.
RUN = {
    LAUNCH: "--mode=predict  --workdir=",
    f"{LAUNCH} --mode=list": "annotation_removal",
    f"{LAUNCH} --mode=weights": "vgg16",
    f"{LAUNCH} --mode=evaluate --workdir=runs/dae": "runs/dae/report.html",
    f"{LAUNCH} --mode=evaluate --workdir=runs/dae --config.eval.measures='(\"aupro\",)'": "AUPRO",
    f"{LAUNCH} --mode=predict --workdir=runs/dae --input=scan_folder --output=maps": "maps/predictions.csv",
    f"{LAUNCH} --mode=predict --workdir=runs/dae --input=scans --output=maps": "maps/p1_mask.nii.gz",
    f"{LAUNCH} --mode=predict --workdir=runs/dae --input=scans --output=maps --config.predict.threshold=0.3":
        "maps/p1_anomaly.nii.gz",
    f"{LAUNCH} --mode=predict --workdir=runs/dae --input=scans/ --output=maps/": "maps/predictions.html",
    f"{LAUNCH} --mode=predict --workdir=runs/mine --input=new_scans --output=results":
        "results/predictions.csv",
    f"{LAUNCH} --mode=report --workdir=runs/dae": "runs/dae/report.html",
    f"{LAUNCH} --mode=report --workdir=runs/dae --input=runs/piad": COMPARED,
    f"{LAUNCH} --mode=report --workdir=runs/dae --input=runs/piad,runs/dpa": COMPARED,
    f"{LAUNCH} --mode=export --workdir=runs/dae --output=exported": "exported/score.stablehlo",
    f"{LAUNCH} --mode=predict --workdir=exported --input=scan_folder --output=maps": "maps/p1_overlay.png",
    "python -m benchmarks.faults --check": " faults in ",
    "python -m benchmarks.import_graph [--root=FOLDER] [--edges]": "modules in circles"}
# Reason -> what the commands contain (regular expressions).
NOT_RUN = {
    "a server: tests/unit/serving ask it": (r"--mode=serve",),
    "trains for minutes to days, or reads data or weights that tests do not have; its :smoke: tests/contract":
        (r"--config=\"?'?(configs/)?(ae|dae|deep|dpa|frozen|morphaeus|noisy|own|piad)_\w+(\.py)?[: \"]",
         r"--config=configs/(annotation_removal|dae_brats|dae_nifti)\.py( |:|$)", r"--config=mine_config"),
    "many runs: tests/e2e/test_sweep.py, tests/unit/reporting": (
        r"--mode=sweep", r"--mode=report --workdir=W",),
    "a run of another task, or of a data set that tests do not have: tests/e2e, tests/unit/modes": (
        r"--workdir=runs/(erase|breast|skin|frozen|dpa|lgg)", r"--config.data.dir=other", r"layout=bids"),
    "needs jax2onnx or TensorFlow as well: tests/unit/modes/test_export.py, test_export_onnx.py": (
        r"--formats=", r"run_onnx\.py"),
    "a checkpoint of PyTorch, or a wheel: tests/unit/modes/test_convert.py, tests/unit/weights": (
        r"--mode=convert", r"--mode=weights --input"),
    "prepares data: tests/unit/data/test_prepare_programs.py, tests/unit/slides": (
        r"-m data_pipelines\.",),
    "measures for minutes, most with data": (r"-m benchmarks\.(?!faults --check|import_graph)",),
    "installs, builds, or runs all tests": (r"^(pip|make|pytest) ", r"-m pytest", r"-m tests\.")}


def plain(text):
  """A command as RUN has it: without its comment and extra blanks."""
  return " ".join(re.sub(r"\s#.*", "", text).split())


SHOWN = list(dict.fromkeys(plain(c.text) for c in commands.all_commands()))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """The folder of someone who follows the pages."""
  folder = tmp_path_factory.mktemp("shown")
  noted = {"image": [[4, *fake_run.SHAPE, 2], "float32"]}
  evaluate.evaluate(fake_run.write(folder / "runs/dae", fake_run.config(), noted=noted))
  for name in ("mine", "piad", "dpa"):
    shutil.copytree(folder / "runs/dae", folder / "runs" / name)
  for name in ("scan_folder", "scans", "new_scans"):
    save(folder / name, brain(), rotated())
  return folder


def run(text, monkeypatch, capsys):
  """(exit code, output) of a command; of the flags in brackets none is given."""
  _, program, *rest = commands.Command("", 0, re.sub(r" \[.*", "", text)).words()
  if program == "launch.py":
    return console.call(*rest)
  monkeypatch.setattr(sys, "argv", rest)
  monkeypatch.chdir(commands.ROOT)
  try:
    code = runpy.run_module(rest[0], run_name="__main__") and 0
  except SystemExit as end:
    code = end.code or 0
  return code, capsys.readouterr().out


def test_commands_of_seconds_do_what_the_pages_say(place, monkeypatch, capsys):
  for text, made in RUN.items():
    monkeypatch.chdir(place)
    shutil.rmtree("maps", ignore_errors=True)  # predict does not write over the results of other inputs
    is_file = "/" in made
    if is_file:
      (place / made).unlink(missing_ok=True)
    code, said = run(text, monkeypatch, capsys)
    assert code == 0, f"{text}: {said[-2000:]}"
    assert (place / made).is_file() if is_file else made in said, f"{text}: {made}"


def test_every_command_is_run_or_has_its_reason():
  assert not [text for text in RUN if text not in SHOWN]
  patterns = [p for some in NOT_RUN.values() for p in some]
  silent = [t for t in SHOWN if t not in RUN and not any(re.search(p, t) for p in patterns)]
  assert not silent
  assert not [p for p in patterns if not any(re.search(p, t) for t in SHOWN if t not in RUN)]
