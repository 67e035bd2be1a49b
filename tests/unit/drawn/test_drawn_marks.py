"""Drawn marks by hand: where points lie, which way signs and colours run, what a blur leaves, what is cut."""

import numpy as np
import pytest

from data_pipelines.datasets import annotations
from data_pipelines.marks import catalogue, layers, parts, reference
from data_pipelines.marks.layers import Layer, Mark
from data_pipelines.marks.parts import TextStyle

OPTIONS = {**annotations.defaults().marks.to_dict(), "unmarked": 0.0}
FRAME = np.full((120, 160, 1), 0.4, np.float32)


def pen(seed=0, inside=None, size=(120, 160)):
  rng = np.random.default_rng(seed)
  rows, columns = np.mgrid[:size[0], :size[1]]
  inside = np.stack([columns.ravel(), rows.ravel()], 1) if inside is None else inside
  return catalogue.Pen(rng, size, inside, 0.5, TextStyle(rng, 5.0), (1, 1, 1), 1.0, True)


def test_a_measured_pair_is_neither_a_point_nor_the_whole_frame():
  one = pen()
  apart = [np.hypot(*np.subtract(*one.pair())) / 200 for _ in range(300)]  # of the diagonal
  assert 0.05 <= min(apart) < 0.1 and 0.5 < max(apart) <= 0.6
  single = pen(inside=np.array([[80, 60]]))
  for _ in range(3):
    first, second = single.pair()
    assert first.tolist() == [80, 60] and np.hypot(*(second - first)) == pytest.approx(0.15 * 200)


@pytest.mark.parametrize("kind, low, high", [
    ("calipers", 0.05, 0.6), ("trace", 0.08, 0.4), ("box", 0.1, 0.7)])
def test_how_large_a_mark_is(monkeypatch, kind, low, high):
  pair, seen, one = catalogue.Pen.pair, [], pen()
  monkeypatch.setattr(catalogue.Pen, "pair", lambda *args: seen.append(pair(*args)) or seen[-1])
  monkeypatch.setattr(catalogue.Pen, "layer", lambda *args, **kw: [])
  for _ in range(250):
    catalogue.KINDS[kind](one)
  apart = [np.hypot(*np.subtract(*points)) / 200 for points in seen]
  assert low <= min(apart) < low + 0.05 and high - 0.06 < max(apart) <= high


def test_calipers_are_numbered_more_often_than_not_and_one_to_four(monkeypatch):
  counts = []
  monkeypatch.setattr(catalogue.Pen, "write", lambda self, lines, at: counts.append(lines[0]) or [])
  monkeypatch.setattr(catalogue.Pen, "layer", lambda *args, **kw: [])
  one, numbered = pen(), 0
  for _ in range(300):
    before = len(counts)
    catalogue.calipers(one)
    numbered += len(counts) > before
  assert 0.5 < numbered / 300 < 0.7 and set(counts) == set("1234ABCD")


def test_signs_of_a_caliper_point_away_from_each_other(monkeypatch):
  seen, sign = [], catalogue.caliper_sign
  monkeypatch.setattr(catalogue, "caliper_sign", lambda p, *rest: (
      seen.append((p, rest[3])) or sign(p, *rest)))
  for seed in range(6):
    catalogue.calipers(pen(seed))
  assert len(seen) >= 12
  for (p, one), (q, other) in zip(seen[::2], seen[1::2]):
    for tip, along, back in ((p, one, q), (q, other, p)):
      outwards = (tip - back) / np.hypot(*(tip - back))
      assert outwards @ [np.cos(along), np.sin(along)] == pytest.approx(1)


def test_bars_run_from_white_or_red_above_to_black_or_blue_below():
  kinds, opacities, options = set(), set(), {**OPTIONS, "kinds": ("bar",), "count": (1, 1)}
  for seed in range(60):
    mark, = catalogue.draw(np.random.default_rng(seed), FRAME, options)
    layer = mark.layers[0]
    assert np.ptp(layer.alpha) == 0 and np.ptp(layer.colour, axis=1).max() == 0  # rows of one colour
    opacities.add(float(layer.alpha[0, 0]))
    above, below = np.array_split(layer.colour[:, 0], 2)
    if np.ptp(layer.colour, axis=-1).max() == 0:
      kinds.add("grey")
      assert above.min() >= below.max() - 0.05 and above[0, 0] == 1 and below[-1, 0] == 0
    else:
      kinds.add("doppler" if layer.colour.max(-1).min() < 0.2 else "rainbow")  # black between
      assert above[:, 0].mean() > below[:, 0].mean() + 0.3 and below[:, 2].mean() > above[:, 2].mean() + 0.3
  assert kinds == {"grey", "doppler", "rainbow"} and 1 in opacities and 0.6 <= min(opacities) < 0.9


