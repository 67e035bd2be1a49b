"""Which runs a report compares, what it calls best, and what it leaves unsaid: edges, by hand."""

import pathlib
import types

import numpy as np
import pytest

from medae_jax import report
from medae_jax.core import files
from medae_jax.reporting import charts, panels, predictions, text_table
from medae_jax.reporting.benchmark import identity, page, published, runs as runs_lib, summary
from medae_jax.reporting.benchmark.runs import Found
from medae_jax.reporting.comparison import page as comparison
from medae_jax.reporting.run import verdicts
from tests.unit.reporting.test_benchmark import TRUNK, result, run


def folder(root, *names):
  for name in names:
    files.write_json(root / name, {})
  return root


@pytest.fixture
def asked(monkeypatch):
  """What the writers of pages are asked for: {"run" | "comparison" | "benchmark": (folders, place)}."""
  seen = {}
  monkeypatch.setattr(report, "write", lambda workdir: seen.update(run=workdir))
  for name, module in (("comparison", report.comparison_page), ("benchmark", report.benchmark_page)):
    monkeypatch.setattr(module, "write", lambda folders, place, *_, name=name: seen.update(
        {name: ([pathlib.Path(f).name for f in folders], place)}))
  return seen


def test_a_run_alone_has_its_page_unless_a_place_or_others_are_named(tmp_path, asked):
  work = folder(tmp_path / "a", "config.json")
  report.report(work)
  assert asked == {"run": work}
  for more, folders, place in (({"output": tmp_path / "out"}, ["a"], tmp_path / "out"),
                               ({"others": f" {tmp_path / 'b'}, "}, ["a", "b"], work / "benchmark")):
    asked.clear()
    report.report(work, **more)
    assert asked == {"comparison": (folders, place), "benchmark": (folders, place)}


@pytest.mark.parametrize("sweep", [False, True])
def test_runs_in_a_folder_are_compared_and_those_of_a_sweep_are_not(tmp_path, asked, sweep):
  root = folder(tmp_path / "all", "x/config.json", "y/config.json", *["sweep.json"] * sweep)
  report.report(root)
  assert asked["comparison"][0] == (["all"] if sweep else ["all", "x", "y"])
  assert asked["benchmark"][0] == ["all"]


# ------------------------------------------------------------------------------------- what a run is
@pytest.mark.parametrize("data, name", [
    ({"name": "camelyon", "root": "/x/patches"}, "camelyon16"), ({"name": "brats", "path": ""}, "brats"),
    ({"name": "own_folder", "root": "/x/mine"}, "own_folder, mine"),
    ({"name": "own_folder", "path": "/x/his"}, "own_folder, his")])
def test_a_set_of_one_s_own_is_named_with_its_folder(data, name):
  assert identity.data_of({"data": data}) == (name, "")


@pytest.mark.parametrize("loss, score, trunk", [
    ("l1", {"loss": "relative_perceptual_L1"}, "vgg19, a.npz"), ("l1", {}, ""), ("l1", {"loss": "l2"}, ""),
    ("relative_perceptual_L1", {"loss": "l1"}, "vgg19, a.npz"), ("perceptual", {}, "vgg19, a.npz")])
def test_a_trunk_is_looked_through_by_the_training_or_by_the_score(loss, score, trunk):
  method = {"vgg_weights": "x/a.npz", "loss": loss, "score": score}
  assert identity.trunk_of({"method": method}) == trunk


@pytest.mark.parametrize("data, fold", [({"folds": 5, "fold": 2}, 2), ({"fold": 2}, -1), ({}, -1)])
def test_a_run_by_itself_is_one_of_a_fold_where_there_are_folds(tmp_path, data, fold):
  """A set with a field fold of its own (a patient list) has no search."""
  config = {"method": {"name": "m"}, "data": {"name": "d", **data}, "seed": 1}
  files.write_json(tmp_path / "config.json", config)
  files.write_json(tmp_path / "evaluation/test.json", result(0.5))
  assert runs_lib._alone(tmp_path, "test").fold == fold


@pytest.mark.parametrize("chosen, shown", [
    ({}, ["m, setting 0", "m, setting 1"]), ({"all": {"setting": 1}}, ["m", "m"])])
def test_settings_are_compared_unless_a_search_has_chosen_one(tmp_path, chosen, shown):
  entries = [{"name": f"r{s}", "method": "m", "data": "d", "class": "", "run": "0", "fold": -1, "setting": s,
              "trunk": ""} for s in (0, 1)]
  found = list(runs_lib._of_sweep(tmp_path, {"runs": entries, "chosen": chosen}, "test"))
  assert [r.method for r in found] == shown


@pytest.mark.parametrize("method, default", [
    ("dpa", "dpa wo_pg"), ("piad", "piad with_cv"), ("deep_if", "deep_if with_cv"), ("dpa, loss=l1", "")])
def test_a_method_by_itself_is_its_default_experiment_in_the_papers(method, default):
  found = published.figures(method, "nih subset")
  assert found == [f for f in published.FIGURES if (f.method, f.data) == (default, "nih subset")]
  assert bool(found) == bool(default)


