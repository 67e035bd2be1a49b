"""One's own folder through the command line: train, evaluate, report, predict, an external set."""

import csv
import json

import numpy as np
from PIL import Image
import pytest

from tests import console

pytestmark = pytest.mark.slow


def images(folder, n, prefix, lesion=False):
  folder.mkdir(parents=True)
  for i in range(n):
    pixels = np.random.default_rng(i).integers(60, 90, (40, 30), np.uint8)
    if lesion:
      pixels[10:18, 8:16] = 250
    Image.fromarray(pixels).save(folder / f"{prefix}{i:02d}.png")


def launch(*args):
  code, text = console.call(*args)
  assert code == 0, text[-3000:]
  return text


def test_normals_alone_from_folder_to_verdict(tmp_path, caplog):
  images(tmp_path / "mine" / "normal", 60, "n")
  run = tmp_path / "run"
  launch("--config=configs/own_folder.py:dae,smoke", f"--workdir={run}",
         f"--config.data.dir={tmp_path / 'mine'}",
         "--config.eval.alpha=0.1")
  result = json.loads((run / "evaluation" / "test.json").read_text())
  assert result["n_normal_scans"] == 12 and result["n_abnormal_scans"] == 0
  assert result["notes"]["image_auroc"] == "no abnormal image in the split"
  calibration = json.loads((run / "calibration.json").read_text())
  assert "at most 0.1 of new normal images" in calibration["scan_threshold_rule"]
  assert "at most 0.1 of new normal images" in (run / "report.html").read_text()
  with open(run / "splits.csv") as f:
    rows = list(csv.DictReader(f))
  assert sorted(r["split"] for r in rows).count("train") == 36 and {r["label"] for r in rows} == {"normal"}
  assert json.loads((run / "config.json").read_text())["data"]["split_table"] == ""

  # Files that come later move nobody: the run keeps its split.
  images(tmp_path / "mine" / "normal" / "later", 3, "m")
  launch("--mode=evaluate", f"--workdir={run}")
  again = json.loads((run / "evaluation" / "test.json").read_text())
  assert again["n_images"] == result["n_images"]

  images(tmp_path / "new", 2, "a", lesion=True)
  launch("--mode=predict", f"--workdir={run}", f"--input={tmp_path / 'new'}", f"--output={tmp_path / 'maps'}")
  with open(tmp_path / "maps" / "predictions.csv") as f:
    found = list(csv.DictReader(f))
  assert len(found) == 2 and all(0 < float(r["p_value"]) <= 1 and r["verdict"] in ("normal", "abnormal")
                                 for r in found)

  # Another hospital: the run's calibration, results of their own, the run's stay.
  images(tmp_path / "other" / "normal", 20, "o")
  images(tmp_path / "other" / "abnormal", 5, "x", lesion=True)
  caplog.set_level("INFO")
  own = [p for p in (run / "evaluation").rglob("*") if p.is_file()]
  before = {p: p.read_bytes() for p in [*own, run / "calibration.json"]}
  launch("--mode=evaluate", f"--workdir={run}", f"--config.data.dir={tmp_path / 'other'}")
  assert "nothing is chosen on these data" in caplog.text
  assert {p: p.read_bytes() for p in before} == before
  outside, = (run / "external").iterdir()
  external = json.loads((outside / "evaluation" / "test.json").read_text())
  assert external["dataset"] == "other" and external["n_abnormal_scans"] == 5
  assert external["val_threshold"] == calibration["threshold"]
  assert (outside / "report.html").is_file() and not (outside / "evaluation" / "val.json").exists()
