"""What predict hands to its task and writes around it: checks, notes, tables; the task is a stand-in."""

import csv
import pathlib
import types

import ml_collections
import numpy as np
import pytest

from data_pipelines.intake import counts, find
from medae_jax import predict
from medae_jax.core.errors import UserError
from medae_jax.core.trained_on import fit
from medae_jax.tasks.base import BasePredictor
from tests.unit.core.test_trained_on import rays

CALIBRATION = {"threshold": 0.5, "threshold_rule": "rule"}


class Stand(BasePredictor):
  """An input is a .txt file; its text says what happens to it."""

  last = None

  def __init__(self, *given):
    super().__init__(*given)
    self.given, self.begun, self.finished = given, [], []
    Stand.last = self

  def begin(self, output, about):
    self.begun.append(((output / "predictions.csv").read_text(), about))

  def find_inputs(self, input_path):
    self.found = find.Found(pathlib.Path(input_path), sorted(pathlib.Path(input_path).glob("*.txt")))
    self.found.leave_out(dict.fromkeys(pathlib.Path(input_path).glob("*.bad"), "is broken"), broken=True)
    if not self.found.files and not self.found.broken:
      raise counts.Nothing(input_path, self.found, ("image",))
    return self.found.files

  def name_of(self, item):
    return item.stem

  def predict_one(self, item, out_dir):
    text = item.read_text()
    if text == "fault":
      raise ZeroDivisionError(item.stem)
    if text == "stop":
      raise KeyboardInterrupt
    if text == "field":
      return {"score": self.config.predict.nosuch}
    if text == "cut":
      raise EOFError("ends early")
    if text == "odd":
      self.gate.content(item.stem, fit.Seen("image", 1), np.zeros((1, 4, 4, 1), np.float32))
    if text != "finished":
      (out_dir / "deep").mkdir()
      (out_dir / "deep" / f"{item.stem}.map").write_text(text)
    return {"score": 1.0}

  def after(self, item):
    self.finished.append(item.stem)
    return [pathlib.Path("earlier") / item.stem]


@pytest.fixture
def go(tmp_path, monkeypatch):
  """(files {name: text}, **options) -> (rows of the table, folder, what the page was made of)."""
  told, order = rays(synthetic=True, variant="demo"), []
  pages = []
  monkeypatch.setattr(predict.record, "read", lambda workdir: told)
  monkeypatch.setattr(predict.base, "check", lambda config, shape: order.append(("check", shape)))
  monkeypatch.setattr(predict.scoring, "check_fields", lambda run, workdir: order.append(("fields", workdir)))
  monkeypatch.setattr(predict.base, "plugin", lambda kind, part: types.SimpleNamespace(Predictor=Stand))
  monkeypatch.setattr(predict.pages, "write", lambda *given: pages.append(given) or "page")
  config = ml_collections.ConfigDict({
      "predict": {"input": "", "output": "", "force": False}, "eval": {"kind": "x"}, "method": {"name": "m"}})
  monkeypatch.setattr(predict.config_lib, "read_config", lambda workdir: config.lock())

  def load(workdir, changed):
    own = config.copy_and_resolve_references()
    own.update_from_flattened_dict(changed)
    return types.SimpleNamespace(
        config=own, image_shape=(4, 4, 1), calibration=CALIBRATION, score_fn="score",
        info={"step": 3, "which": "best"}, checkpoint="best checkpoint, step 3")
  monkeypatch.setattr(predict.opened, "load", load)

  def run(files, output="out", **more):
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
      (folder / name).write_text(text)
    place = {"predict.input": str(folder), "predict.output": str(tmp_path / output) if output else ""}
    try:
      predict.predict(tmp_path / "w", {**place, **{k: v for k, v in more.items() if "." in k}},
                      at_most=more.get("at_most"))
    except UserError as error:
      order.append(error)
    out = tmp_path / output if output else tmp_path / "w/predictions"
    if not (out / "predictions.csv").exists():
      return None, out, order
    with open(out / "predictions.csv", newline="", encoding="utf-8") as file:
      return list(csv.DictReader(file)), out, (pages[-1] if pages else None, order)
  return run


def test_the_task_is_told_of_the_run_and_what_it_was_trained_on(go, tmp_path):
  _, out, (page, order) = go({"a.txt": "x"})
  made = Stand.last
  assert made.given[1:] == (CALIBRATION, "score") and made.image_shape == (4, 4, 1)
  assert made.gate.trained.synthetic and not made.gate._force
  (table, about), = made.begun
  assert "not finished" in table  # of a run that is killed here nothing passes for a result
  assert about == {"method": "m", "run": "w", "trained_on": "synthetic, demo", "input": str(tmp_path / "in"),
                   "checkpoint": "best checkpoint, step 3", "calibration": "pixel threshold 0.5 (rule)",
                   "own_threshold": 0.0}
  assert page[0] == out and page[3] == {k: v for k, v in about.items() if k != "input"}
  assert order == [("check", (4, 4, 1)), ("fields", tmp_path / "w")]
  go({}, **{"predict.force": True})
  assert Stand.last.gate._force


def test_without_a_place_results_go_beside_the_run(go, tmp_path):
  rows, out, _ = go({"a.txt": "x"}, output="")
  assert out == tmp_path / "w/predictions" and rows[0]["input"] == "a"
  assert (out / "deep/a.map").read_text() == "x"


