"""The report is one well-formed page that says what the files say."""

import html.parser
import json

import numpy as np
from PIL import Image
import pytest

from medae_jax import evaluate, report
from medae_jax.core import files
from medae_jax.core.errors import UserError
from medae_jax.reporting import charts, gallery, plots
from medae_jax.reporting.run import results, tables
from medae_jax.tasks.anomaly import whole_scans
from tests.unit import fake_run


class _Balance(html.parser.HTMLParser):
  """Every tag that opens is closed, in order."""
  void = {"meta", "img", "br", "path", "circle", "text"}

  def __init__(self):
    super().__init__()
    self.open = []

  def handle_starttag(self, tag, attrs):
    if tag not in self.void:
      self.open.append(tag)

  def handle_endtag(self, tag):
    if tag not in self.void:
      assert self.open.pop() == tag


def _check(page):
  parser = _Balance()
  parser.feed(page.removeprefix("<!doctype html>"))
  assert not parser.open


def test_empty_workdir(tmp_path):
  page = report.write(tmp_path).read_text()
  _check(page)
  assert "Nothing was evaluated yet" in page


def test_page_of_any_kind_of_result(tmp_path):
  """Keys that the report does not know (of other evaluators) are shown under their names."""
  folder = tmp_path / "evaluation"
  folder.mkdir()
  result = {"dataset": "marks <b>", "synthetic": False, "n_images": 1200, "psnr": 31.25,
            "ssim": None, "ci95": {"psnr": [30.5, 32.0]}, "notes": {"ssim": "too small"},
            "checkpoint": {"which": "best", "step": 7}}
  (folder / "test.json").write_text(json.dumps(result))
  (folder / "test.csv").write_text("image,psnr\na<script>,31.5\n")
  files.write_png(folder / "test_panel.png", np.zeros((4, 4, 3), np.uint8))
  lines = [{"step": s, "train/loss": 10.0 ** -s, "val/loss": 1.0} for s in range(1, 5)]
  cut = "\n{\"step\": 5, \"tr"  # what a killed run leaves
  (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + cut)
  page = report.write(tmp_path).read_text()
  _check(page)
  assert "31.250" in page and "[30.500, 32.000]" in page and "1,200" in page and "too small" in page
  assert "<script>" not in page and "marks &lt;b&gt;" in page and "SYNTHETIC" not in page
  assert page.count("<svg") == 1 and "loss (log scale)" in page
  assert "step 7" in page


RESULT = {"dataset": "d", "n_images": 40, "n_patients": 20, "pixel_ap": 0.7, "image_auroc": 0.8,
          "model_better": True, "model_better_by": {"metric": "pixel_ap", "difference": 0.1},
          "baseline": {"pixel_ap": 0.3, "pixel_ap_median5": 0.5, "pixel_ap_guided": 0.6}}


@pytest.mark.parametrize("interval, said, style", [
    ([-0.1, 0.3], "no difference shown from a plain intensity threshold", "even"),
    ([0.02, 0.3], "the model is better than a plain intensity threshold", "better"),
    ([-0.3, -0.1], "the model is WORSE than a plain intensity threshold", "worse")])
def test_the_interval_decides_what_is_said_first(tmp_path, interval, said, style):
  """Whatever the file claims: a difference whose interval contains zero is none."""
  result = {**RESULT, "ci95": {"pixel_ap": [0.5, 0.8], "pixel_ap_minus_baseline": interval}}
  files.write_json(tmp_path / "evaluation/test.json", result)
  page = report.write(tmp_path).read_text()
  _check(page)
  assert said in page and f'class="say {style}"' in page and "Over 20 patients, 40 images" in page
  assert ("which contains zero" in page) == (style == "even")
  assert "reaches 0.600 after a 5x5 median and the model" in page and "(0.500 after a 5x5 median)" in page


