"""The command line hands every flag to its mode, in this process; the modes themselves are stand-ins."""

import errno
import importlib.util
import json
import pathlib
import subprocess
import sys

from absl import logging
import pytest

from configs import dae_brats
from medae_jax import api, bench, cli, convert, evaluate, export, predict, report, serve, sweep, train
from medae_jax.core import errors, files, parallel, places
from medae_jax.core.errors import UserError
from medae_jax.reporting import listing
from medae_jax.training import interrupt
from medae_jax.weights.known import command
from tests import console

SMOKE = "--config=dae_brats:smoke"


@pytest.fixture(autouse=True)
def asked(monkeypatch, tmp_path):
  """[(mode, arguments, keywords)] of the calls; the working folder is a fresh one."""
  seen = []

  def stand_in(module, name, answer=None):
    monkeypatch.setattr(module, name, lambda *a, **k: seen.append((name, a, k)) or answer)
  for module, answer in ((predict, []), (evaluate, {}), (serve, None), (export, None), (convert, None),
                         (sweep, None), (report, "the page"), (bench, {"step": 1}),
                         (train, {"stopped": False})):
    stand_in(module, module.__name__.rpartition(".")[2], answer)
  stand_in(sweep, "seeds")
  stand_in(command, "convert", "converted")
  stand_in(command, "overview", "what is known")
  monkeypatch.setattr(parallel, "initialize_hosts", lambda: None)
  monkeypatch.chdir(tmp_path)
  return seen


@pytest.fixture
def run(tmp_path):
  """A folder with the config of a run."""
  folder = tmp_path / "run"
  folder.mkdir()
  files.write_json(folder / "config.json", dae_brats.get_config("smoke").to_dict())
  (tmp_path / "in").mkdir()
  return folder


def ok(*args):
  code, text = console.call(*args)
  assert code == 0, text
  return text


def test_modes_on_a_run_get_its_folder_and_the_changed_fields(run, asked):
  given = {"predict.threshold": 0.25}
  where = [f"--workdir={run}", "--config.predict.threshold=0.25"]
  ok("--mode=predict", *where, "--input=in", "--output=maps")
  ok("--mode=predict", *where, "--input=in")
  ok("--mode=evaluate", *where)
  ok("--mode=export", *where, "--output=out", "--formats=weights,stablehlo")
  ok("--mode=export", *where)
  ok("--mode=serve", *where, "--port=8123", "--host_names=a.org,b.org", "--max_mb=7")
  ok("--mode=serve", *where)
  place = {"predict.input": "in"}
  assert asked == [
      ("predict", (str(run), {**given, **place, "predict.output": "maps"}), {}),
      ("predict", (str(run), {**given, **place, "predict.output": ""}), {}),
      ("evaluate", (str(run), given), {}),
      ("export", (str(run), "out", ["weights", "stablehlo"], given), {}),
      ("export", (str(run), None, None, given), {}),
      ("serve", (str(run), given), {"host": "127.0.0.1", "port": 8123, "host_names": ["a.org", "b.org"],
                                    "max_mb": 7}),
      ("serve", (str(run), given), {"host": "127.0.0.1", "port": 8000, "host_names": [], "max_mb": 512})]


def test_modes_of_a_config_get_it_locked_with_its_argument_and_changes(tmp_path, asked):
  (tmp_path / "x.pt").write_bytes(b"")
  more = [SMOKE, "--workdir=w", "--config.seed=3"]
  assert json.loads(ok("--mode=bench", *more).partition("{")[1] + '"step": 1}') == {"step": 1}
  ok("--mode=sweep", *more)
  ok("--mode=convert", *more, "--input=x.pt")
  for name, given, _ in asked:
    config = next(a for a in given if hasattr(a, "seed"))
    assert config.is_locked and (config.seed, config.data.image_size) == (3, (32, 32)), name
  assert [(name, tuple(a for a in given if not hasattr(a, "seed"))) for name, given, _ in asked] == [
      ("bench", ("w",)), ("sweep", ("w",)), ("convert", ("x.pt", "w"))]