def test_every_input_has_its_row_with_what_is_unusual_and_the_mark_of_the_training(go, tmp_path):
  rows, out, (page, order) = go({"a.txt": "x", "b.txt": "odd", "c.txt": "cut", "d.txt": "fault",
                                 "e.txt": "fault", "f.txt": "finished", "g.bad": ""})
  assert [r["input"] for r in rows] == list("abcdef") + ["g.bad"]
  assert [r["error"] for r in rows[:3]] == ["", "", "ends early"] and rows[6]["error"] == "is broken"
  assert all("a fault of the program; see errors.log" in r["error"] for r in rows[3:5])
  log = (out / "errors.log").read_text()
  assert log.count("ZeroDivisionError: d") == log.count("ZeroDivisionError: e") == 1 and "EOFError" not in log
  assert "far from those of the training" in rows[1]["warning"] and not rows[0]["warning"]
  assert {r["trained_on"] for r in rows[:6]} == {"synthetic, demo"}
  assert str(order[-1]).startswith("4 of 7 inputs failed, the first: c: ends early")
  assert page[2]["a"] == [out / "deep/a.map"] and page[2]["f"] == [pathlib.Path("earlier/f")]
  assert Stand.last.finished == ["a", "b", "f"] and not list(out.glob(".partial_*"))
  with open(out / "results.csv", newline="", encoding="utf-8") as file:
    assert [r["source"] for r in csv.DictReader(file)] == [str(tmp_path / f"in/{n}.txt") for n in "ab"]


def test_one_failure_is_an_error_and_a_repetition_says_what_it_replaced(go, caplog):
  with caplog.at_level("INFO"):
    _, _, (_, order) = go({"a.txt": "x", "b.txt": "cut"})
    assert str(order[-1]).startswith("1 of 2 inputs failed")
    caplog.clear()
    go({"b.txt": "y"})
  assert "1 results replaced those of an earlier run" in caplog.text


def test_a_field_that_every_input_would_miss_is_said_once(go):
  rows, _, (_, order) = go({"a.txt": "field", "b.txt": "x", "c.bad": ""})
  assert str(order[-1]).startswith("the config has no field 'nosuch'")
  assert [(r["input"], r["error"]) for r in rows] == [
      ("a", f"not predicted: {order[-1]}"), ("b", f"not predicted: {order[-1]}"), ("c.bad", "is broken")]
  assert Stand.last.finished == []


def test_the_table_of_a_run_that_was_broken_off_names_what_it_did_not_reach(go, tmp_path, monkeypatch):
  """Without these rows the table looks like one of fewer inputs."""
  read = lambda: [(r["input"], r["error"]) for r in csv.DictReader((tmp_path / "out/predictions.csv").open())]
  texts = {"a.txt": "x", "b.txt": "stop", "c.txt": "x"}
  with pytest.raises(KeyboardInterrupt):
    go(texts)
  assert read() == [("a", ""), ("b", "not predicted: interrupted"), ("c", "not predicted: interrupted")]
  monkeypatch.setattr(Stand, "begin", lambda *_: (_ for _ in ()).throw(UserError("no highdicom")))
  rows, *_ = go({})
  assert {r["error"] for r in rows} == {"not predicted: no highdicom"} and len(rows) == 3


def test_slides_are_scored_by_a_task_of_their_own_that_knows_the_step(go, monkeypatch):
  """A slide that another checkpoint has begun is not gone on with."""
  seen = []

  def whole(predictor, step, output):
    seen.append((step, output))
    return predictor
  monkeypatch.setattr(predict.whole, "Predictor", whole)
  _, out, _ = go({"a.txt": "x"})
  assert not seen
  monkeypatch.setattr(predict.plan, "find", lambda source: types.SimpleNamespace(files=[source]))
  go({})
  assert seen == [(3, out)]


def test_more_inputs_than_asked_for_are_refused_before_the_first(go):
  rows, out, order = go({"a.txt": "x", "b.txt": "y"}, at_most=1)
  assert rows is None and not out.exists() and "holds 2 inputs where 1 was asked for" in str(order[-1])
  assert go({}, at_most=2)[0][0]["error"] == ""


def test_results_are_never_written_among_the_inputs_of_the_next_run(go):
  rows, _, order = go({"a.txt": "x"}, output="in")
  assert rows is None and "is --input: the results would be taken for images" in str(order[-1])


def test_what_was_left_out_by_an_earlier_run_is_not_said_of_this_one(go):
  _, out, _ = go({"a.txt": "x"})
  (out / "left_out.csv").write_text("file,reason\nold.txt,old\n")
  go({})
  assert not (out / "left_out.csv").exists() or "old.txt" not in (out / "left_out.csv").read_text()


def test_an_input_is_never_overwritten_by_another_name_of_its_folder(tmp_path):
  folder = tmp_path.resolve() / "in"
  folder.mkdir()
  (folder / "a.map").write_text("input")
  (tmp_path / "link").symlink_to(folder)
  stand = types.SimpleNamespace(predict_one=lambda item, out: (out / "a.map").write_text("result"))
  with pytest.raises(UserError, match="would overwrite the input"):
    predict._one(stand, "a", types.SimpleNamespace(output=tmp_path / "link"), {folder / "a.map"})
  assert (folder / "a.map").read_text() == "input"


def test_every_fault_of_the_program_keeps_its_traceback(go, tmp_path):
  go({"a.txt": "fault", "b.txt": "fault"})
  kept = (tmp_path / "out/errors.log").read_text()
  assert kept.count("Traceback") == 2 and "ZeroDivisionError: a" in kept and "ZeroDivisionError: b" in kept
