"""python -m data_pipelines.prepare, and the workers behind it."""

import argparse
import csv
import importlib
import json
import logging
import subprocess
import sys
import threading
import time

import numpy as np
from PIL import Image
import pytest

from data_pipelines import workers
from data_pipelines.brains import prepare_scan
from data_pipelines.datasets import annotations, synthetic
from data_pipelines.marks import layers
from data_pipelines.masks import synthetic_lesions
from data_pipelines.pairs import ultrasound
from data_pipelines.prepare import __main__ as programs, pairs


def test_brats_prepares_what_the_data_set_then_finds(tmp_path, capsys):
  synthetic.write_nifti(tmp_path / "scans", 4, shape=(20, 22, 5), splits=(2, 1, 1))
  programs.main(["brats", f"--dir={tmp_path / 'scans'}", f"--prepared_dir={tmp_path / 'p'}",
                 "--image_size=16,12", "--modalities=flair,t2", "--workers=1"])
  said = capsys.readouterr().out
  assert "train: 2 patients" in said and "0 scans left out" in said
  manifest = json.loads((tmp_path / "p" / "manifest.json").read_text())
  assert manifest["parameters"]["image_size"] == [16, 12]
  assert manifest["parameters"]["modalities"] == ["flair", "t2"]
  written = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "p" / "records").iterdir()}
  from data_pipelines.datasets import brats
  data = brats.build(dict(dir=str(tmp_path / "scans"), prepared_dir=str(tmp_path / "p"),
                          image_size=(16, 12), modalities=("flair", "t2")), 0)
  assert data.train().read_one(0)["image"].shape == (16, 12, 2)
  after = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "p" / "records").iterdir()}
  assert written == after  # nothing was prepared twice


def test_flags_of_pairs_reach_what_reads_and_what_writes(monkeypatch, capsys):
  given = []
  monkeypatch.setattr(pairs, "_frames", lambda *args: given.append(args) or "frames")
  monkeypatch.setattr(pairs, "write", lambda *args, **more: given.append((args, more)) or {"frames": [1] * 3})
  pairs.main(["--dir=d", "--out=o", "--copies=2", "--seed=4", "--channels=1", "--window", "10", "200",
              "--synthetic=7", "--set=count=2,3"])
  (read, (written, more)) = given
  assert read == ("d", 1, 7, (128, 128), (10.0, 200.0)) and more == {"seed": 4, "copies": 2}
  assert written[:2] == ("o", "frames") and written[2]["count"] == (2, 3)
  assert capsys.readouterr().out == "3 pairs in o\n"


def test_pairs_of_one_jpeg_quality_hold_what_that_quality_leaves(tmp_path):
  clean = np.random.default_rng(0).random((24, 32, 1), np.float32)
  options = {**annotations.defaults().marks.to_dict(), "unmarked": 1.0, "jpeg": 1.0, "jpeg_quality": (40, 40)}
  written = pairs.write(tmp_path / "p", [("a", clean)], options)
  assert written["frames"] == [{"file": "a_c0.png", "marks": [], "mask_share": 0.0}]
  wanted = np.round(layers.jpeg(clean, 40) * 255)
  for folder in ("clean", "annotated"):
    found = np.asarray(Image.open(tmp_path / "p" / folder / "a_c0.png"))
    np.testing.assert_array_equal(found, wanted[..., 0])


def test_frames_of_prepare_pairs_are_those_that_the_synthetic_set_draws_on():
  for i, (name, frame) in enumerate(pairs._frames("", 3, 2, (32, 48), (0, 0))):
    grey = ultrasound.frame(np.random.default_rng([20240, i]), (32, 48))
    assert name == f"synthetic{i:05d}"
    np.testing.assert_array_equal(frame, np.stack([grey] * 3, -1))


def test_pairs_and_noisy_study_run_by_name(tmp_path, capsys):
  programs.main(["pairs", f"--out={tmp_path / 'pairs'}", "--synthetic=2", "--copies=2"])
  assert "4 pairs" in capsys.readouterr().out
  assert len(list((tmp_path / "pairs" / "mask").iterdir())) == 4
  (tmp_path / "set").mkdir()
  rows = ["image,mask,split"]
  for i, split in enumerate(["train"] * 6 + ["val", "test"]):
    mask = np.zeros((30, 30), np.uint8)
    mask[8:20, 6 + i:18 + i] = 255
    Image.fromarray(np.full((30, 30, 3), 9 * i, np.uint8)).save(tmp_path / "set" / f"i{i}.png")
    Image.fromarray(mask).save(tmp_path / "set" / f"m{i}.png")
    rows.append(f"i{i}.png,m{i}.png,{split}")
  (tmp_path / "set" / "labels.csv").write_text("\n".join(rows))
  programs.main(["noisy_study", f"--dir={tmp_path / 'set'}", f"--out={tmp_path / 'study'}",
                 "--clean=2", "--image_size=16"])
  assert "mean Dice" in capsys.readouterr().out
  assert len(list((tmp_path / "study" / "training" / "noisy_gt").iterdir())) == 4
  assert np.load(tmp_path / "study" / "mean_image.npy").shape == (16, 16, 3)


