"""Pieces of the pages and tables whose numbers are counted by hand: captions, calls, charts, intervals."""

import re
import types

import ml_collections
import numpy as np
import pytest

from medae_jax.core import files
from medae_jax.metrics import bootstrap, dictionary
from medae_jax.reporting import charts, panels, plots, predictions, result_table, tables
from medae_jax.reporting.comparison import paired
from medae_jax.reporting.run import figures, page, results, tables as run_tables, verdicts


def split(curves=(), rows=(), images=(), name="test", **result):
  return results.Split(name, result, dict(curves), list(rows), list(images), [])


# ------------------------------------------------------------------------------------ figures, calls
def test_the_dot_of_the_threshold_lies_at_the_false_positive_rate(monkeypatch):
  drawn = []
  monkeypatch.setattr(charts, "curve", lambda entry, x, y, chance, dot, said: drawn.append((x, dot)) or "")
  band = {"x": [0, 1], "y": [0, 1], "low": [0, 0], "high": [1, 1]}
  of = lambda groups: split({"image": {"roc": band, "pr": band, "prevalence": 0.25}, "unit": "patients",
                             "groups": groups}, image_sensitivity=0.75, image_specificity=0.875)
  roc, pr = figures._ranking(of(9))
  assert drawn == [("false-positive rate", (0.125, 0.75)), ("recall", None)]
  assert "too few for a reliable band" in roc["caption"] and "0.250 are positive" in pr["caption"]
  assert "too few" not in figures._ranking(of(10))[0]["caption"]


def test_each_curve_has_its_own_area_of_its_own_scores(monkeypatch):
  monkeypatch.setattr(charts, "curve", lambda entry, x, y, chance, dot, said: f"{y} {chance} {dot}")
  line = {"x": [0, 1], "y": [0, 1]}
  both = {part: {"roc": line, "pr": line, "prevalence": share}
          for part, share in (("image", 0.5), ("pixel", 0.125))}
  found = split(both, image_auroc=0.875, image_ap=0.75, pixel_auroc=0.625, pixel_ap=0.25)
  images, pixels = figures._ranking(found), figures._pixels(found)
  assert [f["caption"].partition(";")[0] for f in (*images, *pixels)] == [
      "Images: ROC curve, area 0.875", "Images: precision and recall, average precision 0.750",
      "Pixels: ROC curve, area 0.625", "Pixels: precision and recall, average precision 0.250"]
  assert [str(f["svg"]) for f in pixels] == ["sensitivity [(0, 0), (1, 1)] None",
                                             "precision [(0, 0.125), (1, 0.125)] None"]
  assert "(0.125 are positive)" in pixels[1]["caption"] and "positive" not in pixels[0]["caption"]


def test_p_values_of_the_level_count_and_chance_is_kolmogorovs():
  entry = {"unit": "scan", "calibrated_on": 19, "normal": [0.05, 0.2, 0.6, 1.0], "abnormal": [0.05]}
  (found,) = figures._p_values(split({"p_values": entry}))
  assert "1 of 4 normal ones (0.250)" in found["caption"] and "by up to 0.680" in found["caption"]


def test_dots_are_of_patients_with_lesions(monkeypatch):
  drawn = []
  monkeypatch.setattr(charts, "dots", lambda points, unit, said: drawn.extend(points) or "")
  rows = [{"patient": f"p{i}", "lesion_pixels": str(i), "dice_val_threshold": f"0.{i}"} for i in range(3)]
  (found,) = figures._dice(split(rows=rows, n_images=9, n_patients=3))
  assert drawn == [{"name": "p1", "value": 0.1}, {"name": "p2", "value": 0.2}]
  assert "Dice of 2 patients with lesions" in found["caption"]


def test_bars_of_a_class_begin_and_end_at_zero():
  entry = {"edges": [0, 1, 3], "normal": [1, 3], "abnormal": [2, 0], "unknown": [0, 0]}
  svg, frame = charts.histogram(entry, "score"), charts.Frame((0, 3), (0, 1), "score", "share")
  place = lambda a, b: (round(frame.x(a), 1), round(frame.y(b), 1))
  for name, (left, right) in {"normal": (0.25, 0.75), "abnormal": (1, 0)}.items():
    assert points(svg, f"bars-{name}") == [
        place(*p) for p in ((0, 0), (0, left), (1, left), (1, right), (3, right), (3, 0))]
  assert "bars-unknown" not in svg


