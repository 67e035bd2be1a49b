"""Where things stand in a figure, counted by hand: bands, dots, ticks, the scale of heat, words of a list."""

import ast
import io
import re

import numpy as np
from PIL import Image
import pytest

from medae_jax.metrics import ranks
from medae_jax.reporting import charts, display, gallery, listing, panels
from medae_jax.reporting.benchmark import picture
from medae_jax.reporting.comparison import paired
from medae_jax.reporting.run import figures, tables as run_tables, verdicts
from tests.unit.reporting.test_parts_of_pages import points, split


def place(frame, *values):
  return [(round(frame.x(a), 1), round(frame.y(b), 1)) for a, b in values]


def test_a_band_goes_there_along_its_lower_and_back_along_its_higher_end():
  entry = {"x": [0, 0.25, 1], "y": [0.1, 0.5, 0.9], "low": [0, 0.375, 0.75], "high": [0.2, 0.625, 1]}
  unit = charts.Frame((0, 1), (0, 1), "x", "y")
  svg = charts.curve(entry, "x", "y", chance=[(0, 0), (1, 1)], point=(0.25, 0.5))
  assert points(svg, "band") == place(unit, (0, 0), (0.25, 0.375), (1, 0.75), (1, 1), (0.25, 0.625), (0, 0.2))
  assert points(svg, "line-1") == place(unit, (0, 0.1), (0.25, 0.5), (1, 0.9))
  assert points(svg, "chance") == place(unit, (0, 0), (1, 1))
  assert "class='mark' cx='{}' cy='{}'".format(*place(unit, (0.25, 0.5))[0]) in svg
  alone = charts.curve({"x": [0, 1], "y": [0, 1]}, "across", "up")
  assert re.findall(r"rotate\(-90\)' text-anchor='middle'>(\w+)<", alone) == ["up"] and ">across<" in alone
  assert "band" not in alone and "class='mark'" not in alone


def test_dots_stand_beside_each_other_between_both_ends_of_the_axis():
  svg = charts.dots([{"name": n, "value": v} for n, v in (("b", 0.75), ("a", 0.25))], "Dice")
  frame = charts.Frame((0, 3), (0, 1), "x", "y")
  for (x, y), said in zip(place(frame, (1, 0.25), (2, 0.75)), ("a: 0.25", "b: 0.75")):
    assert f"<circle class='dot' cx='{x}' cy='{y}' r='3.5'><title>{said}</title>" in svg


def test_numbers_of_an_axis_stand_below_it_and_beside_it():
  frame = charts.Frame((0, 2), (0, 1), "across", "up")
  svg = frame.svg("s")
  for value, word in ((0, "0"), (0.5, "0.5"), (2, "2")):
    assert f" x='{frame.x(value):.1f}' y='{frame.y(0) + 16:.1f}' text-anchor='middle'>{word}</text>" in svg
  for value, word in ((0, "0"), (0.2, "0.2"), (1, "1")):
    assert f" x='{frame.x(0) - 6:.1f}' y='{frame.y(value) + 4:.1f}' text-anchor='end'>{word}</text>" in svg
  assert frame.y(0) + 36 < charts._HEIGHT and charts._tick(0.12345) == "0.123" and charts._tick(-1e-13) == "0"


@pytest.mark.parametrize("with_truth", [None, False, True])
def test_the_scale_of_heat_is_whole_and_has_the_legend_of_what_is_shown(with_truth):
  bar = panels.scale_bar(2.0, None, with_truth, width=200)
  strip = panels.heat(np.linspace(0, 2, 200)[None], 2.0)[0]
  np.testing.assert_array_equal(bar[24:40, 8:208], np.broadcast_to(strip, (16, 200, 3)))
  for x in (8, 8 + 99, 8 + 199):  # ticks at 0, the middle and the end
    assert (bar[40:45, x] == panels.INK).all() and (bar[40:45, x + 2] == panels.PAPER).all()
  shown = [colour for colour in (panels.HIT, panels.FALSE_ALARM, panels.MISS, panels.TRUTH)
           if (bar[:, 240:] == colour).all(-1).any()]
  assert shown == ([] if with_truth is None else [panels.HIT, panels.FALSE_ALARM, panels.MISS, panels.TRUTH]
                   if with_truth else [panels.FALSE_ALARM])


def test_a_threshold_has_its_tick_on_the_scale():
  bar, bare = (panels.scale_bar(2.0, at, None, width=200) for at in (0.5, None))
  x = 8 + int(0.25 * 199)
  assert (bar[20:44, x - 1:x + 1] == panels.FALSE_ALARM).all()
  changed = np.flatnonzero((bar != bare).any((0, 2)))
  assert changed.min() == x - 1 and bar.shape == bare.shape
  np.testing.assert_array_equal(panels.scale_bar(2.0, 2.5, None, width=200), bare)  # above the scale