def test_reports_and_weights_are_printed(tmp_path, asked):
  (tmp_path / "w").mkdir()
  logging.set_verbosity(logging.WARNING)
  assert "the page" in ok("--mode=report", "--workdir=w", "--input=a,b", "--output=o")
  ok("--mode=report", "--workdir=w")
  assert "converted" in ok("--mode=weights", "--input=v.pth", "--output=v.npz")
  assert "what is known" in ok("--mode=weights")
  assert asked == [("report", ("w", "a,b", "o"), {}), ("report", ("w", "", None), {}),
                   ("convert", ("v.pth", "v.npz"), {}), ("overview", (), {})]
  assert "dae_brats" in ok("--mode=list")
  assert logging.get_verbosity() == logging.INFO  # what is done is said


def test_training_is_evaluated_unless_it_was_stopped(asked, monkeypatch, caplog):
  assert "medae_jax: --workdir=runs/dae_brats_smoke" in ok(SMOKE)
  (_, (config, folder), _), evaluated = asked
  assert (config.train.steps, folder) == (4, "runs/dae_brats_smoke")
  assert evaluated == ("evaluate", (folder,), {})
  asked.clear()
  ok(SMOKE, "--workdir=w", "--config.seeds=(0,1)")
  assert [(name, given[1]) for name, given, _ in asked] == [("seeds", "w")]
  asked.clear()
  monkeypatch.setattr(train, "train", lambda *_: {"stopped": True})
  monkeypatch.setattr(interrupt, "command", lambda: "the same again")
  with caplog.at_level("WARNING"):
    ok(SMOKE, "--workdir=w")
  assert asked == [] and "To go on: the same again" in caplog.text


def test_hosts_are_found_before_a_mode_is_run_and_not_for_lists(run, asked, monkeypatch):
  monkeypatch.setattr(parallel, "initialize_hosts", lambda: asked.append("hosts"))
  ok("--mode=predict", f"--workdir={run}", "--input=in")
  ok("--mode=weights")
  assert [a if isinstance(a, str) else a[0] for a in asked] == ["hosts", "predict", "overview"]


@pytest.mark.parametrize("more, allowed", [([], False), (["--allow_code"], True)])
def test_code_from_outside_is_allowed_by_a_flag_alone(run, monkeypatch, more, allowed):
  seen = []
  monkeypatch.setattr("medae_jax.core.errors.allow_outside_code", lambda: seen.append(1))
  ok("--mode=evaluate", f"--workdir={run}", *more)
  assert bool(seen) == allowed


@pytest.mark.parametrize("error, code, words", [
    (UserError("wrong"), 1, "error: wrong"), (OSError(errno.ENOSPC, "No space left"), 1, "No space left"),
    (MemoryError("64 GB"), 1, "out of memory: 64 GB"), (FloatingPointError("loss is nan"), 1, "loss is nan"),
    (KeyboardInterrupt(), 130, "interrupted"), (KeyError("nosuch"), 70, "a fault of medae_jax"),
    (UserError("config.predict.x=1: no"), 1, "config.json or the command line: config.predict.x=1")])
def test_every_end_has_its_code_and_its_line(run, monkeypatch, error, code, words):
  def broken(*_):
    raise error
  monkeypatch.setattr(predict, "predict", broken)
  found, text = console.call("--mode=predict", f"--workdir={run}", "--input=in")
  assert found == code and words in text and "Traceback" not in text
  log = run / "error.log"
  assert log.is_file() == (code == 70) and (not log.is_file() or "KeyError" in log.read_text())