def test_dots_have_the_words_that_they_are_given_on_their_axis():
  points_of = [{"name": n, "value": v} for n, v in (("a", 0.5), ("b", None), ("c", 0.25))]
  assert "2 cases, worst to best" in charts.dots(points_of, "Dice")
  named = charts.dots(points_of, "Dice", x_label="seeds")
  assert "seeds" in named and "worst to best" not in named


def test_a_segmentation_is_told_by_its_dice_and_drawn_over_all_thresholds(monkeypatch):
  result = {"dice": 0.75, "jaccard": 0.5, "n_images": 9, "ci95": {"dice": [0.5, 0.875], "jaccard": [0, 1]}}
  (one,) = verdicts.of_split(split(against="expert masks", name="val", **result))
  assert one.head == "Validation: mean Dice 0.750 [0.500, 0.875] against expert masks"
  assert "no simpler method" in one.text and "Over 9 images." in one.text
  (one,) = verdicts.of_split(split(jaccard=0.5, dice=None, image_auroc=0.625, n_images=9))
  assert "0.625" in one.head
  gains = charts.dots([{"name": "a", "value": v} for v in (-2.0, 3.0)], "dB", "untouched")
  assert points(gains, "cut")[0][1] == round(charts.Frame((0, 3), (-2.0, 3.0), "x", "y").y(0), 1)
  frame, cuts = charts.Frame((0, 1), (0, 1), "x", "y"), []
  monkeypatch.setattr(charts.Frame, "cut", lambda self, at: cuts.append(at))
  entry = {"thresholds": {"x": [0.25, 0.5], "y": [0.5, 0.75], "threshold": 0.375},
           "dots": {"title": "Dice of all", "unit": "Dice", "points": [{"name": "q", "value": 0.5}]}}
  dots, curve = figures.of_split(split(entry, **result))
  assert points(str(curve["svg"]), "line-1") == [
      (round(frame.x(x), 1), round(frame.y(y), 1)) for x, y in ((0.25, 0.5), (0.5, 0.75))]
  assert cuts == [0.375] and dots["caption"] == "Dice of all, worst to best." and "q: 0.5" in dots["svg"]


def test_calls_by_label_and_the_unit_of_a_split():
  images = [{"label": a, "called_abnormal": b} for a, b in (
      *[("1", "1")] * 4, *[("1", "0")] * 3, *[("0", "1")] * 2, ("0", "0"), ("", "1"))]
  assert run_tables.calls(split(images=images)) == {"found": 4, "missed": 3, "alarms": 2, "right": 1}
  alone, patients = (split(n_images=8, n_patients=n) for n in (8, 4))
  assert (alone.unit, patients.unit) == ("images", "patients")
  assert run_tables.counts([alone, patients]) == [("test", "8 images"), ("test", "8 images, 4 patients")]
  better = lambda *ap: verdicts._better_baseline(dict(zip(("pixel_ap", "pixel_ap_median5"), ap)), "pixel_ap")
  assert (better(0.5, 0.6), better(0.6, 0.5)) == ("pixel_ap_median5", "pixel_ap")


def test_the_least_p_value_and_how_long_it_took():
  assert page._p_value({"scan_scores": [1, 2, 3], "scan_unit": "image"}) == {
      "n": 3, "unit": "image", "least": 0.25}
  lines = dict(page._about({}, {}, [split(seconds=s) for s in (1.0, 2.0, 9.0)]))
  assert lines["Duration"] == "12.0 s for 3 splits (median 2.0 s)"


# ------------------------------------------------------------------------------------------ charts
def points(svg, style):
  """[(x, y), ...] of the first path of a class."""
  path = re.search(rf"class='{style}' d='M([^'Z]*)", svg)[1]
  return [tuple(map(float, p.split())) for p in path.split("L")]


