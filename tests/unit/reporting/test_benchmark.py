"""The benchmark report from written runs: what is found, what is missing, the numbers by hand, the page."""

import csv
import json
import pathlib
import re
import xml.etree.ElementTree

import numpy as np
import pytest

from medae_jax import report
from medae_jax.core import files
from medae_jax.reporting.benchmark import identity, page, runs as runs_lib, summary, tables as text_tables
from medae_jax.reporting.benchmark.runs import Run

TRUNK = "vgg19, vgg19.pth"


def result(auroc, **more):
  return {"image_auroc": auroc, "image_ap": auroc / 2, "scan_auroc": auroc, "n_images": 2000,
          "synthetic": False, "ci95": {"image_auroc": [auroc - .1, auroc + .1]},
          "baseline": {"image_auroc": .55, "what": "x"}, **more}


def run(method, data, cls, number, auroc, fold=-1, setting=0):
  return Run(method, data, cls, str(number), fold, setting, TRUNK, pathlib.Path("run"),
             auroc and result(auroc))


def sweep(folder, entries, **more):
  """A sweep folder with its plan; an entry's last value is its AUROC, None = missing."""
  listed = []
  for method, data, cls, number, auroc in entries:
    name = f"{method}_{data}_{cls}_{number}".replace(" ", "")
    listed.append({"name": name, "method": method, "data": data, "class": cls, "run": str(number), "fold": -1,
                   "setting": 0, "trunk": TRUNK, "done": auroc is not None})
    if auroc is not None:
      own = folder / "runs" / name
      files.write_json(own / "evaluation" / "test.json", result(auroc))
      files.write_json(own / "config.json", {"method": {"name": "?"}, "data": {"name": "?"}})
  files.write_json(folder / "sweep.json", {"runs": listed, **more})


def test_a_cell_by_hand():
  runs = [run("a", "cifar10", "0", 0, .6), run("a", "cifar10", "0", 1, .8), run("a", "cifar10", "1", 0, .9),
          run("a", "cifar10", "1", 1, None), run("a", "cifar10", "1", 1, .1, fold=0)]
  cell = summary.table(runs, "image_auroc")[("a", TRUNK), "cifar10"]
  assert cell.mean == pytest.approx((.7 + .9) / 2)       # of class means, not of runs; folds do not count
  assert cell.std_runs == pytest.approx(np.std([.6, .8], ddof=1))
  assert cell.std_classes == pytest.approx(np.std([.7, .9], ddof=1))
  assert (cell.runs, cell.of, cell.classes, cell.of_classes, cell.over) == (3, 4, 2, 2, "classes and runs")
  assert .6 <= cell.interval[0] < cell.mean < cell.interval[1] <= .9
  assert summary.scores_of(runs) == ["image_auroc", "image_ap"]  # one image a scan: the same number once
  assert summary.folds(runs, "image_auroc")[0]["mean"] == .1
  runs[3] = run("a", "cifar10", "1", 1, .5)  # of runs: the root of the mean of both classes' variances
  cell = summary.table(runs, "image_auroc")[("a", TRUNK), "cifar10"]
  assert cell.std_runs == pytest.approx(((.02 + .08) / 2) ** .5)


def test_intervals_of_runs_and_of_one_run():
  drawn = summary.resampled_means([[.5, .7]])
  assert set(np.round(drawn, 6)) == {.5, .6, .7} and np.mean(drawn == .5) == pytest.approx(.25, abs=.05)
  several = summary.resampled_means([[.5], [.7], [.9]])
  assert np.std(several) == pytest.approx(np.std([.5, .7, .9]) / np.sqrt(3), rel=.1)
  one = summary.table([run("a", "nih AP", "", 0, .6)], "image_auroc")[("a", TRUNK), "nih AP"]
  assert one.interval == pytest.approx([.5, .7]) and one.over == "images or patients" and one.std_runs is None
  said = text_tables._plain(one, ("a", TRUNK), "nih AP", "image_auroc")
  assert said.startswith("0.600; [0.500, 0.700]; 1/1 runs")


def cells_of(html):
  """Rows of the tables of a page, as lists of text."""
  return [[re.sub("<[^>]+>", "", c) for c in re.findall("<t[dh][^>]*>(.*?)</t[dh]>", row)]
          for row in re.findall("<tr>(.*?)</tr>", html)]