# --------------------------------------------------------------------------------------- the numbers
def test_the_best_is_among_the_means_over_all_classes():
  """b has the easy class alone; cells that lack runs are marked."""
  runs = [run("a", "cifar10", "0", 0, .7), run("a", "cifar10", "1", 0, .8), run("b", "cifar10", "0", 0, .95),
          run("b", "cifar10", "1", 0, None), run("c", "cifar10", "0", 0, .6), run("c", "cifar10", "1", 0, .5)]
  html = page._table(Found(runs, [], {}, []), summary.table(runs, "image_auroc"), "image_auroc", {})
  assert html.count("class='best'") == 1 and "<span class='best'>0.750</span>" in html
  assert html.count("<td class=some>0.950") == 1 == html.count("class=some")


def test_the_interval_of_one_run_is_that_of_the_run_with_the_number():
  runs = [run("a", "d", "", 0, .4), run("a", "d", "", 1, .6)]
  runs[0].result.update(image_auroc=None)
  cell = summary.table(runs, "image_auroc")[("a", TRUNK), "d"]
  assert cell.interval == pytest.approx([.5, .7]) and (cell.mean, cell.over) == (.6, "images or patients")


def test_plain_intensities_are_those_of_final_runs_and_the_better_of_them():
  runs = [run("a", "d", "0", 0, .6), run("a", "d", "1", 0, .6), run("a", "d", "0", 0, .6, fold=0)]
  for r, (one, other) in zip(runs, ((.5, .7), (.6, .2), (.99, .99))):
    r.result["baseline"] = {"image_auroc": one, "image_auroc_max": other, "pixel_ap": 1.0, "what": "x"}
  assert summary.trivial(runs, "image_auroc") == pytest.approx({"d": .55})


def test_methods_are_ranked_on_the_blocks_that_give_most_comparisons():
  """Three methods on two blocks are four comparisons, two of them on three blocks three."""
  classes = {"a": "012", "b": "012", "c": "01"}
  runs = [run(m, "d", c, 0, .5 + .1 * k) for k, (m, found) in enumerate(classes.items()) for c in found]
  found = summary.ranking(summary.table(runs, "image_auroc"))
  assert [m for m, _ in found.methods] == ["a", "b", "c"] and found.blocks == [("d", "0"), ("d", "1")]
  assert found.left_out == {} and found.found.average == pytest.approx([3, 2, 1])


@pytest.mark.parametrize("count, compared", [(1, False), (2, True), (12, True), (13, False)])
def test_two_to_twelve_runs_are_compared(tmp_path, monkeypatch, count, compared):
  asked = []
  monkeypatch.setattr(comparison.paired, "read", lambda folder, name: asked.append(name))
  monkeypatch.setattr(comparison.paired, "compare", lambda runs: [])
  places = [tmp_path / f"r{i}" for i in range(count)]
  for place in places:
    files.write_json(place / "evaluation/test.json", {})
  assert comparison.write([*places, places[0], tmp_path / "none"], tmp_path) is None
  assert asked == [f"r{i}" for i in range(count)] * compared


def test_runs_are_named_with_as_many_folders_as_tell_them_apart():
  names = lambda *paths: comparison._names([pathlib.Path(p) for p in paths])
  assert names("/x/a", "/x/b") == ["a", "b"] and names("/x/a/run", "/x/b/run") == ["a/run", "b/run"]
  assert names("/1/x/r", "/2/x/r", "/2/y/r") == ["1/x/r", "2/x/r", "2/y/r"]


@pytest.mark.parametrize("groups, few", [(9, True), (10, False), (None, False)])
def test_fewer_than_ten_patients_are_few(groups, few):
  one = types.SimpleNamespace(groups=groups, unit="patients", result={"n_images": 40})
  assert ("With so few patients an interval says little" in verdicts._over(one)) == few


# ---------------------------------------------------------------------------------- what is drawn and said
def test_of_many_dots_every_so_many_are_drawn(monkeypatch):
  drawn = []
  monkeypatch.setattr(charts.Frame, "dot", lambda self, a, b, *_: drawn.append(b))
  charts.dots([{"name": "x", "value": v} for v in range(1600)], "y")
  assert drawn == list(range(0, 1600, 2))


@pytest.mark.parametrize("threshold, drawn", [
    (0.0, True), (2.0, True), (2.1, False), (-.1, False), (None, False)])
def test_a_threshold_is_drawn_from_end_to_end_of_its_axis(threshold, drawn):
  frame = charts.Frame((0, 2), (0, 1), "x", "y")
  frame.cut(threshold)
  assert ("class='cut'" in frame.svg("")) == drawn


def test_a_mask_that_touches_the_border_is_outlined_there():
  mask = np.zeros((5, 7), bool)
  mask[:4, :5] = True
  drawn = (panels.outline(np.zeros((5, 7, 3), np.uint8), mask) == panels.TRUTH).all(-1)
  inner = np.zeros_like(mask)
  inner[1:3, 1:4] = True
  np.testing.assert_array_equal(drawn, mask & ~inner)


def test_a_mask_is_called_empty_where_there_is_one():
  passed = {"map_max": 0.6, "threshold": 0.5}
  assert predictions._notes(passed) == [] and len(predictions._notes({**passed, "mask_ml": 0.0})) == 1


def test_counts_are_whole_numbers_and_no_answers():
  found = {"images": 1200, "marked": True, "share": 0.5}
  assert text_table.counts({"splits": {"test": found}, "kind": "CT"}) == [
      "split  images", "test    1,200", "kind: CT"]