def test_higher_values_are_drawn_higher_and_steps_rise_at_their_value():
  frame = charts.Frame((0, 1), (0, 2), "x", "y")
  assert frame.y(2) < frame.y(1) < frame.y(0) and frame.x(1) > frame.x(0)
  unit = charts.Frame((0, 1), (0, 1), "x", "y")
  place = lambda a, b: (round(unit.x(a), 1), round(unit.y(b), 1))
  drawn = points(charts.p_values({"normal": [0.75, 0.25], "abnormal": []}), "line-1")
  assert drawn == [place(*p) for p in ((0, 0), (0.25, 0), (0.25, 0.5), (0.75, 0.5), (0.75, 1), (1, 1))]


def test_bars_are_shares_of_their_class():
  entry = {"edges": [0, 1, 2], "normal": [3, 1], "abnormal": [0, 5], "unknown": [0, 0]}
  drawn = points(charts.histogram(entry, "score"), "bars-normal")
  frame = charts.Frame((0, 2), (0, 1), "x", "y")  # the highest bar: all of the abnormal ones
  assert [y for _, y in drawn][1:5] == [round(frame.y(v), 1) for v in (0.75, 0.75, 0.25, 0.25)]
  assert "log scale" not in plots.chart("x", {"a": [(0, 0.0), (1, 90.0)]})
  drawn = plots.chart("x", {"a": [(0, 1.0), (1, 100.0)]})
  assert "log scale" in drawn and re.findall(r"y='[^']*' text-anchor='end'>([^<s]+)<", drawn) == [
      "1.000", "10.000", "100.000"]


def test_heat_covers_the_image_from_half_of_the_scale_on():
  grey, window = np.ones((1, 3)), (0, 1)
  none, half, full = panels.heat_overlay(grey, np.array([[0.0, 2.0, 4.0]]), window, 4.0)[0]
  share = lambda pixel, heat: (255 - pixel.astype(float)) / np.maximum(255.0 - heat, 1)
  heats = panels.heat(np.array([[0.0, 2.0, 4.0]]), 4.0)[0]
  assert none.tolist() == [255] * 3
  for pixel, heat in ((half, heats[1]), (full, heats[2])):
    np.testing.assert_allclose(share(pixel, heat)[heat < 200], 0.85, atol=0.02)


@pytest.mark.parametrize("width", [40, 700, 1500])
def test_a_footer_stands_below_the_pictures_whichever_is_wider(width):
  footer = np.zeros((30, width, 3), np.uint8)
  cell = np.full((50, 60, 3), 200, np.uint8)
  above = panels.grid([[cell]], ["a"], ["b"], "title")
  whole = panels.grid([[cell]], ["a"], ["b"], "title", footer=footer)
  larger = 1.5 if above.shape[1] > 1.6 * width else 1  # a small one beside wide pictures is enlarged
  assert whole.shape[1] == max(above.shape[1], width) and whole.shape[0] == above.shape[0] + 30 * larger
  np.testing.assert_array_equal(whole[:above.shape[0], :above.shape[1]], above)
  assert (whole[above.shape[0]:] == 0).all(-1).sum() == 30 * width * larger**2


# ------------------------------------------------------------------------------------------ tables
def test_a_sweep_shows_ends_means_and_the_score_before_the_choice(tmp_path):
  sweep = ml_collections.ConfigDict(dict(average=("run",), settings=(), folds=0, metric="image_auroc",
                                         split="test", config="c.py", arg=""))
  trials = [types.SimpleNamespace(cell=(("cls", c), ("run", r)), setting=0, name=f"{c}{r}")
            for c in range(3) for r in range(2)]
  value = lambda t: {0: 0.5, 1: 0.6, 2: 0.9}[t.cell[0][1]] + 0.02 * t.cell[1][1]
  read = lambda t: {"image_auroc": value(t), "n_images": 7, "synthetic": False, "score_chosen": "image=max",
                    "ci95": {"image_auroc": [value(t) - 0.1, value(t) + 0.2]},
                    "before_choice": {"image_auroc": value(t) - 0.25, "ci95": {"image_auroc": [0.1, 0.2]}},
                    "baseline": {"pixel_ap": 0.1}}
  found = tables.write(tmp_path, sweep, trials, read, {}, {})
  one = found["rows"][0]
  assert one["ci95"] == pytest.approx([0.41, 0.71]) and one["before_choice"]["mean"] == pytest.approx(0.26)
  assert found["mean"] == pytest.approx((0.51 + 0.61 + 0.91) / 3) and one["trivial"] == {}
  assert "as configured" in (tmp_path / "table.md").read_text()