@pytest.mark.parametrize("args, code, words", [
    (["--mode=list", "more"], 2, "unexpected argument 'more'"),
    (["--mode=evaluate"], 1, "--mode=evaluate needs --workdir"),
    (["--mode=report"], 1, "--mode=report needs --workdir"),
    (["--mode=report", "--workdir=none"], 1, "no folder 'none'"),
    (["--mode=export", "--workdir=none"], 1, "none holds no config.json"),
    (["--mode=serve", "--workdir=none"], 1, "none holds no config.json"),
    (["--mode=predict", "--workdir=none", "--input=in"], 1, "none holds no config.json"),
    (["--mode=predict", "--workdir=run", "--input=nothing"], 1, "--input=nothing does not exist"),
    (["--mode=evaluate", "--workdir=run", "--config=configs/dpa_nih.py:smoke"], 1,
     "dpa_nih.py:smoke is of the method dpa, and --workdir=run holds a run of dae: leave --config out"),
    (["--mode=predict", "--workdir=run"], 1, "--mode=predict needs --input"),
    (["--mode=convert", SMOKE, "--workdir=w", "--input=nothing"], 1, "--input=nothing does not exist"),
    (["--mode=convert", SMOKE, "--workdir=w"], 1, "--mode=convert needs --input"),
    (["--mode=bench"], 1, "--mode=bench needs --config"),
    (["--mode=sweep", SMOKE], 1, "--mode=sweep needs --workdir"),
    (["--mode=train", "--workdir=run"], 1, "--mode=train needs --config"),  # not the config of that run
    (["--mode=evaluate", "--workdir=a[0]"], 1, "choose another name"),
    (["--mode=serve", "--workdir=run", "--host=0.0.0.0"], 1, "--open_to_network"),
    (["--mode=serve", "--workdir=run", "--port=65536"], 2, "port"),
    (["--mode=serve", "--workdir=run", "--host=localhost:80"], 1, "is no address"),
    (["--mode=serve", "--workdir=run", "--host_names=*"], 1, "is no name"),
    (["--mode=evaluate", "--workdir=run", "--input=in"], 1, "--input is of --mode=predict and convert and"),
    (["--mode=predict", "--workdir=run", "--input=in", "--port=80"], 1, "--port is of --mode=serve, not of"),
    (["--config=empty.py"], 2, "its get_config returns no ConfigDict")])
def test_what_is_missing_or_wrong_is_said_before_anything_runs(run, tmp_path, asked, args, code, words):
  (tmp_path / "empty.py").write_text("def get_config(arg=None):\n  return {}\n")
  found, text = console.call(*args)
  assert found == code and words in text and asked == []


def test_the_network_is_listened_to_where_that_is_allowed(run, asked):
  ok("--mode=serve", f"--workdir={run}", "--host=0.0.0.0", "--open_to_network", "--port=65535")
  assert asked[0][2]["host"] == "0.0.0.0" and asked[0][2]["port"] == 65535


def test_methods_of_the_working_folder_are_found_and_hide_nothing(tmp_path, monkeypatch):
  monkeypatch.setattr(cli.environment, "prepare", lambda: None)
  monkeypatch.setattr(cli.environment, "quiet_threads", lambda: None)
  monkeypatch.setattr(cli.app, "run", lambda *_, **__: None)
  monkeypatch.setattr(sys, "path", ["first", "last"])
  for _ in range(2):
    cli.console()
  assert sys.path == ["first", "last", str(tmp_path)]


def test_an_error_is_a_line_of_its_own_stream_and_an_exit_code(capsys):
  """What a program reads from the output is never an error."""
  for code in (1, 70):
    with pytest.raises(SystemExit) as stopped:
      cli._stop("no such run", code)
    assert stopped.value.code == code
    assert tuple(capsys.readouterr()) == ("", "medae_jax: error: no such run\n")


def test_the_process_is_prepared_before_the_program_runs(monkeypatch):
  """Pages and switches come before JAX wakes up."""
  done = []
  monkeypatch.setattr(cli.huge_pages, "restart", lambda *_: done.append("restart"))
  for name in ("prepare", "quiet_threads"):
    monkeypatch.setattr(cli.environment, name, lambda name=name: done.append(name))
  monkeypatch.setattr(cli.app, "run", lambda main, flags_parser: done.append((main, flags_parser)))
  cli.console()
  assert done == ["restart", "prepare", "quiet_threads", (cli.main, cli.parse_flags)]


