"""Every command that README, CONTRIBUTING and docs show: config and fields resolve, flags and programs exist.

None is run here: test_run.py runs those of seconds and says why it leaves out each of the others; RUN names a
longer test of each mode of people's first minutes. UNRESOLVED lists what cannot be resolved and why.
"""

import ast
import importlib.util
import re

import pytest

import medae_jax as mx
from tests.contract.cases import ROOT
from tests.documents import commands

# Reasons by what the command contains: templates to fill in, or runs that must be there.
UNRESOLVED = {
    "--config=...": "a template: any config", ":...": "a template: any argument",
    ",...": "a template: more arguments", "vgg=...": "a template: the path of weights",
    "frozen_beside.py:run=": "reads the finished run that it is put beside",
    "mine_config.py": "the file printed on the same page, run by tests/e2e/test_outside.py"}
# Modes in the first commands of README, and a test that runs each of them through the command line.
RUN = {"train": "tests/e2e/test_launch.py::test_train_then_evaluates",
       "evaluate": "tests/e2e/test_launch.py::test_evaluate_again_from_the_workdir_alone",
       "predict": "tests/e2e/test_launch.py::test_predict_on_the_input_grid",
       "export": "tests/e2e/test_launch.py::test_export_bench_and_list",
       "bench": "tests/e2e/test_launch.py::test_export_bench_and_list",
       "serve": "tests/unit/serving/test_serve.py",
       "list": "tests/e2e/test_launch.py::test_export_bench_and_list",
       "weights": "tests/unit/weights/test_known.py"}
LAUNCHER = (["python", "launch.py"], ["medae"], ["medae-jax"])
COMMANDS = {c.text: c for c in commands.all_commands()}.values()
BRACES = re.compile(r"\{([^,{}]*),[^{}]*\}")


def of_launcher(command):
  """The flags of a call of the launcher, {name: value}; None for other programs."""
  words = command.words()
  for start in LAUNCHER:
    if words[:len(start)] == start:
      flags = [BRACES.sub(r"\1", w).removeprefix("--").partition("=") for w in words[len(start):]]
      return {name: value for name, _, value in flags}
  return None


LAUNCHES = [c for c in COMMANDS if of_launcher(c)]
PROGRAMS = [c for c in COMMANDS if of_launcher(c) is None and c.words()[:2] == ["python", "-m"]]
OTHERS = [c for c in COMMANDS if of_launcher(c) is None and c not in PROGRAMS]
ids = lambda c: f"{c.page}:{c.line}"


def literal(text):
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


@pytest.mark.parametrize("command", LAUNCHES, ids=ids)
def test_a_launch_resolves(command):
  from medae_jax import cli
  flags = of_launcher(command)
  fields = {name.removeprefix("config."): literal(value) for name, value in flags.items()
            if name.startswith("config.")}
  unknown = {n for n in flags if not n.startswith("config.")} - {
      "config", "mode", "workdir", "input", "output", "formats", "full_size", "allow_code", "help", "version"}
  assert not unknown
  mode = flags.get("mode", "train")
  assert mode in cli._MODES
  if "config" in flags and not [w for w in UNRESOLVED if w in command.text]:
    mx.config(flags["config"], fields)
  elif fields and "config" not in flags:  # of a run's config.json
    mx.config("dae_nifti", fields)


def _sources(module):
  """Text of the program and of what it imports from its own package."""
  spec = importlib.util.find_spec(module)
  assert spec is not None, module
  path = ROOT / (spec.origin or "")
  assert path.is_file(), module
  files = list(path.parent.glob("*.py")) if path.name == "__init__.py" else [path]
  text = "\n".join(f.read_text(encoding="utf-8") for f in files)
  for package, name in re.findall(r"from (\w+(?:\.\w+)*) import (\w+)", text):
    below = ROOT / package.replace(".", "/") / f"{name}.py"
    if package.split(".")[0] == module.split(".")[0] and below.is_file():
      text += below.read_text(encoding="utf-8")
  return text


@pytest.mark.parametrize("command", PROGRAMS, ids=ids)
def test_a_program_exists_and_has_the_flags(command):
  _, _, module, *rest = command.words()
  if module == "pytest":
    assert all((ROOT / w.partition("::")[0]).exists() for w in rest if w.startswith("tests"))
    return
  text = _sources(module)
  if module == "data_pipelines.prepare" and rest and not rest[0].startswith("-"):
    text += (ROOT / f"data_pipelines/prepare/{rest[0]}.py").read_text(encoding="utf-8")
  for word in rest:
    name = word.strip("[]").removeprefix("--").partition("=")[0]
    if word.strip("[]").startswith("--") and "Runner" not in command.text:  # flags of runners are Beam's
      assert re.search(rf"\b{name}\b", text), f"{module} has no --{name}"


@pytest.mark.parametrize("command", OTHERS, ids=ids)
def test_make_pip_and_files(command):
  program, *rest = command.words()
  if program == "make":
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert rest[0] in targets
  elif program == "pip":
    extras = re.findall(r'^ {8}"(\w+)":', (ROOT / "setup.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert all(e in extras for w in rest for e in re.findall(r"medae-jax\[(\w+)\]", w))
  elif program == "python":  # a file of an export
    assert (ROOT / "examples" / rest[0].rpartition("/")[2]).is_file()
  else:
    assert program in ("tensorboard", "pytest")
    assert all((ROOT / w.partition("::")[0]).exists() for w in rest if w.startswith("tests"))


def test_first_commands_of_the_readme_are_run():
  readme = [c for c in COMMANDS if c.page == "README.md" and of_launcher(c)]
  assert {of_launcher(c).get("mode", "train") for c in readme} <= set(RUN)
  for node in RUN.values():
    file, _, name = node.partition("::")
    assert f"def {name}" in (ROOT / file).read_text(encoding="utf-8")


def test_every_reason_is_of_a_command():
  text = "\n".join(c.text for c in COMMANDS)
  assert not [word for word in UNRESOLVED if word not in text]