def test_pictures_of_a_gallery_keep_their_size_and_grey_ones_are_written_as_such(tmp_path):
  grey, colour, flat = (np.full(shape, 7, np.uint8) for shape in ((4, 5, 3), (4, 6, 3), (3, 8)))
  colour[..., 1] = 200
  gallery.write(tmp_path, "test", [{"title": "a", "cells": [
      {"head": h, "picture": p} for h, p in (("g", grey), ("c", colour), ("f", flat))]}])
  (row,) = gallery.read(tmp_path, "test")
  assert [(c["height"], c["width"]) for c in row["cells"]] == [(4, 5), (4, 6), (3, 8)]
  assert [c["data"][25] for c in row["cells"]] == [0, 2, 0]  # PNG's colour type: grey, RGB, grey


def test_flags_and_values_of_a_config_are_told_apart():
  tree = ast.parse("a = common.parse_arg(arg, demo=False, run=0, kind='')\nb = common.parse_arg(arg, run=1)")
  assert listing._words(tree) == ":demo run=... kind=..." and listing._words(ast.parse("x = 1")) == ""


# ------------------------------------------------------------------------------- a split of a run
def test_p_values_of_nobody_are_no_figure():
  entry = {"unit": "scan", "calibrated_on": 19, "normal": [], "abnormal": []}
  assert figures._p_values(split({"p_values": entry})) == []
  (found,) = figures._p_values(split({"p_values": {**entry, "abnormal": [0.5]}}))
  assert "0 normal and 1 abnormal scans, from 19" in found["caption"]


def test_intervals_are_over_groups_where_images_share_one():
  rows = lambda names: [{"id": str(i), **({"group": g} if g else {})} for i, g in enumerate(names)]
  shared, own, none = (split(rows=rows(names)) for names in ("aab", "abc", ("", "")))
  assert [(s.unit, s.groups) for s in (shared, own, none)] == [("groups", 2), ("images", 3), ("images", None)]


def test_a_verdict_has_the_model_as_its_subject_where_it_is_better_or_worse():
  heads = []
  for interval in ([0.1, 0.2], [-0.2, -0.1], [-0.1, 0.1]):
    (found,) = verdicts.of_split(split(
        pixel_ap=0.5, n_images=3, baseline={"pixel_ap": 0.25}, model_better_by={"metric": "pixel_ap"},
        ci95={"pixel_ap_minus_baseline": interval}))
    heads.append(found.head)
  better, worse, neither = heads
  assert better.startswith("Test: the model is better than")
  assert worse.startswith("Test: the model is WORSE than")
  assert neither.startswith("Test: no difference shown from")


def test_fillings_are_of_restoration_and_the_one_that_is_written_is_named():
  assert run_tables.fillings(split(image_auroc=0.5)) is None
  ways = {"fill_network": {"psnr": 20.0}, "fill_harmonic": {"psnr": 30.0}, "network": {"psnr": 25.0}}
  found = run_tables.fillings(split(psnr=30.0, fill="harmonic", baseline={"psnr": 10.0}, **ways))
  assert [c for row in found["rows"] for c in row["cells"]] == [20.0, 30.0, 25.0, 10.0]
  assert ["(what predict writes)" in head for head in found["heads"]] == [False, True, False, False]


def test_a_row_of_a_finding_has_its_own_numbers():
  found = {"effusion": {"n": 7, "auroc": 0.75, "ap": 0.5, "ci95": {"auroc": [0.5, 1.0]}, "fpr95": 0.25,
                        "ci95_delong": [0.625, 0.875]}, "no number": {"n": 3, "auroc": None}}
  assert run_tables.findings(split(findings=found)) == [
      {"name": "effusion", "n": 7, "auroc": (0.75, [0.5, 1.0]), "ap": (0.5, None), "delong": [0.625, 0.875],
       "fpr95": 0.25}]


def test_a_notebook_has_a_column_of_baselines_where_there_are_some():
  alone, beside = (display.evaluation({"image_auroc": 0.75, "split": "test", **more}, None)
                   for more in ({}, {"baseline": {"image_auroc": 0.5, "what": "x"}}))
  assert "<th>baseline</th>" not in alone and "<th>baseline</th>" in beside and "0.500" in beside
  for html in (alone, beside):
    rows = re.findall("<tr>(.*?)</tr>", html)
    assert {len(re.findall("<t[dh]", row)) for row in rows} == {6 if html is beside else 5}
  named = display.evaluation({"image_auroc": 0.75, "dataset": "a <i>", "split": "<u>"}, None)
  assert "<b>a &lt;i&gt;</b>, &lt;u&gt;" in named and "<img" not in named
  panel = io.BytesIO()
  Image.new("RGB", (6, 4)).save(panel, "PNG")
  assert "panel of the split" in display.evaluation({"image_auroc": 0.75}, panel.getvalue())


def test_cases_of_a_comparison_are_rows_by_id_and_else_patients(tmp_path):
  folder = tmp_path / "evaluation"
  folder.mkdir()
  (folder / "test.csv").write_text("id,group,patient,psnr\na_1,a,a,20\na_2,a,a,30\n,,b,25\n")
  assert paired.read(tmp_path, "run").rows == {
      "a_1": ("a", {"psnr": 20.0}), "a_2": ("a", {"psnr": 30.0}), "b": ("b", {"psnr": 25.0})}