def test_a_texture_that_hangs_over_the_frame_is_cut_where_it_does():
  pixels = np.arange(20, dtype=np.float32).reshape(4, 5, 1).repeat(3, -1)
  for top, left, rows, columns in ((-1, -2, slice(1, 4), slice(2, 5)), (8, 7, slice(0, 2), slice(0, 3))):
    layer = layers.texture(pixels, top, left, (10, 10), 0.75)
    assert (layer.top, layer.left) == (max(top, 0), max(left, 0))
    np.testing.assert_array_equal(layer.colour, pixels[rows, columns])
    np.testing.assert_array_equal(layer.alpha, np.float32(0.75))


def test_marks_of_which_nothing_is_seen_are_none(monkeypatch):
  monkeypatch.setitem(catalogue.KINDS, "label", lambda pen: Mark("label", []))
  assert catalogue.draw(np.random.default_rng(0), FRAME, {**OPTIONS, "kinds": ("label",)}) == []


def test_a_blur_spreads_paint_beyond_its_rectangle_and_leaves_no_skirt():
  clean = np.zeros((30, 40, 1), np.float32)
  layer = Layer(10, 20, np.ones((2, 2), np.float32), np.ones(3, np.float32))
  annotated, mask = layers.compose(clean, [Mark("x", [layer])], blur=1.5)
  rows, columns = np.flatnonzero(mask[..., 0].any(1)), np.flatnonzero(mask[..., 0].any(0))
  assert (rows[0] + rows[-1], columns[0] + columns[-1]) == (10 + 11, 20 + 21)  # around its middle
  assert 6 <= len(rows) <= 10 and 6 <= len(columns) <= 10
  assert annotated.sum() == pytest.approx(4, rel=0.1) and annotated[annotated > 0].min() > 0.018


def test_the_region_of_the_reference_is_the_largest_outline_without_its_holes():
  frame = np.zeros((20, 30, 1), np.float32)
  frame[2:4, 2:4] = 0.5                       # smaller
  frame[5:15, 8:20] = 0.5
  frame[8:12, 11:17] = 0                      # a hole
  frame[15, 20] = 0.5                         # joined at a corner
  want = np.zeros((20, 30), bool)
  want[5:15, 8:20] = want[15, 20] = True
  np.testing.assert_array_equal(reference.region(frame), want)


def test_marks_of_the_reference_are_cyan_yellow_or_white():
  seen = set()
  for seed in range(40):
    for mark in reference.draw(np.random.default_rng(seed), FRAME):
      seen.update(tuple(layer.colour.tolist()) for layer in mark.layers)
  assert seen == {(0, 1, 1), (1, 1, 0), (1, 1, 1)}


def test_a_font_of_ones_own_is_among_those_drawn_and_capitals_have_the_size_asked_for():
  made = [TextStyle(np.random.default_rng(seed), 20.0, fonts=("own.ttf",)) for seed in range(40)]
  assert {style.font for style in made} == {"stroke", "outline", "own.ttf"}
  style = next(style for style in made if style.font == "outline")
  _, top, _, bottom = style._face().getbbox("H")
  assert bottom - top == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize("halo, backing, colours", [
    (True, 0.0, [0, 1]), (False, 0.0, [1]), (True, 0.9, [0.02, 1]), (False, 0.9, [0.02, 1])])
def test_letters_have_a_dark_rim_or_stand_on_a_dark_box(halo, backing, colours):
  style = TextStyle(np.random.default_rng(0), 8.0)
  style.halo = halo
  found = style.layers(["AB", "C"], (20, 40), (120, 160), (1, 1, 1), 1.0, backing)
  assert [pytest.approx(float(layer.colour[0])) for layer in found] == colours


@pytest.mark.parametrize("kind, reach", [("plus", 6), ("cross", 0.75 * 6), ("square", 0.7 * 6)])
def test_a_sign_is_as_large_and_its_lines_as_wide_as_asked(kind, reach):
  strokes = parts.caliper_sign((10, 20), kind, 12, 2.5, 0.0)
  points = np.concatenate([s.points for s in strokes]) - [10, 20]
  np.testing.assert_allclose([points.min(0), points.max(0)], [[-reach] * 2, [reach] * 2])
  assert {s.width for s in strokes} == {2.5}
  (dot,) = parts.caliper_sign((10, 20), "dot", 12, 2.5, 0.0)
  assert dot.points.tolist() == [[10, 20]] and dot.width == 6
  (arrow,) = parts.caliper_sign((10, 20), "arrow", 12, 2.5, np.pi)
  assert arrow.width == 2.5 and arrow.points[1].tolist() == [10, 20]
  np.testing.assert_allclose(np.hypot(*(arrow.points[[0, 2]] - [10, 20]).T), 12)
  assert (arrow.points[[0, 2], 0] > 10).all()  # it points to the left