def test_a_reader_that_leaves_ends_the_command_quietly(monkeypatch):
  """`launch.py --mode=list | head`: no traceback, and no line about the pipe."""
  code = ("from medae_jax.core.device import environment\n"
          "with environment.reader_may_leave():\n  print('x' * 100_000)")
  command = subprocess.Popen([sys.executable, "-c", code], cwd=pathlib.Path(cli.__file__).parents[1],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  command.stdout.close()
  assert command.stderr.read() == b"" and command.wait() == 1
  # ... another pipe, to a process that ended, is said
  code = code.replace("print('x' * 100_000)", "raise BrokenPipeError(32, 'Broken pipe')")
  command = subprocess.run([sys.executable, "-c", code], cwd=pathlib.Path(cli.__file__).parents[1],
                           capture_output=True, check=False)
  assert command.returncode == 1 and command.stderr.count(b"\n") == 1 and b"Broken pipe" in command.stderr

  def leave():
    raise BrokenPipeError
  monkeypatch.setattr(listing, "overview", leave)
  with pytest.raises(BrokenPipeError):
    console.call("--mode=list")


def test_an_error_in_a_config_file_is_placed_where_it_was_raised(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text("def inner():\n  return {}['x']\n\n\ndef get_config():\n  return inner()\n")
  spec = importlib.util.spec_from_file_location("mine", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  with pytest.raises(KeyError) as caught:
    module.get_config()
  assert errors.place_in(caught.value, "configs/mine.py") == " (line 2 of mine.py)"  # the innermost
  assert errors.place_in(caught.value, "configs/other.py") == errors.place_in(caught.value, "") == ""


@pytest.mark.parametrize("text, said", [
    ("x = 1\nimport nosuch\n", r"ModuleNotFoundError: No module named 'nosuch' \(line 2 of mine.py\)$"),
    ("def get_config(:", "SyntaxError"), ("config = 1", r"it has no function get_config\(arg\)$")])
def test_what_is_wrong_with_a_config_file_is_said_in_one_line(tmp_path, text, said):
  path = tmp_path / "mine.py"
  path.write_text(text)
  with pytest.raises(UserError, match=f"^config.sweep.config={path}: {said}"):
    places.config_module(str(path), "config.sweep.config=")
  with pytest.raises(UserError, match=f"^{path}: {said}"):
    api.config(str(path))


def test_a_damaged_config_of_a_run_is_named_by_its_file_alone(run):
  """Nobody gave a --config that could be at fault."""
  (run / "config.json").write_text('{"seed": 1, "seed": 2}')
  code, said = console.call("--mode=evaluate", f"--workdir={run}")
  assert code == 2
  assert f"error in the command line: {run / 'config.json'} is damaged (it says 'seed' twice)" in said


@pytest.mark.parametrize("argument", ["", ":", ":vgg=vgg16:random:0", ":root=C:/x:y,demo"])
def test_the_file_of_a_config_ends_at_the_first_colon(argument):
  """What follows is the argument, with colons of its own: drives, trunks, times."""
  given = f"dae_nifti{argument}"
  found = cli._with_config_file(["launch.py", f"--config={given}", "--workdir=a:b"], {"config": given})
  assert found == ["launch.py", f"--config={places.config_file('dae_nifti')}{argument}", "--workdir=a:b"]


@pytest.mark.parametrize("dashes", ["-", "--"])
def test_the_file_of_a_config_is_put_in_behind_one_dash_and_two(dashes):
  found = cli._with_config_file(["launch.py", f"{dashes}config=dae_nifti:demo"], {"config": "dae_nifti:demo"})
  assert found == ["launch.py", f"--config={places.config_file('dae_nifti')}:demo"]
