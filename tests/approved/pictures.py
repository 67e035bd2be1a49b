"""Pictures by their pixels, words of them by their places: fonts differ between machines."""

import contextlib

import numpy as np

from medae_jax.metrics import ranks
from medae_jax.reporting import charts, panels, plots, rulers
from medae_jax.reporting.benchmark import picture as ranks_picture
from tests.approved import shown


@contextlib.contextmanager
def _words(found):
  """Notes what is written and where instead of drawing letters."""
  known = panels.text

  def noted(picture, words, xy, size=15, colour=panels.INK, rim=None):
    found.append(f"{words!r} at {tuple(xy)} size {size} {tuple(colour)}{' rim' if rim else ''}")
    return picture
  panels.text = noted
  try:
    yield
  finally:
    panels.text = known


def drawn(make) -> str:
  """A picture without letters, and its words."""
  words: list[str] = []
  with _words(words):
    picture = make()
  return "\n".join([shown.picture(picture), *words])


def rasters(folder):
  """Every function of panels and rulers on arrays that are no squares, with values beyond their range."""
  del folder
  image = np.linspace(-0.25, 1.5, 35).reshape(5, 7)
  anomaly, mask = np.linspace(0, 3, 35).reshape(5, 7)[::-1], np.zeros((5, 7), bool)
  mask[1:4, 2:6] = True
  found = np.roll(mask, 2, 1)
  under = panels.grey(image, (0.1, 1.1))
  cells = [[panels.grey(np.full((20, 70), v / 6)) for v in (i, i + 2)] for i in range(3)]
  bar = lambda: panels.scale_bar(2.0, 0.5, True, 200)  # its letters are noted, too
  parts = {
      "grey": lambda: under, "grey of no width": lambda: panels.grey(image, (1, 1)),
      "colour": lambda: panels.colour(np.stack([image, image[::-1], 1 - image], -1)),
      "one colour": lambda: panels.colour(image[..., None]), "heat": lambda: panels.heat(anomaly, 2.0),
      "heat of nothing": lambda: panels.heat(anomaly, 0.0),
      "overlay": lambda: panels.heat_overlay(image, anomaly, (0, 1), 3.0),
      "verdicts": lambda: panels.verdict_overlay(image, found, mask, (0, 1)),
      "marks alone": lambda: panels.verdict_overlay(image, found, None, (0, 1)),
      "outline": lambda: panels.outline(under, mask),
      "enlarged": lambda: 50 * panels.enlarge(anomaly, 2)[..., None],
      "repeated": lambda: 50 * panels.enlarge(anomaly, 2, smooth=False)[..., None],
      "mask resized": lambda: panels.resize(mask, (10, 4)) * 9,
      "resized": lambda: 50 * panels.resize(anomaly, (3, 14)),
      "grid": lambda: panels.grid(cells, ["left", "right"], ["a", "b", "c"], "title", footer=bar()),
      "warned": lambda: panels.grid(cells[:1], ["left"] * 2, ["a"], "title", "SYNTHETIC DATA"),
      "wide": lambda: panels.grid([cells[0] * 20], list("ab") * 20, ["a"], "t", footer=bar()),
      "ruler": lambda: rulers.ruler(panels.grey(np.full((80, 120), 0.5)), 0.4),
      "ruler of 66.7 pixels": lambda: rulers.ruler(panels.grey(np.full((80, 200), 0.5)), 0.3),
      "sides": lambda: rulers.sides(panels.grey(np.full((80, 120), 0.5)), "R", "L"),
      "no room": lambda: rulers.sides(panels.grey(np.full((50, 120), 0.5)), "R", "L")}
  parts |= {f"scale {top} {threshold} {truth}": lambda a=(top, threshold, truth): panels.scale_bar(*a)
            for top, threshold, truth in (
                (2.0, 0.5, True), (2.0, 1.9, False), (0.0, None, None), (1.0, 1.5, True))}
  texts = [f"==== {name}\n{drawn(make)}" for name, make in parts.items()]
  texts += ["==== numbers", panels.heat_stops(), str([rulers.square(*a) for a in (
      ((4, 6), (2.0, 1.0), 100), ((300, 200), (1.0, 1.5), 100), ((10, 5000), (9.0, 1.0), 50))]),
            str([rulers.length_for(*a) for a in ((100, 1.0), (100, 0.1), (300, 2.0), (20, 9.0))]),
            *(panels.truth_name(s) for s in (True, False)), panels.marked_below("slice")]
  return "\n".join(texts)


def figures(folder):
  """Every figure in SVG."""
  del folder
  frame = charts.Frame((-2, 3), (0, 1000), "across", "up & down")
  frame.cut(2.0)
  frame.cut(-1.0)
  frame.cut(9.0)
  frame.path([(0, 1), (1, float("nan")), (2, 500)], "line-1", closed=True)
  frame.note(1, 250, "here", "middle")
  order = ranks.compare(np.array([[0.9, 0.8, 0.5, 0.6], [0.7, 0.75, 0.4, 0.6], [0.95, 0.8, 0.6, 0.5],
                                  [0.85, 0.8, 0.3, 0.5], [0.9, 0.6, 0.5, 0.55]]))
  many = [{"name": f"n{i}", "value": i / 160} for i in range(160)]
  parts = {
      "frame": frame.svg("said <so>"),
      "dots": charts.dots([{"name": "a", "value": 1.5}, {"name": "b", "value": -0.5},
                          {"name": "c", "value": None}], "dB", "untouched", "said"),
      "many dots": charts.dots(many, "Dice", x_label="seeds"), "no dots": charts.dots([], "Dice"),
      "thousands of dots": str(charts.dots(
          [{"name": f"n{i}", "value": i} for i in range(2000)], "x").count("<circle")),
      "flat": charts.Frame((5, 5), (0, 0), "x", "y").svg(""),
      "chart": plots.chart("loss <x>", {"train/loss": [(0, 100.0), (5, 10.0), (10, 1.0)],
                                        "val/loss": [(5, 2.0)], "none": []}),
      "plain chart": plots.chart("lr", {"lr": [(1, 2.0), (3, 4.0)]}, 300, 120),
      "long chart": str(plots.chart("l", {"a": [(i, 1.0 + i % 7) for i in range(1300)]}).count("L")),
      "ranks": ranks_picture.critical_difference(["one", "two", "three", "four"], order),
      "three ranks": ranks_picture.critical_difference(["c", "a", "b"], ranks.compare(
          np.array([[3, 1, 2], [3, 2, 1.0]])))}
  texts = [f"==== {name}\n{shown.page(svg)}" for name, svg in parts.items()]
  numbers = (None, float("nan"), 0.0, 1e-4, 0.12345, 999.94, 1234.5, -2e-5, 7, 12345, True, "<a>")
  texts.append("==== numbers\n" + "\n".join(f"{n!r}: {plots.number(n)}" for n in numbers))
  texts.append("==== ticks\n" + "\n".join(
      f"{a}: {[charts._tick(t) for t in charts._ticks(*a)]}"
      for a in ((0, 1), (-2, 3), (0, 12345), (0.1, 0.13))))
  return "\n".join(texts)


CASES = {"rasters": rasters, "figures": figures}
