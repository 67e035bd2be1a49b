"""The page of predict, and the comparison of runs on common cases."""

import re

import numpy as np
import pytest

from medae_jax import report
from medae_jax.core import files
from medae_jax.metrics import detection
from medae_jax.reporting import plots, predictions
from medae_jax.reporting.comparison import page as comparison, paired


def run(folder, shift, n=40, seed=0, patients=20):
  """An evaluated run: scores of known quality, Dice of patients."""
  rng = np.random.default_rng(seed)
  label = np.arange(n) % 2
  score = rng.normal(label * 1.0, 1) + shift * label
  files.write_json(folder / "config.json", {"method": {"name": "dae"}, "data": {"name": "d"}, "seed": 0})
  files.write_json(folder / "evaluation/test.json", {"dataset": "d", "n_images": n, "image_auroc": 0.5,
                                                        "synthetic": shift == 3})
  files.write_csv(folder / "evaluation/test_images.csv", [
      {"id": f"i{i}", "patient": f"p{i % patients}", "label": int(label[i]), "score": float(score[i])}
      for i in range(n)])
  files.write_csv(folder / "evaluation/test.csv", [
      {"patient": f"p{i}", "lesion_pixels": i, "dice_val_threshold": 0.5 + shift / 10}
      for i in range(patients)])
  return score, label


def test_pairs_are_compared_on_common_cases_with_common_draws(tmp_path):
  a, label = run(tmp_path / "a", 0.0)
  run(tmp_path / "b", 3.0)
  run(tmp_path / "c", 3.0)
  images = (tmp_path / "c/evaluation/test_images.csv").read_text()
  (tmp_path / "c/evaluation/test_images.csv").write_text(images.replace("i0,p0,0", "i0,p0,1"))  # another case
  runs = [paired.read(tmp_path / n, n) for n in "abc"]
  found = {m.key: m for m in paired.compare(runs, resamples=200)}
  auroc, dice = found["image_auroc"], found["dice_patients_mean"]
  assert auroc.cases == 39 and auroc.patients == 20 and len(auroc.pairs) == 3
  want = detection.auroc(detection.sorted_counts(a[1:], label[1:]))
  assert auroc.values["a"][0] == pytest.approx(float(want), abs=1e-6)
  ab, _, bc = auroc.pairs
  assert ab.said == "worse" and ab.wide[0] <= ab.interval[0] and ab.wide[1] >= ab.interval[1]
  assert bc.difference == 0 and bc.interval == [0, 0] and bc.said == "no difference shown"
  assert dice.cases == 19 and dice.pairs[0].difference == pytest.approx(-0.3)  # p0 has no lesion


def test_the_page_of_the_comparison_stands_beside_the_benchmark(tmp_path):
  run(tmp_path / "a", 0.0)
  run(tmp_path / "b", 3.0)
  path = report.report(tmp_path / "a", str(tmp_path / "b"), tmp_path / "out")
  assert "comparison.html" in path.read_text()
  page = (tmp_path / "out/comparison.html").read_text()
  assert "first is worse" in page and "Image AUROC" in page and "40 common cases of 20" in page
  assert "SYNTHETIC DATA" in page  # one of the runs is
  assert len((tmp_path / "out/comparison.csv").read_text().splitlines()) == 4
  assert comparison.write([tmp_path / "a"], tmp_path / "alone") is None
  assert not (tmp_path / "alone").exists()


def test_page_of_predict(tmp_path, monkeypatch):
  picture = files.write_png(tmp_path / "b_overlay.png", np.zeros((4, 4, 3), np.uint8))
  anomaly = tmp_path / "b #1_anomaly.nii.gz"
  rows = [{"input": "a<script>", "score": 0.1, "mask_ml": 4.04, "called_abnormal": 0, "error": ""},
          {"input": "b", "score": 0.9, "mask_ml": 1.0, "called_abnormal": 1, "warning": "far off",
           "error": ""},
          {"input": "c", "error": "no file & no hope"}]
  about = {"method": "dae", "run": "r", "checkpoint": "best", "trained_on": "", "calibration": ""}
  page = predictions.write(tmp_path, rows, {"b": [picture, anomaly]}, about).read_bytes()
  assert page.startswith(predictions.HEAD) and b"<script>" not in page and b"no file &amp; no hope" in page
  assert page.index(b"case-1\">b<") < page.index(b"case-2\">a&lt;script&gt;<")  # the highest score first
  assert b"1 of 2 called abnormal" in page and b"1 with a warning" in page and b"1 failed" in page
  assert b"goes by another threshold" in page and b"far off" in page and b"b%20%231_anomaly.nii.gz" in page
  assert page.count(b"data:image/png") == 1
  monkeypatch.setattr(predictions, "_INLINE", 10)  # beyond it pictures are linked
  page = predictions.write(tmp_path, rows, {"b": [picture, anomaly]}, about).read_bytes()
  assert b"data:image/png" not in page and b'src="b_overlay.png"' in page


@pytest.mark.parametrize("width, height", [(400, 230), (900, 120)])
def test_lines_of_a_chart_lie_inside_its_axes(width, height):
  """From the left axis to 12 px before the right edge, and between the title and the step below."""
  drawn = plots.chart("x", {"a": [(0, 2.0), (5, 3.0), (10, 1.0)]}, width, height)
  line, = re.findall("d='(M[^H']*L[^']*)'", drawn)
  points = [tuple(map(float, p.split())) for p in line[1:].split("L")]
  assert points == [(62, pytest.approx((height - 8) / 2)), (pytest.approx((50 + width) / 2), 26),
                    (width - 12, height - 34)]