def test_pages_show_the_means_of_classes_and_of_folds():
  """A class by the mean of its runs, a setting of the search by mean, deviation and count of its folds."""
  runs = [run("a", "cifar10", "0", 0, .6), run("a", "cifar10", "0", 1, .8), run("a", "cifar10", "1", 0, .9),
          run("b", "cifar10", "1", 0, .5), run("b", "cifar10", "0", 0, None), run("a", "nih AP", "", 0, .7),
          run("a", "cifar10", "0", 0, .2, fold=0, setting=1),
          run("a", "cifar10", "0", 0, .4, fold=1, setting=1),
          run("a", "cifar10", "0", 0, None, fold=2, setting=1), run("a", "cifar10", "0", 0, .3, fold=0)]
  found = runs_lib.Found(runs, [], {}, [])
  tables = {"image_auroc": summary.table(runs, "image_auroc")}
  ranking = summary.ranking(tables["image_auroc"])
  html = page.html(found, tables, ranking, "").decode()
  classes = cells_of(html[html.index("Class by class"):html.index("Folds of the search")])
  assert classes[0] == ["mean (runs)", "0", "1"] and [r[1:] for r in classes[1:]] == [
      ["0.700 (2)", "0.900 (1)"], ["missing", "0.500 (1)"]]  # nih has one class: it is in the table above
  by_fold = [["a", "cifar10", "0", "1", "0.300", "0.141", "2/3"], ["a", "cifar10", "0", "0", "0.300", "1/1"]]
  (_, *rows) = cells_of(html[html.index("Folds of the search"):])
  text = text_tables.markdown(found, tables, ranking).split("## Folds of the search")[1].splitlines()
  in_text = [[c.strip() for c in line.strip("|").split("|")] for line in text[4:6]]
  for shown in (rows[:2], in_text):
    assert shown[0] == by_fold[0] and [shown[1][k] for k in (0, 1, 2, 3, 4, 6)] == by_fold[1]
  assert html.count("plain intensity") == 1
  for one in runs:
    (one.result or {}).pop("baseline", None)
  assert "plain intensity" not in page.html(found, tables, ranking, "").decode()


def test_ranks_stand_beside_the_score_that_they_are_of():
  runs = [run(m, "cifar10", str(c), 0, v + c / 100) for m, v in (("a", .5), ("b", .7)) for c in range(3)]
  tables = {score: summary.table(runs, score) for score in ("image_auroc", "image_ap")}
  ranking = summary.ranking(tables["image_auroc"])
  html = page.html(runs_lib.Found(runs, [], {}, []), tables, ranking, "").decode()
  first, second = html[:html.index("<h2>Ranks")].split("<h2>")[1:3]
  assert "average rank" in first and "average rank" not in second
  assert ["<td>2.00</td>" in row for row in first.split("<tr>")[2:4]] == [True, False]  # a, b


def test_published_figures_stand_in_the_table_of_the_score_that_they_are_of():
  runs = [run("piad with_cv", "nih subset", "", n, .6) for n in range(3)]
  tables = {score: summary.table(runs, score) for score in ("image_auroc", "image_ap")}
  found, ranking = runs_lib.Found(runs, [], {}, []), summary.ranking(tables["image_auroc"])
  text = text_tables.markdown(found, tables, ranking)
  assert ["; published " in part for part in text.split("\n## ")[1:3]] == [True, False]


def test_drawn_images_are_said_where_a_run_has_them_and_classes_where_there_are_several():
  other = summary.table([run("b", "svhn", "0", 0, .5)], "image_auroc")  # of photographs
  def text(classes, **more):
    runs = [run("a", "cifar10", str(c), 0, .6) for c in range(classes)]
    runs[0].result.update(more)
    tables = {"image_auroc": summary.table(runs, "image_auroc")}
    (cell,) = tables["image_auroc"].values()
    html = page.html(runs_lib.Found(runs, [], {}, []), {"image_auroc": {**tables["image_auroc"], **other}},
                     summary.ranking(tables["image_auroc"]), "").decode()
    assert ("SYNTHETIC" in html) == bool(more)
    return text_tables.markdown(runs_lib.Found(runs, [], {}, []), tables,
                                summary.ranking(tables["image_auroc"])), text_tables.words.count(cell)
  (plain, one), (drawn, two) = text(1), text(2, synthetic=True)
  assert "SYNTHETIC" not in plain and "**SYNTHETIC DATA** among the runs." in drawn
  assert (one, two) == ("1/1 runs", "2/2 runs, 2/2 classes")