def test_the_better_baseline_of_what_should_be_low_is_the_lowest():
  base = {"hd95_mm": 5.0, "hd95_mm_median5": 4.0, "pixel_ap": 0.3, "pixel_ap_median5": 0.2}
  rows = result_table.rows({"hd95_mm": 3.0, "pixel_ap": 0.5, "baseline": base})
  assert {r["key"]: r["baseline"] for r in rows} == {"hd95_mm": 4.0, "pixel_ap": 0.3}


@pytest.mark.parametrize("interval, higher, lower", [
    ([-1, 2], "no difference shown", "no difference shown"), ([1, 2], "better", "worse"),
    ([-2, -1], "worse", "better")])
def test_a_difference_in_words(interval, higher, lower):
  assert dictionary.said(0.5, interval) == higher
  assert dictionary.said(0.5, interval, dictionary.LOWER) == lower


def test_pictures_of_predict_are_inside_the_page_as_long_as_there_is_room(tmp_path, monkeypatch):
  picture = [files.write_png(tmp_path / f"{n}_overlay.png", np.zeros((4, 4, 3), np.uint8)) for n in "ab"]
  monkeypatch.setattr(predictions, "_INLINE", picture[0].stat().st_size + 3)
  rows = [{"input": n, "score": s, "mask_ml": 0.0, "called_abnormal": 0, "error": ""}
          for n, s in zip("ab", (1, 2))]
  about = dict.fromkeys(("method", "run", "checkpoint", "trained_on", "calibration"), "")
  html = predictions.write(tmp_path, rows, {"a": picture[:1], "b": picture[1:]}, about).read_text()
  assert "set by config.predict.threshold" not in html
  rows[0]["highest_slice"] = 2  # of the table, from 0
  made, about["own_threshold"] = {"a": picture[:1], "b": picture[1:]}, 0.25
  html = predictions.write(tmp_path, rows, made, about).read_text()
  assert "above <b>0.250</b>, set by config.predict.threshold" in html and "<td>3</td>" in html
  assert html.count("data:image/png") == 1 and 'src="a_overlay.png"' in html  # b has the higher score
  assert predictions._notes({"mask_pixels": 3, "called_abnormal": 0}) and not predictions._notes(rows[0])
  assert not any(map(predictions._notes, ({"mask_pixels": 3, "called_abnormal": 1}, {"mask_pixels": 3})))
  dropped = {"mask_pixels": 0, "called_abnormal": 1, "map_max": 0.6, "threshold": 0.5}
  assert "too small to be kept" in predictions._notes(dropped)[0]
  assert not predictions._notes({**dropped, "map_max": 0.5})
  assert not predictions._notes({**dropped, "mask_pixels": 3})


# -------------------------------------------------------------------------------------- comparison
def test_differences_are_drawn_over_patients_and_the_wide_ones_hold_for_all_pairs():
  rng = np.random.default_rng(0)
  patients = np.repeat([f"p{i}" for i in range(8)], [1, 2, 3, 4, 1, 2, 3, 4])
  values = rng.random((3, 20))
  cases = lambda own: {str(i): (patients[i], {"psnr": float(v)}) for i, v in enumerate(own)}
  runs = [paired.Cases(n, "d", False, {}, cases(own)) for n, own in zip("abc", values)]
  (found,) = paired.compare(runs, resamples=300, seed=5)
  _, member = np.unique(patients, return_inverse=True)
  drawn = np.array([[np.average(v, weights=w[member]) for v in values]
                    for w in bootstrap.resample_weights(8, 300, 5)])
  assert (found.cases, found.patients) == (20, 8)
  for pair, (a, b) in zip(found.pairs, ((0, 1), (0, 2), (1, 2))):
    apart = drawn[:, a] - drawn[:, b]
    np.testing.assert_allclose(pair.interval, bootstrap.interval(apart))
    np.testing.assert_allclose(pair.wide, bootstrap.interval(apart, 1 - 0.05 / 3))


