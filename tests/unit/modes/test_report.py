"""The report is one well-formed page that says what the files say."""

import html.parser
import json

import numpy as np
from PIL import Image

from medae_jax import report
from medae_jax.core import files
from medae_jax.reporting import plots
from medae_jax.tasks.anomaly import whole_scans


class _Balance(html.parser.HTMLParser):
  """Every tag that opens is closed, in order."""
  void = {"meta", "img", "br", "path", "text"}

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
  assert "<td>Pixel average precision" not in page and "<td>Image AUROC" not in page and "0.125" in page
  assert "intensity threshold, test" not in page and page.count("the split has no masks") == 1
  assert "no Pixel average precision, no dice components" in page
  assert "too few for a share of false alarms of 0.05" in page and "5 normal scans of validation" in page
  enough = whole_scans.calibrate(whole_scans.Scans(np.arange(40.0), np.zeros(40, int), "scan"), 0.05)
  (tmp_path / "calibration.json").write_text(json.dumps({**few, **enough}))
  page = report.write(tmp_path).read_text()
  assert "scan threshold 38 (conformal, from 40 normal scans" in page and "0.024" in page


def test_the_variant_of_a_result_heads_the_page(tmp_path):
  files.write_json(tmp_path / "evaluation/test.json", {
      "dataset": "d", "synthetic": True, "n_images": 2, "psnr": 3.0, "variant": "demo", "trunk": "vgg16, <a>",
      "checkpoint": {"which": "best", "step": 7}})
  page = report.write(tmp_path).read_text()
  _check(page)
  assert "SYNTHETIC DATA" in page and "Variant demo: a short training in small" in page
  assert "Pretrained network: vgg16, &lt;a&gt;." in page