def test_ranks_leave_out_methods_without_the_blocks():
  values = {"a": (.9, .8, .7), "b": (.8, .7, .6), "c": (.99, None, None)}
  runs = [run(m, "cifar10", str(c), 0, v) for m, own in values.items() for c, v in enumerate(own)]
  found = summary.ranking(summary.table(runs, "image_auroc"))
  assert [m[0] for m in found.methods] == ["a", "b"] and list(found.found.average) == [1, 2]
  assert {m[0]: n for m, n in found.left_out.items()} == {"c": 2}
  alone = summary.ranking(summary.table(runs[:3], "image_auroc"))
  assert alone.found is None and "two methods" in alone.why


def test_report_of_a_sweep_and_a_run_beside_it(tmp_path):
  sweep(tmp_path / "s", [("dpa wo_pg", "nih subset", "", r, v) for r, v in ((0, .9), (1, .92), (2, None))]
        + [("dpa wo_pg", "cifar10", c, 0, .6) for c in "01"]
        + [("piad <with_cv>", "cifar10", c, 0, .7) for c in "01"]
        + [("piad <with_cv>", "nih subset", "", 0, None)],
        unpublished=["dpa/cifar10/pg/class_0/run_0"], failed={"dpawo_pg_nihsubset__2": "disk full"},
        changes={"train.steps": 150})
  alone = tmp_path / "alone"
  files.write_json(alone / "evaluation/test.json", result(.5))
  files.write_json(alone / "config.json", {
      "seed": 3, "method": {"name": "dpa", "loss": "l1", "score": {"loss": "l1"}, "vgg_weights": ""},
      "data": {"name": "natural", "dataset": "cifar10", "normal_class": 1}})
  path = report.report(tmp_path / "s", str(alone))
  assert path == tmp_path / "s/benchmark/benchmark.html"
  shown, text = path.read_text(), (path.parent / "benchmark.md").read_text()
  for wanted in ("missing: 0 of 1 runs", "paper 92.0 %, other images", "2/3 runs", "disk full",
                 "train.steps=150", "dpa, loss=l1", "dpa/cifar10/pg/class_0/run_0", "not planned", TRUNK,
                 "no pretrained trunk", "<svg", "piad &lt;with_cv&gt;"):
    assert wanted in shown, wanted
  assert "| dpa wo_pg | vgg19, vgg19.pth | 0.910 ± 0.014;" in text and "missing (0/1 runs)" in text
  assert any(line.startswith(("No ranks: ", "2 methods over ")) for line in text.splitlines())
  assert "<with_cv>" not in shown and "src=" not in shown  # nothing is loaded
  xml.etree.ElementTree.parse(path.parent / "critical_difference.svg")
  with open(path.parent / "runs.csv", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  with open(path.parent / "cells.csv", encoding="utf-8") as file:
    assert {(r["data"], r["class"]) for r in csv.DictReader(file)} >= {("cifar10", "0"), ("cifar10", "1")}
  assert len(rows) == 9 and sum(r["image_auroc"] == "" for r in rows) == 2
  with open(path.parent / "table.csv", encoding="utf-8") as file:
    subset = next(r for r in csv.DictReader(file) if r["data"] == "nih subset" and r["mean"])
  assert subset["published"] == "0.92" and "IEEE Access" in subset["source"]


def test_what_a_run_is():
  vgg = {"name": "dpa", "loss": "relative_perceptual_L1", "vgg_widths": (4, 8)}
  trunk = lambda **m: identity.trunk_of({"method": m})
  assert trunk(**vgg, vgg_weights="random:3") == "vgg19, random, 4-8"
  assert trunk(**vgg, vgg_weights="a/vgg16.npz", trunk="vgg16") == "vgg16, vgg16.npz"
  assert trunk(**{**vgg, "loss": "l1"}, score={"loss": ""}, vgg_weights="x") == ""
  assert trunk(backbone="vgg16", backbone_weights="random:0") == "vgg16, random"
  data = lambda **d: identity.data_of({"data": d})
  assert data(name="natural", dataset="svhn", normal_class=3) == ("svhn", "3")
  assert data(name="nih", view="AP", layout="lists") == ("nih AP", "")
  assert data(name="nih", view="AP", layout="folder", root="x/chest") == ("radiographs of chest", "")
  assert data(name="camelyon", layout="lists") == ("camelyon16", "")
  config = {"method": {"name": "dpa"}}
  cell = {"cls": 1, "run": 0, "loss": "l1"}
  assert identity.method_of(config, {"model": "dpa", "exp": "pg"}, cell) == "dpa pg, loss=l1"
  of_data = {"cls": 1, "view": "AP", "run": 2, "fold": 3}
  assert identity.method_of(config, {}, of_data) == "dpa"
  assert identity.method_of({**config, "variant": "deep"}, {}, {}) == "dpa deep"
  assert identity.method_of({**config, "variant": "deep"}, {"variant": "flat"}, {}) == "dpa flat"


def test_folders_without_runs(tmp_path):
  with pytest.raises(FileNotFoundError, match="no evaluated run"):
    runs_lib.find([tmp_path])
  with pytest.raises(FileNotFoundError, match="no folder"):
    runs_lib.find([tmp_path / "none"])
  for damaged in ({"runs": [{"name": "a"}]}, {"runs": ["a"]}, {"runs": 3}, {"failed": ["x"]}):
    (tmp_path / "sweep.json").write_text(json.dumps(damaged))
    with pytest.raises(ValueError, match=r"sweep.json is damaged.*call the sweep again"):
      runs_lib.find([tmp_path])
  sweep(tmp_path, [("a", "b", "c", 0, .5)])
  for entry in ({"ci95": {"image_auroc": [1]}}, {"ci95": {"a": [0, 1], "image_auroc": [1]}},
                {"ci95": [0, 1]}, {"baseline": 3}):
    files.write_json(tmp_path / "runs/a_b_c_0/evaluation/test.json", {"image_auroc": .5, **entry})
    with pytest.raises(ValueError, match=r"test.json is damaged.*evaluate again"):
      runs_lib.find([tmp_path])


def test_folders_and_runs_without_an_evaluation_are_named(tmp_path, caplog):
  """They were missing in the table without a word."""
  sweep(tmp_path / "s", [("a", "b", "c", 0, .5)])
  for name in ("run", "run/seed_0", "late"):
    files.write_json(tmp_path / "more" / name / "config.json", {
        "method": {"name": "dpa"}, "data": {"name": "nih"}, "seed": 0})
  files.write_json(tmp_path / "more/run/seed_0/evaluation/test.json", result(.7))
  (tmp_path / "empty").mkdir()
  runs_lib.find([tmp_path / "s", tmp_path / "more"])
  assert f"No evaluation of test in {tmp_path / 'more/late'}: left out" in caplog.text
  caplog.clear()
  runs_lib.find([tmp_path / "s", tmp_path / "empty"])
  assert f"No evaluation of test in {tmp_path / 'empty'}: left out" in caplog.text


@pytest.mark.parametrize("split", ["test", "val"])
def test_runs_and_sweeps_give_the_numbers_of_the_split_that_is_asked_for(tmp_path, split):
  sweep(tmp_path / "s", [("a", "b", "c", 0, .5)])
  own = tmp_path / "run"
  files.write_json(own / "config.json", {"method": {"name": "dpa"}, "data": {"name": "nih"}, "seed": 0})
  for folder in (own, tmp_path / "s/runs/a_b_c_0"):
    for k, name in enumerate(("test", "val")):
      files.write_json(folder / f"evaluation/{name}.json", result(.6 + .1 * k))
  found = runs_lib.find([tmp_path / "s", own], split).runs
  assert [r.score("image_auroc") for r in found] == [pytest.approx({"test": .6, "val": .7}[split])] * 2


@pytest.mark.parametrize("runs", [None, []])
def test_a_sweep_that_lists_no_runs_has_none(tmp_path, runs):
  assert list(runs_lib._of_sweep(tmp_path, {"runs": runs}, "test")) == []


def test_long_lists_are_whole_in_the_text():
  names = [f"launch {i}" for i in range(30)]
  found = runs_lib.Found([], names, {}, [])
  lines = text_tables._markdown_lists(found)
  assert [line for line in lines if "launch" in line and line.startswith("-")] == [f"- {n}" for n in names]


def test_a_link_back_to_a_folder_of_runs_is_not_followed(tmp_path):
  (tmp_path / "runs/a").mkdir(parents=True)
  (tmp_path / "runs/a/back").symlink_to(tmp_path / "runs", target_is_directory=True)
  assert list(runs_lib._places(tmp_path)) == [tmp_path, tmp_path / "runs", tmp_path / "runs/a"]
