"""Paths as people type them: a ~ is the home folder, and no folder is made that is called $RUNS."""

import json
import os

import pytest

from configs import dae_brats
from data_pipelines import fields, typed
from data_pipelines.brains import prepare
from data_pipelines.datasets import own_folder
from data_pipelines.errors import UserError
from data_pipelines.prepare import __main__ as programs
from medae_jax import api, predict, train
from medae_jax.core import files, parallel, places
from tests import console

SMOKE = "--config=dae_brats:smoke"


@pytest.fixture(autouse=True)
def asked(monkeypatch, tmp_path):
  """Arguments of the calls of train and predict, which do nothing; home and working folder are fresh."""
  seen = []
  monkeypatch.setattr(predict, "predict", lambda *args, **_: seen.append(args) or [])
  monkeypatch.setattr(train, "train", lambda *args: seen.append(args) or {"stopped": True})
  monkeypatch.setattr(parallel, "initialize_hosts", lambda: None)
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  for name in ("home", "here"):
    (tmp_path / name).mkdir()
  monkeypatch.chdir(tmp_path / "here")
  return seen


def test_a_home_folder_is_put_in_where_no_shell_has(tmp_path, asked):
  """bash leaves the ~ behind a = alone: runs and results lay in a folder called ~."""
  home = tmp_path / "home"
  files.write_json(home / "run/config.json", dae_brats.get_config("smoke").to_dict())
  (home / "in").mkdir()
  for args in (["--mode=predict", "--workdir=~/run", "--input=~/in", "--output=~/maps"],
               [SMOKE, "--workdir=~/w", "--config.data.prepared_dir=~/p"]):
    code, text = console.call(*args)
    assert code == 0, text
  (workdir, changed), (config, trained) = asked
  given = changed["predict.input"], changed["predict.output"]
  assert [workdir, *given, trained, config.data.prepared_dir] == [
      f"{home}/{name}" for name in ("run", "in", "maps", "w", "p")]


def test_python_knows_the_home_folder_too(tmp_path, asked):
  home = tmp_path / "home"
  with pytest.raises(FileNotFoundError, match=f"{home}/none"):
    api.load("~/none")
  with pytest.raises(FileNotFoundError, match=f"{home}/w"):  # the stand-in trains nothing
    api.train("dae_brats:smoke", "~/w", evaluate=False)
  assert asked[0][1] == f"{home}/w"
  cfg = fields.changed(own_folder.defaults(), dir="~/mine", group_pattern="a~b", split_table="~")
  assert (cfg.dir, cfg.group_pattern, cfg.split_table) == (f"{home}/mine", "a~b", str(home))
  assert typed.argument("--a.b=~/c") == f"--a.b={home}/c" and typed.argument("--a=b~/c") == "--a=b~/c"


def test_programs_that_prepare_do_likewise(tmp_path):
  programs.main(["pairs", "--out=~/pairs", "--synthetic=1"])
  assert json.loads((tmp_path / "home/pairs/marks.json").read_text())["copies"] == 1
  with pytest.raises(SystemExit, match="home/none"):
    programs.main(["nih", "--source=~/none", "--target=here"])
  for args in (["pairs", "--out=$DATA/pairs", "--synthetic=1"],
               ["nih", "--source=.", "--target=$DATA/nih"]):
    with pytest.raises(SystemExit, match=r"error: \S+=.\$DATA.*holds a variable that no shell has put"):
      programs.main(args)
  with pytest.raises(UserError, match="config.data.prepared_dir=.* holds a variable"):
    prepare.folder_of({"prepared_dir": "$DATA/p"})
  assert prepare.folder_of({"prepared_dir": "~/p"}) == tmp_path / "home/p" and not os.listdir()


@pytest.mark.parametrize("folder, said", [
    ("$RUNS/w", "a variable"), ("${RUNS}/w", "a variable"), ("%TEMP%/w", "a variable"), ("'w'", "quotes"),
    ('"w', "quotes"), ("w ", "a blank"), (" w", "a blank"), ("C:\\runs\\w", "a path of Windows"),
    ("runs\\w", "a path of Windows"), ("~no.such/w", "a ~"), ("s3://runs/w", "an address")])
def test_what_a_shell_would_have_changed_is_no_name_of_a_folder(asked, folder, said):
  code, text = console.call(SMOKE, f"--workdir={folder}")
  assert code == 1 and f"holds {said}" in text and "write the path out" in text and asked == []
  assert not os.listdir()
  os.makedirs(folder)  # somebody has such a folder
  for name in (folder, f"{folder}/5'/a & b/n°1 (ü)"):
    places.check_folder(name, "--output")
  with pytest.raises(UserError, match="--output=.* holds a variable"):
    places.check_folder(f"{folder}/$X", "--output")


@pytest.mark.parametrize("field, text", [
    ("modalities", "flair,t1"), ("normal_words", "lung_n,colon_n"), ("anomaly_words", "(a, b)"),
    ("anomaly_words", "[a]"), ("normal_words", "a;b")])
def test_names_that_no_quotes_part_are_not_one(asked, field, text):
  """The model had one modality, "flair,t1"; folders of such a name there were none."""
  code, said = console.call("--config=own_folder:dae,smoke", "--workdir=w", f"--config.data.{field}={text}")
  assert code == 0, said
  ((config, _),) = asked
  with pytest.raises(UserError, match=f"config.data.{field}=.* would be one name; several stand"):
    own_folder.resolve(config.data)


def test_names_with_blanks_brackets_and_commas_are_names():
  words = ("lung, left", "benign (1)", "no finding", "a-b/c")
  assert fields.changed(own_folder.defaults(), normal_words=words).normal_words == words
