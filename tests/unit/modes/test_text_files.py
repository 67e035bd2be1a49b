"""Edited or damaged text files of a workdir: one line that names the file, or they are read well."""

import json
import os
import shutil

import pytest

from medae_jax import evaluate, report
from medae_jax.core import calibration, config, files, trained
from medae_jax.core.errors import UserError
from medae_jax.tasks import base
from tests.unit import fake_run

TEXT = [b"", b"{", b"[]", b"5", b"null", b'{"a":' * 3000, b"\x00\x01", b"\xff\xfe{"]
VALUES = ["text", -1, [], {}, 0.5, True, [["a"]], 1e300, None]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  folder = fake_run.make(tmp_path_factory.mktemp("run"))
  evaluate.evaluate(folder)
  (folder / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n{"step": 2, "train/loss": 1.0}\n')
  return folder


def mutants(value, top=None):
  """Every field of a nested object deleted, and replaced by values of all types."""
  top = top or value
  for key in list(value):
    old = value[key]
    if isinstance(old, dict):
      yield from mutants(old, top)
    del value[key]
    yield json.dumps(top).encode()
    for new in VALUES:
      value[key] = new
      yield json.dumps(top).encode()
    value[key] = old


def survives(path, contents, action):
  """Writes each of `contents` at `path` and calls `action`; how many were refused, and in what lines."""
  before, refused = path.read_bytes(), []
  try:
    for content in contents:
      path.write_bytes(content)
      try:
        action()
      except UserError as e:
        refused.append(str(e))
  finally:
    path.write_bytes(before)
  assert all("\n" not in line for line in refused)
  return refused


def open_and_ask(run):
  opened = trained.load(run)
  base.check(opened.config, opened.image_shape)
  base.plugin("anomaly", "predictor").Predictor(opened.config, opened.calibration, None)


@pytest.mark.parametrize("name, read", [
    ("config.json", config.read_config), ("calibration.json", calibration.read),
    ("evaluation/test.json", report.write)])
def test_what_is_no_object_is_named(run, name, read):
  lines = survives(run / name, TEXT, lambda: read(run))
  assert len(lines) == len(TEXT) and all(f"{name} is damaged" in line for line in lines)


def test_edited_calibration(run):
  contents = list(mutants(files.read_json(run / "calibration.json", "")))
  lines = survives(run / "calibration.json", contents, lambda: calibration.read(run))
  assert len(lines) > 40 and all("calibration.json is damaged" in line for line in lines)
  survives(run / "calibration.json", contents[::5], lambda: open_and_ask(run))


def test_edited_results(run):
  contents = list(mutants(files.read_json(run / "evaluation/test.json", "")))
  for folder in ("curves", "pictures"):  # they have nothing to do with it, and every page draws them
    shutil.rmtree(run / "evaluation" / folder)
  lines = survives(run / "evaluation/test.json", contents[::2], lambda: report.write(run))
  assert len(lines) > 40 and all("test.json is damaged (its entry" in line for line in lines)


def test_edited_config(run):
  """Whatever is written over a field: refused by name, or the run opens."""
  contents = list(mutants(json.loads((run / "config.json").read_text())))
  lines = survives(run / "config.json", contents[::3], lambda: open_and_ask(run))
  assert len(lines) > 100 and all("config." in line for line in lines)


def test_tables_and_curves(run):
  contents = [*TEXT, b'{"step": 3, "a": "b"}\n{"step": "x"}\n[1]\n', b'{"step": 1, "a": 1e999}']
  assert not survives(run / "metrics.jsonl", contents, lambda: report.write(run))
  lines = survives(run / "evaluation/test.csv", contents, lambda: report.write(run))
  assert len(lines) == 1 and "test.csv is damaged" in lines[0]  # the one that is no UTF-8


@pytest.mark.parametrize("read", [lambda p: files.read_json(p, "again"), files.read_events])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path, read):
  os.mkfifo(tmp_path / "x.json")
  with pytest.raises(UserError, match="x.json is no file but a folder, a pipe"):
    read(tmp_path / "x.json")


def test_a_pipe_anywhere_below_a_folder_is_named_and_folders_are_none(tmp_path):
  (tmp_path / "a" / "b").mkdir(parents=True)
  (tmp_path / "a" / "b" / "c.json").touch()
  files.check_files(tmp_path)
  os.mkfifo(tmp_path / "a" / "b" / "d")
  with pytest.raises(UserError, match="a/b/d is no file"):
    files.check_files(tmp_path)
  files.check_files(tmp_path, "*/*/*.json")


def test_an_editor_s_mark_is_read_and_a_name_that_is_there_twice_is_not(tmp_path):
  """Windows' Notepad begins a file with a byte order mark; of two lines the last one counted unsaid."""
  (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + b'{"a": {"b": 1}, "c": {"b": 2}}')
  assert files.read_json(tmp_path / "a.json", "") == {"a": {"b": 1}, "c": {"b": 2}}
  (tmp_path / "a.json").write_text('{"a": {"b": 1, "c": 0, "b": 2}}')
  with pytest.raises(UserError, match="a.json is damaged .it says 'b' twice.: give one"):
    files.read_json(tmp_path / "a.json", "give one")


def test_what_cannot_be_written_is_an_error_and_leaves_nothing_behind(tmp_path):
  """A folder stands where the file should be; whoever calls must not believe that it is there."""
  (tmp_path / "a" / "full").mkdir(parents=True)
  with pytest.raises(OSError):
    files.write_bytes(tmp_path / "a", b"x")
  assert [p.name for p in tmp_path.iterdir()] == ["a"]
  assert files.write_bytes(tmp_path / "b", b"x").read_bytes() == b"x" and len(list(tmp_path.iterdir())) == 2