# ---------------------------------------------------------------------- critical differences of ranks
@pytest.mark.parametrize("difference, longer", [(0.5, False), (1.25, False), (7.0, True)])
def test_a_critical_difference_is_as_long_as_that_many_ranks(difference, longer):
  found = ranks.Comparison(np.array([1.25, 2.0, 2.75]), 4, 1.0, 1.0, 0.5, difference, 0.05)
  svg = picture.critical_difference(["a", "b", "c"], found)
  start, end = map(float, re.search(r"d='M([\d.]+) 62H([\d.]+)'", svg).groups())  # the axis, from 1 to 3
  first, last = map(float, re.search(r"d='M([\d.]+) 22H([\d.]+)M", svg).groups())
  assert first == start and (last - first) / (end - start) == pytest.approx(min(difference, 2) / 2, abs=1e-3)
  assert [float(x) for x in re.findall(r"M([\d.]+) 18V26", svg)] == [first, last]
  assert ("longer than the axis" in svg) == longer
  ticks = {int(n): float(x) for x, n in re.findall(r"x='([\d.]+)' y='52' text-anchor='middle'>(\d)<", svg)}
  assert ticks == {1: start, 2: pytest.approx((start + end) / 2, abs=0.1), 3: end}


@pytest.mark.parametrize("labels", ["", "0", "01"])
def test_scores_of_normal_and_abnormal_images_stand_beside_the_measures(labels):
  pytest.importorskip("matplotlib")
  images = [{"score": str(0.1 * i), "label": label} for i, label in enumerate(labels)]
  result = {"image_auroc": 0.75, "image_ap": 0.5, "split": "test", "dataset": "dots"}
  axes = display.figure(result, images).axes
  assert [a.get_xlabel() for a in axes[1:]] == ["image score"] * bool(labels)
  assert [line.get_xdata()[0] for line in axes[0].lines] == [0.75, 0.5]
  assert axes[0].get_title() == "dots, test"
  assert [t.get_text() for t in axes[0].get_yticklabels()] == [
      "Image AUROC", "Image average precision"]
  if labels:
    words = [t.get_text() for t in axes[1].get_legend().get_texts()]
    assert words == ["normal (1)", "abnormal (1)"][:len(labels)] and not axes[0].patches


def test_each_method_has_its_own_rank_and_its_line_goes_from_there_to_its_name():
  """Given in no order; the better half stands at the left."""
  average = {"middle": 2.0, "last": 3.75, "first": 1.25, "third": 3.0}
  found = ranks.Comparison(np.array(list(average.values())), 4, 1.0, 1.0, 0.5, 0.5, 0.05)
  svg = picture.critical_difference(list(average), found)
  start, axis, end = re.search(r"d='M([\d.]+) (\d+)H([\d.]+)' stroke='#000' stroke-width", svg).groups()
  place = lambda rank: float(start) + (rank - 1) / 3 * (float(end) - float(start))
  lines = re.findall(r"<path d='M([\d.]+) (\d+)V(\d+)H(\d+)' fill='none' stroke='#444'/>"
                     r"<text x='(\d+)' y='(\d+)' text-anchor='(\w+)'>(\w+) \(([\d.]+)\)</text>", svg)
  assert [(name, float(rank)) for *_, name, rank in lines] == sorted(average.items(), key=lambda a: a[1])
  for at, top, below, line_end, x, y, anchor, name, _ in lines:
    assert float(at) == pytest.approx(place(average[name]), abs=0.1) and top == axis, name
    left = name in ("first", "middle")
    assert anchor == ("end" if left else "start") and int(x) == int(line_end) + (-5 if left else 5), name
    assert int(y) == int(below) + 4 and int(below) > int(axis), name
    assert (int(line_end) < float(start)) if left else (int(line_end) > float(end)), name


@pytest.mark.parametrize("kinds", ["roc pr", "roc", "pr", ""])
def test_a_curve_that_is_missing_takes_no_other_with_it(kinds):
  line = {"x": [0, 1], "y": [0, 1]}
  found = figures._pixels(split({"pixel": {"prevalence": 0.25, **dict.fromkeys(kinds.split(), line)}}))
  assert [f["caption"].split(",")[0].removeprefix("Pixels: ") for f in found] == [
      {"roc": "ROC curve", "pr": "precision and recall"}[kind] for kind in kinds.split()]


@pytest.mark.parametrize("columns, size", [(1, 18), (9, 25)])
def test_wide_panels_have_larger_letters_and_oblong_cells_their_place(monkeypatch, columns, size):
  said = []
  draw = lambda canvas, words, xy, size, *_: said.append((words, size)) or canvas
  monkeypatch.setattr(panels, "text", draw)
  cell = np.full((20, 200, 3), 7, np.uint8)
  drawn = panels.grid([[cell] * columns] * 2, ["a"] * columns, ["b", "c"], "title")
  assert said[0] == ("title", size)
  assert (drawn == 7).all(-1).sum() == 2 * columns * 20 * 200