def test_runs_are_compared_on_the_images_that_all_of_them_have():
  """An id of another label or patient is another case."""
  images = {f"i{k}": (f"p{k}", k % 2, float(k)) for k in range(7)}
  others = [{**images, "more": ("p9", 1, 0.5)}, {i: v for i, v in images.items() if i != "i0"},
            {**images, "i1": ("p1", 0, 1.0)}, {**images, "i2": ("p5", 0, 2.0)}]
  runs = [paired.Cases(str(k), "d", False, other, {}) for k, other in enumerate(others)]
  auroc, ap = paired.compare(runs, resamples=20)
  assert (auroc.key, ap.key) == ("image_auroc", "image_ap") and auroc.cases == ap.cases == auroc.patients == 4
  assert {name: value for name, (value, _) in auroc.values.items()} == dict.fromkeys("0123", 0.25)


def test_a_verdict_says_both_numbers_their_difference_and_its_interval():
  result = {"psnr": 20.5, "n_images": 9, "n_patients": 3, "baseline": {"psnr": -1.25, "mae_inside": 2e-4},
            "mae_inside": 0.5, "ci95": {"psnr": [-19.5, 21.5], "psnr_minus_baseline": [-0.5, 44.0]}}
  psnr, mae = verdicts.of_split(split(**result))
  assert psnr.head == "Test: no difference shown from the frame as it is, untouched"
  said = "; the frame as it is, untouched, reaches "
  assert f" 20.500 [-19.500, 21.500] dB{said}-1.250 dB. Difference +21.750, 95 % interval -0.500 to " \
      "+44.000, which contains zero. Over 3 patients, 9 images. With so few patients" in psnr.text
  assert f" 0.500{said}0.0002. Difference +0.500, without an interval. Over" in mae.text


@pytest.mark.parametrize("interval, words", [([-0.3, -0.1], "WORSE"), ([-0.3, 0.1], "no difference shown")])
def test_a_better_map_does_not_hide_worse_scores_of_images(interval, words):
  base = {"pixel_ap": 0.25, "image_auroc": 0.625, "image_auroc_median5": 0.75}
  result = {"pixel_ap": 0.5, "image_auroc": 0.5, "n_images": 9, "baseline": base,
            "model_better_by": {"metric": "pixel_ap"},
            "ci95": {"pixel_ap_minus_baseline": [0.1, 0.4], "image_auroc_minus_baseline": interval}}
  found, = verdicts.of_split(split(**result))
  assert found.said == "better"
  assert f"+0.400. By image AUROC: {words} (0.500, the threshold 0.750). Over" in found.text


def test_every_file_of_an_evaluation_is_linked(tmp_path):
  files = ["config.json", "calibration.json", "metrics.jsonl", "trained_on.json", *(
      f"evaluation/test{end}" for end in (".json", ".csv", "_images.csv", "_quality.csv", "_panel.png",
                                          "_overlays.png")), "evaluation/curves/test.json"]
  for name in (*files, "evaluation/val.json", "evaluation/curves/other.json"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  assert page._links(tmp_path, [split()]) == files
  assert page._links(tmp_path, [split(name="val")]) == [*files[:4], "evaluation/val.json"]


def test_a_table_has_the_value_and_the_interval_of_every_split():
  one = split(image_auroc=0.75, ci95={"image_auroc": [0.5, 0.875]}, n_images=3)
  two = split(name="val", image_auroc=None, pixel_ap=0.25)
  found = run_tables.results([one, two])
  assert found["heads"] == ["test", "validation"]
  cell = lambda value, interval=None: {"value": value, "interval": interval}
  assert {r["metric"].name: r["cells"] for r in found["rows"]} == {
      dictionary.metric("image_auroc").name: [cell(0.75, [0.5, 0.875]), cell(None)],
      dictionary.metric("pixel_ap").name: [cell(None), cell(0.25)]}
  known = {"n_with_learnt_weight": 0, "ranked_by": "mean_weight", "spearman_agreement": 0.0, "other": None}
  assert run_tables.quality(split(annotation_quality=known)) == [
      ("Annotations with a learnt weight", 0), ("Ranked by", "mean weight"),
      ("Rank correlation of the agreement of gradients with it", 0.0)]
  assert run_tables.quality(split()) == []
