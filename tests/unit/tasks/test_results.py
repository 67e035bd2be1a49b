"""A second predict into one folder: what came from the same file is replaced, nothing else."""

import csv

import pytest

from medae_jax import predict
from medae_jax.core.errors import UserError
from medae_jax.tasks import results
from tests.unit import known_maps
from tests.unit.modes.test_predict_names import go, grey, inside


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
  """A model of single images."""
  return known_maps.write(tmp_path_factory.mktemp("flat"), known_maps.config(""), last=1.0)


def test_a_result_of_another_input_is_not_replaced(flat, tmp_path):
  """Whatever a second run into the same folder finds: only what came from the same file is replaced."""
  grey(tmp_path / "one/a.png", 10)
  grey(tmp_path / "two/a.png", 200)
  grey(tmp_path / "two/b.png", 200)
  out = tmp_path / "out"
  assert not go(flat, tmp_path / "one", out)[0]["error"]
  before = (out / "a_anomaly.tif").read_bytes()
  for _ in range(2):
    rows = go(flat, tmp_path / "two", out)
    assert f"the result of another input ({tmp_path}/one/a.png); choose another --output" in rows[0]["error"]
    assert not rows[1]["error"] and (out / "a_anomaly.tif").read_bytes() == before
  grey(tmp_path / "one/a.png", 50)  # the same file, whatever it holds now, and however it is named
  (tmp_path / "link").symlink_to(tmp_path / "one")
  assert not go(flat, tmp_path / "link/a.png", out)[0]["error"]
  assert (out / "a_anomaly.tif").read_bytes() != before
  with open(out / "results.csv", newline="", encoding="utf-8") as file:
    made_of = {r["result"]: r["source"] for r in csv.DictReader(file)}
  assert made_of["a_anomaly.tif"] == f"{tmp_path}/one/a.png"
  assert made_of["b_anomaly.tif"] == f"{tmp_path}/two/b.png"


def test_replaced_results_are_counted(flat, tmp_path, caplog):
  grey(tmp_path / "in/=a.png")
  for number in (0, 2):
    with caplog.at_level("INFO"):
      assert not go(flat, tmp_path / "in", tmp_path / "out", **{"predict.threshold": 0.5})[0]["error"]
    assert ("2 results replaced those of an earlier run" in caplog.text) == bool(number)


def test_half_a_line_of_a_killed_run_costs_no_other(flat, tmp_path):
  grey(tmp_path / "in/a.png")
  go(flat, tmp_path / "in", tmp_path / "out")
  with open(tmp_path / "out/results.csv", "a", encoding="utf-8") as file:
    file.write('"b_anomaly.tif,"/x')
  grey(tmp_path / "in/b.png")
  for _ in range(2):
    assert [r["error"] for r in go(flat, tmp_path / "in", tmp_path / "out")] == ["", ""]


@pytest.mark.parametrize("name", ["predictions.csv", "results.csv", "left_out.csv"])
def test_tables_of_somebody_else_are_kept(flat, tmp_path, name):
  grey(tmp_path / "in/a.png")
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / name).write_text("patient,outcome\n1,2\n")
  with pytest.raises(ValueError, match=f"{name} is there and no table of predict: choose another --output"):
    predict.predict(flat, {"predict.input": str(tmp_path / "in"), "predict.output": str(tmp_path / "out")})
  assert inside(tmp_path / "out") == {name} and "outcome" in (tmp_path / "out" / name).read_text()


def test_names_are_the_same_however_they_are_written_and_no_cell_is_a_formula(tmp_path):
  """A folder copied between systems spells umlauts in another way; its results are known again."""
  out, source = tmp_path / "out", str(tmp_path / "in/a.png")
  out.mkdir()
  before, after = "=\u00c4_map.tif", "=a\u0308_map.tif"
  results.Results(out).claim([out / before], source, "a")
  line = (out / results.FILE).read_text(encoding="utf-8").splitlines()[1]
  assert line.startswith("'=") and line.endswith(source)
  (out / after).write_bytes(b"1")
  again = results.Results(out)
  again.claim([out / after], source, "a")
  assert again.replaced == 1 and len((out / results.FILE).read_text(encoding="utf-8").splitlines()) == 2


def test_a_link_to_nothing_is_no_folder_for_results(tmp_path):
  (tmp_path / "out").symlink_to(tmp_path / "gone")
  with pytest.raises(ValueError, match="is no folder"):
    results.check(tmp_path / "out")
  results.check(tmp_path / "new")


def test_folders_of_a_run_take_no_results(flat, tmp_path):
  """predict wrote masks and tables among the checkpoints, with exit 0."""
  for name in ("checkpoints", "evaluation"):
    with pytest.raises(UserError, match=f"{name} is a folder of the run"):
      results.check(flat / name)
  results.check(flat / "predictions")
  results.check(tmp_path / "checkpoints")


@pytest.mark.parametrize("name, own", [
    ("predictions.csv", b"input,score\n"), ("left_out.csv", b"file,reason\n"),
    ("results.csv", b"result,source\n"),
    ("predictions.html", b"<!doctype html>\n<!-- medae_jax --><html lang=en>")])
def test_somebody_elses_file_of_the_name_of_a_table_is_kept(tmp_path, name, own):
  results.check(tmp_path)
  (tmp_path / name).write_bytes(own)
  results.check(tmp_path)
  for other in (b"", b"patient,score\n", b"<!doctype html>\n<html lang=en>"):
    (tmp_path / name).write_bytes(other)
    with pytest.raises(UserError, match=f"{name} is there and no table of predict"):
      results.check(tmp_path)
  (tmp_path / name).unlink()
  (tmp_path / name).mkdir()
  with pytest.raises(UserError, match="no table of predict"):
    results.check(tmp_path)


@pytest.mark.parametrize("foreign", [0, 1, 2])
def test_all_results_of_an_input_are_looked_at_before_one_is_claimed(tmp_path, foreign):
  """Also those that come after one that is not there yet; a refused claim notes nothing."""
  targets = [tmp_path / name for name in ("a_map.tif", "a_mask.tif", "a_panel.png")]
  targets[foreign].write_bytes(b"somebody's")
  with pytest.raises(UserError, match=f"would overwrite .*{targets[foreign].name}, which no prediction"):
    results.Results(tmp_path).claim(targets, "/in/a.png", "a.png")
  assert not (tmp_path / results.FILE).exists()
  targets[foreign].unlink()
  made = results.Results(tmp_path)
  made.claim(targets, "/in/a.png", "a.png")
  for target in targets[::2]:  # the one in the middle was never written
    target.write_bytes(b"ours")
  again = results.Results(tmp_path)
  again.claim(targets, "/in/a.png", "a.png")
  assert (made.replaced, again.replaced) == (0, 2)
  with pytest.raises(UserError, match="the result of another input"):
    results.Results(tmp_path).claim(targets[1:], "/other/a.png", "a.png")