def test_restoration_that_is_worse_than_untouched_is_said_before_everything(tmp_path):
  """... and without patients, dashes or the words of other tasks."""
  base = {"psnr": 29.6, "mae_inside": 0.1}
  for split, interval in (("test", [-1.2, -0.1]), ("val", [0.1, 0.3])):
    files.write_json(tmp_path / f"evaluation/{split}.json", {
        "dataset": "marks", "n_images": 12, "psnr": 29.0, "mae_inside": 0.2, "baseline": base,
        "baselines": {"nothing": base, "inpaint_telea": {"psnr": 30.0}}, "fill": "network",
        "fill_network": {"psnr": 29.0}, "ci95": {"psnr_minus_baseline": interval}})
  files.write_json(tmp_path / "calibration.json", {"threshold": 0.4, "score": {"threshold": 0.4},
                                                   "score_fit": {"f1": 0.5, "precision": 0.6}})
  page = report.write(tmp_path).read_text()
  _check(page)
  assert page.index("Test: the model is WORSE than the frame as it is, untouched") < page.index(
      "Validation: the model is better")
  assert "29.000 dB; the frame as it is, untouched, reaches 29.600 dB" in page
  assert "told the true marks: Telea" in page and "marks filled by the network (what predict writes)" in page
  main = page[page.index("<main"):page.index("config.json</summary>")]
  assert not any(word in main for word in ("None", "patients", "(top", "Pixel AP", "&ndash;</td><td>&ndash;"))


def test_pictures_stand_row_by_row_with_verdict_sides_and_scale(tmp_path):
  rows = [{"part": part, "title": f"case <{part}>", "facts": ["slice 4 of 9"], "verdict": verdict,
           "sides": ["R", "L"], "cells": [{"head": "anomaly score",
                                          "picture": np.full((4, 5, 3), 7, np.uint8)}]}
          for part, verdict in (("misses", "missed"), ("panel", "found"))]
  files.write_json(tmp_path / "evaluation/test.json", RESULT)
  files.write_json(tmp_path / "calibration.json", {"map_max": 2.0, "threshold": 0.5})
  gallery.write(tmp_path / "evaluation", "test", rows + rows)
  gallery.write(tmp_path / "evaluation", "test", rows)  # again: nothing of the first call is left
  assert len(list((tmp_path / "evaluation/pictures/test").iterdir())) == 2
  page = report.write(tmp_path).read_text()
  _check(page)
  assert page.count('loading="lazy"') == 2 and 'width="5" height="4"' in page and "slice 4 of 9" in page
  assert page.index("Worst misses") < page.index("A spread of cases") and 'class="verdict bad">missed' in page
  assert 'title="side of the patient">R<' in page and 'left:25.0%' in page and "&lt;misses&gt;" in page
  files.write_bytes(tmp_path / "evaluation/curves/test.json", b'{"scores": {"image": {"edges": "x"}}}')
  with pytest.raises(UserError, match=r"curves/test.json is damaged"):
    report.write(tmp_path)


def test_an_evaluation_draws_its_curves_and_says_where_it_comes_from(tmp_path):
  run = fake_run.make(tmp_path)
  evaluate.evaluate(run)
  page = (run / "report.html").read_text()
  _check(page)
  for words in ("Images: ROC curve, area", "Pixels: precision and recall", "Scores of images: ", "Dice of",
                "sensitivity", "called abnormal", "A spread", "aria-label", "Commit", "Seed", "jax "):
    assert words in page, words
  assert "http" not in page.replace("https://", "").replace("http://www.w3.org", "")  # nothing is fetched
  table = results.read(run / "evaluation")[0]
  called = tables.calls(table)
  hit, missed = called["found"], called["missed"]
  assert hit / (hit + missed) == table.result["image_sensitivity"]
  assert sum(called.values()) == table.result["n_images"]


def test_axes_have_round_ticks():
  assert charts._ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
  assert charts._ticks(0.0096, 0.125) == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.12])
  for low, high in ((-1e-7, 1e-7), (0, 3e300), (99.5, 100)):
    assert 2 <= len(charts._ticks(low, high)) <= 11
    assert charts.Frame((low, high), (low, high), "x", "y").svg("a <b>").count("&lt;b&gt;") == 1