def test_mistakes_are_one_line(tmp_path, capsys):
  with pytest.raises(SystemExit, match="^error: .*nowhere.* is not a folder$"):
    programs.main(["brats", "--dir=/nowhere"])
  with pytest.raises(SystemExit, match="there is no program 'bats'(.|\n)*brats(.|\n)*pairs"):
    programs.main(["bats"])
  programs.main(["--help"])
  assert "noisy_study" in capsys.readouterr().out
  with pytest.raises(SystemExit):
    programs.main(["brats", "--dir=.", "--lesion_values=1,x"])
  assert "--lesion_values: '1,x' is not whole numbers with commas between" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["prepare", "prepare.pairs", "prepare.noisy_study", "prepare.brats"])
def test_old_and_new_commands_start(name):
  done = subprocess.run([sys.executable, "-m", f"data_pipelines.{name}", "--help"],
                        capture_output=True, text=True, timeout=120)
  assert done.returncode == 0 and "usage" in done.stdout


def test_results_come_with_their_jobs_whatever_the_number_of_processes():
  jobs = [{"patient": f"p{i}", "volumes": [f"/nowhere/{i}.nii"], "seg": None, "modalities": ["a"],
           "size": [4, 4], "storage": "float32", "folder": "", "key": {},
           "orientation": "LPS", "placement": "scan", "field_mm": 192.0,
           "unit": "percentile"} for i in range(5)]
  for count in (1, 3):
    found = {job["patient"]: result["bad"] for job, result in workers.run(prepare_scan, jobs, count)}
    assert found == {f"p{i}": f"volume /nowhere/{i}.nii does not exist" for i in range(5)}
  assert not list(workers.run(prepare_scan, [], 3))


def test_progress_reaches_the_log_where_there_is_no_terminal(caplog):
  with caplog.at_level(logging.INFO):
    progress = workers.Progress(3, "scan", "prepared")
    for bad in (0, 1, 1):
      progress.step(bad)
    progress.close()
  assert len(caplog.records) == 1  # within the first seconds only the end is said
  assert "prepared 3/3 scans, 1 left out" in caplog.text


def test_a_folder_is_written_by_one_at_a_time(tmp_path):
  order = []

  def second():
    with workers.locked(tmp_path):
      order.append("second")
  with workers.locked(tmp_path):
    other = threading.Thread(target=second)
    other.start()
    time.sleep(0.3)
    order.append("first")
  other.join(timeout=10)
  assert order == ["first", "second"]


def test_ids_that_begin_as_a_formula_are_text_in_the_table_of_a_study(tmp_path):
  (tmp_path / "set").mkdir()
  names, lines = ["=a", "+b", "-c", "@d", "e", "f", "g", "h"], ["image,mask,split"]
  for i, name in enumerate(names):
    pixels, mask = synthetic_lesions.draw(1, "all", i)
    Image.fromarray(pixels).save(tmp_path / "set" / f"{name}.png")
    Image.fromarray((255 * mask).astype(np.uint8)).save(tmp_path / "set" / f"m{i}.png")
    lines.append(f"{name}.png,m{i}.png,{'train' if i < 6 else 'val' if i < 7 else 'test'}")
  (tmp_path / "set" / "labels.csv").write_text("\n".join(lines))
  programs.main(["noisy_study", f"--dir={tmp_path / 'set'}", f"--out={tmp_path / 'study'}", "--clean=1",
                 "--image_size=16"])
  with open(tmp_path / "study" / "noise.csv", newline="", encoding="utf-8") as file:
    ids = {r["id"] for r in csv.DictReader(file)}
  assert len(ids) == 5 and ids < {"'=a", "'+b", "'-c", "'@d", "e", "f"}


@pytest.mark.parametrize("name, defaults", [
    ("nih", {"subset": "", "side": 300, "workers": 0, "strict": False, "stale": 600.0}),
    ("noisy_study", {"manifest": "labels.csv", "noise": "polygon:3", "noise_seed": 0, "clean": 10,
                     "clean_seed": 0, "image_size": 96}),
    ("pairs", {"dir": "", "copies": 1, "seed": 0, "channels": 3, "window": (0, 0), "synthetic": 20})])
def test_what_a_program_does_where_nothing_is_said(name, defaults, monkeypatch):
  seen = {}

  def parse(parser, argv):
    seen.update({a.dest: a.default for a in parser._actions})
    raise SystemExit
  monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
  with pytest.raises(SystemExit):
    importlib.import_module(f"data_pipelines.prepare.{name}").main([])
  assert {k: seen[k] for k in defaults} == defaults
  assert set(seen) - set(defaults) <= {"help", "dir", "out", "source", "target", "set"}


def test_marks_that_cannot_be_drawn_are_refused_before_a_folder_is_made(tmp_path):
  with pytest.raises(SystemExit, match="config.data.marks.unmarked=2.0: a share between"):
    programs.main(["pairs", f"--out={tmp_path / 'p'}", "--synthetic=1", "--set=unmarked=2"])
  assert not (tmp_path / "p").exists()