def test_chart_of_one_point_and_of_constants():
  for points in ([(0, 3e300), (1, 3e300)], [(3, 1.0)], [(0, 0.0), (5, 0.0)], [(0, -1.0), (9, 1e6)]):
    picture = plots.chart("x", {"a": points})
    assert picture.startswith("<svg") and "nan" not in picture.lower()


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
  path = files.write_csv(tmp_path / "a/x.csv", [{"p": 1, "q": np.nan}, {"p": 2, "r": 0.5}])
  assert path.read_text() == "p,q,r\n1,,\n2,,0.5\n"
  monkeypatch.setattr(type(path), "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
  try:
    files.write_csv(path, [{"p": 3}])
  except OSError:
    pass
  assert path.read_text().startswith("p,q,r") and len(list(path.parent.iterdir())) == 1


def test_png_keeps_pixels(tmp_path):
  picture = np.random.default_rng(0).integers(0, 255, (5, 6, 3), dtype=np.uint8)
  with Image.open(files.write_png(tmp_path / "x.png", picture)) as image:
    np.testing.assert_array_equal(np.asarray(image), picture)


def test_page_of_normal_scans_alone_says_what_is_absent_and_what_the_threshold_promises(tmp_path):
  """No row of dashes, one line a reason, the rule of the threshold in words or why there is none."""
  folder = tmp_path / "evaluation"
  folder.mkdir()
  result = {"dataset": "mine", "n_images": 12, "pixel_ap": None, "dice_components": None, "image_auroc": None,
            "scan_false_alarms": 0.125, "baseline": {"what": "intensity", "pixel_ap": None},
            "notes": {"pixel_ap": "the split has no masks", "dice_components": "the split has no masks",
                      "image_auroc": "no abnormal image in the split"}}
  (folder / "test.json").write_text(json.dumps(result))
  few = {**whole_scans.calibrate(whole_scans.Scans(np.arange(5.0), np.zeros(5, int), "scan"), 0.05),
         "map_max": 1.0}
  (tmp_path / "calibration.json").write_text(json.dumps(few))
  page = report.write(tmp_path).read_text()
  _check(page)
  assert ">Pixel average precision<" not in page and ">Image AUROC<" not in page and "0.125" in page
  assert "intensity threshold, test" not in page and page.count("the split has no masks") == 1
  assert "not measured: Pixel average precision; Best Dice (oracle), small components removed" in page
  assert "too few for a share of false alarms of 0.05" in page and "5 normal scans of validation" in page
  enough = whole_scans.calibrate(whole_scans.Scans(np.arange(40.0), np.zeros(40, int), "scan"), 0.05)
  (tmp_path / "calibration.json").write_text(json.dumps({**few, **enough}))
  page = report.write(tmp_path).read_text()
  assert "scan threshold 38 (conformal, from 40 normal scans" in page and "0.024" in page


def test_further_forms_of_dice_are_folded_and_what_is_absent_is_said_once(tmp_path):
  """Dice in six ways; nine names twice where a folder holds normal scans alone; "scans" of pictures."""
  folder = tmp_path / "evaluation"
  folder.mkdir()
  notes = dict.fromkeys(("pixel_ap", "dice_val_threshold", "dice_best", "dice_components"), "no masks")
  for split, more in (("test", {"dice_val_threshold": 0.5, "dice_best": 0.75}), ("val", {}), ("new", {})):
    known = {"dataset": "mine", "n_images": 12, "scan_unit": "image", "n_normal_scans": 12, **more}
    (folder / f"{split}.json").write_text(json.dumps(known if more else {**known, "notes": notes}))
  page = report.write(tmp_path).read_text()
  _check(page)
  first, folded = page.split("<details><summary>Further forms of Dice</summary>")
  assert "Dice at the validation threshold" in first and "Best Dice (oracle)" not in first
  assert "0.750" in folded and "ormal scans" not in page
  assert page.count("no masks") == 1 and "not measured: Pixel average precision; Dice at the" in page


def test_the_variant_of_a_result_heads_the_page(tmp_path):
  files.write_json(tmp_path / "evaluation/test.json", {
      "dataset": "d", "synthetic": True, "n_images": 2, "psnr": 3.0, "variant": "demo", "trunk": "vgg16, <a>",
      "checkpoint": {"which": "best", "step": 7}})
  page = report.write(tmp_path).read_text()
  _check(page)
  assert "SYNTHETIC DATA" in page and "Variant demo: a short training in small" in page
  assert "Pretrained network: vgg16, &lt;a&gt;." in page


def test_a_benchmark_overwrites_nothing_of_others(tmp_path):
  """--output=. wrote its table.csv over one that was there."""
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine/table.csv").write_text("mine")
  with pytest.raises(UserError, match="mine/table.csv is there, and no report has written it"):
    report.report(tmp_path, "", tmp_path / "mine")
  assert (tmp_path / "mine/table.csv").read_text() == "mine"
  (tmp_path / "mine/benchmark.html").write_text("of an earlier report")
  with pytest.raises(FileNotFoundError, match="no evaluated run"):
    report.report(tmp_path, " , ", tmp_path / "mine")
