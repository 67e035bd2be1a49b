"""The house plan as tests: who may import whom, what runs without TensorFlow, small files, no paths."""

import ast
from collections import Counter
import functools
import os
import pathlib
import subprocess
import sys

import pytest

from benchmarks import import_graph
from tests import blocked

ROOT = pathlib.Path(__file__).resolve().parents[3]
CODE = [p for folder in ("medae_jax", "data_pipelines", "configs", "benchmarks", "examples", "tests")
        for p in sorted((ROOT / folder).rglob("*.py"))] + [ROOT / "launch.py", ROOT / "setup.py"]
MODES = ("train", "evaluate", "predict", "export", "convert", "bench", "sweep", "report", "serve")
# From below to above: a module imports from rooms of lower rows, and from its own row as NEIGHBOURS says.
MEDAE_JAX = (("core",), ("models", "losses", "scores", "metrics", "optim", "weights", "reporting"),
             ("methods", "tasks"), ("training", "serving"), ("modes", "mode_flags"), ("api", "cli"))
DOMAINS = ("brains", "chest", "marks", "masks", "one_class", "pairs", "slides")
DATA = (("cells", "errors", "machine", "outside", "scored_alone", "tf", "typed"),
        ("claims", "dataset", "fields", "formats", "intake", "modules", "ops", "store", "stream",
         "tf_stream", "when_read", "whole_folder", "workers"),
        DOMAINS, ("datasets",), ("prepare",))
READ_DATA = ("training", "tasks", "modes")
# Lists of what a folder holds: names of modules, nothing of their contents.
LISTING = {("medae_jax.core.method", "medae_jax.methods"),
           ("data_pipelines.dataset", "data_pipelines.datasets")}


@functools.cache
def tree(path) -> ast.Module:
  return ast.parse(path.read_text(encoding="utf-8"))


def room(module):
  """("medae_jax", "core"): the files at the root of medae_jax are its modes, `cli` stands above them."""
  package, _, rest = module.partition(".")
  name = rest.partition(".")[0]
  return package, "modes" if package == "medae_jax" and name in MODES else name


def level(rows, name):
  """Row of a room, and a clear word where the plan does not have it."""
  found = [i for i, row in enumerate(rows) if name in row]
  assert found, f"{name} is no room of the plan: put it into a row of this file, and into the README"
  return found[0]


@pytest.fixture(scope="module")
def edges():
  """(importing module, imported module) of medae_jax, data_pipelines and configs; LISTING left out."""
  graph = import_graph.graph(ROOT)
  return [(a, b) for a in graph for b in sorted(graph[a])
          if (a, b) not in LISTING and room(b)[1] and a != "medae_jax"]


def test_medae_jax_imports_downwards(edges):
  bad = []
  for a, b in edges:
    (package, above), (other, below) = room(a), room(b)
    if package == other == "medae_jax":
      high, low = level(MEDAE_JAX, above), level(MEDAE_JAX, below)
      if low > high or (low == high and above != below and above in ("methods", "tasks")):
        bad.append((a, b))
  assert not bad


def test_modes_training_and_tasks_alone_read_data(edges):
  bad = [(a, b) for a, b in edges
         if room(a)[0] == "medae_jax" and room(b)[0] == "data_pipelines" and room(a)[1] not in READ_DATA]
  assert bad == [("medae_jax.core.device.memory", "data_pipelines.machine"),
                 *(("medae_jax.core.errors", f"data_pipelines.{leaf}") for leaf in ("errors", "outside")),
                 ("medae_jax.core.files", "data_pipelines.cells"),
                 ("medae_jax.core.places", "data_pipelines.typed")]


def test_data_pipelines_import_downwards(edges):
  bad = []
  for a, b in edges:
    (package, above), (other, below) = room(a), room(b)
    if package == other == "data_pipelines":
      high, low = level(DATA, above), level(DATA, below)
      if low > high or (low == high and above != below and above in DOMAINS):
        bad.append((a, b))
  assert not bad


def test_data_pipelines_know_nothing_of_jax():
  packages = ("jax", "flax", "optax", "orbax", "medae_jax")
  bad = []
  for p in sorted((ROOT / "data_pipelines").rglob("*.py")):
    for node in ast.walk(ast.parse(p.read_text(encoding="utf-8"))):
      names = [a.name for a in node.names] if isinstance(node, ast.Import) else [
          node.module or ""] if isinstance(node, ast.ImportFrom) else []
      bad += [(p.name, n) for n in names if n.split(".")[0] in packages]
  assert not bad


def test_no_module_is_in_a_circle():
  assert not import_graph.circles(import_graph.graph(ROOT))


def test_configs_import_fields_alone(edges):
  """... besides their own: of data_pipelines what needs no TensorFlow, of medae_jax the core."""
  bad = [(a, b) for a, b in edges
         if a.startswith("configs") and b.startswith("medae_jax") and room(b)[1] != "core"]
  assert not bad
  assert not [(a, b) for a, b in edges if b.startswith("configs") and not a.startswith("configs")]


def test_only_parallel_names_pmap():
  bad = []
  for p in CODE:
    if p.name == "parallel.py":
      continue
    for node in ast.walk(ast.parse(p.read_text(encoding="utf-8"))):
      if isinstance(node, ast.Attribute) and node.attr in ("pmap", "shard_map"):
        bad.append(str(p.relative_to(ROOT)))
  assert not bad


def test_tensorflow_is_imported_at_one_place():
  """With Keras it takes half as long again (data_pipelines/tf.py). An export to its format has its own."""
  bad = [str(p.relative_to(ROOT)) for p in CODE if not p.is_relative_to(ROOT / "benchmarks")
         for node in ast.walk(tree(p)) if isinstance(node, ast.Import)
         and any(alias.name.partition(".")[0] == "tensorflow" for alias in node.names)]
  assert set(bad) == {"data_pipelines/tf.py", "medae_jax/core/artefact.py"}


@pytest.mark.parametrize("before,legacy,found", [
    ("", "", False), ("import keras", "", True), ("", "1", True)])
def test_tensorflow_comes_without_keras_which_is_found_later(tmp_path, before, legacy, found):
  """Stand-ins of both: this TensorFlow asks for Keras, too, and goes on without."""
  layers = tmp_path / "keras" / "_tf_keras" / "keras"
  layers.mkdir(parents=True)
  for folder in (layers, layers.parent, layers.parent.parent):
    (folder / "__init__.py").write_text("")
  (tmp_path / "tensorflow").mkdir()
  (tmp_path / "tensorflow" / "__init__.py").write_text("""if True:
  try:
    import keras
  except ImportError:
    keras = None
  class config:
    set_visible_devices = staticmethod(lambda *given: print(given))
""")
  script = f"""if True:
  import importlib, sys
  sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]
  {before}
  from data_pipelines.tf import tf
  print(tf.keras is not None, importlib.import_module("keras").__name__)
  {"" if found else "print(importlib.import_module('tensorflow.keras').__file__)"}
"""
  done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True,
                        env={**os.environ, "TF_USE_LEGACY_KERAS": legacy})
  want = ["([], 'GPU')", f"{found} keras", *([] if found else [str(layers / "__init__.py")])]
  assert done.stdout.splitlines() == want, done.stderr


def test_training_steps_scores_and_configs_import_without_tensorflow():
  modules = [m for m in import_graph.modules(ROOT)
             if m.startswith("configs") or (m.startswith("medae_jax.") and room(m)[1] not in READ_DATA)]
  blocked.run_without_tensorflow(
      f"import importlib\nfor m in {modules!r}: importlib.import_module(m)")


def test_folders_and_files_are_small():
  folders = Counter(p.parent.relative_to(ROOT) for p in CODE)
  # configs is no room but the menu of experiments, flat so that a command can name one: a row a method
  assert not {str(folder): n for folder, n in folders.items() if n > (50 if str(folder) == "configs" else 20)}
  assert not {str(p.relative_to(ROOT)): n for p in CODE
              if (n := len(p.read_text(encoding="utf-8").splitlines())) > 300}


def test_names_say_what_a_file_holds():
  assert not [p for p in CODE if p.stem in ("utils", "helpers", "misc")]


def test_every_folder_and_module_says_what_it_is():
  """The __init__ of a folder of code says what lives there; every module has a docstring."""
  bad = [str(p.relative_to(ROOT)) for p in CODE
         if not ast.get_docstring(tree(p))
         and not (p.name == "__init__.py" and p.is_relative_to(ROOT / "tests"))]
  assert not bad
  assert not [str(p.parent.relative_to(ROOT)) for p in CODE
              if p.parent not in (ROOT, ROOT / "examples") and not (p.parent / "__init__.py").is_file()]


def test_no_path_of_a_developers_machine():
  needles = ("/work/", "/root/", "/tmp/", "/home/")
  text = [*CODE, *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "Makefile"]
  bad = [(str(p.relative_to(ROOT)), n) for p in text if p != pathlib.Path(__file__) for n in needles
         if n in p.read_text(encoding="utf-8")]
  assert not bad


def test_list_mode_knows_every_method_and_config():
  from medae_jax.core import method
  from medae_jax.reporting import listing
  text = listing.overview()
  for name in method.names():
    assert f"\n  {name} " in text
  assert "configs/dae_brats.py" in text


def test_import_graph_counts_layers_and_circles():
  graph = {"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"e"}, "e": {"d", "c"}}
  assert import_graph.circles(graph) == [{"d", "e"}]
  assert import_graph.layers(graph) == {"a": 3, "b": 2, "c": 0, "d": 1, "e": 1}


def test_gradients_are_accumulated_and_averaged_over_devices_as_they_are_told():
  """A literal or a keyword left out is right on one device with one slice, and silently wrong elsewhere."""
  bad, seen = [], 0
  for path in sorted((ROOT / "medae_jax" / "methods").rglob("*.py")):
    needed = ("axis_name",) if path.name == "deep_geo.py" else ("accum", "axis_name")  # it refuses accum > 1
    for call in ast.walk(tree(path)):
      if isinstance(call, ast.Call) and ast.unparse(call.func) == "parallel.value_and_grad":
        given = {k.arg: k.value for k in call.keywords}
        fine = None in given or all(k in given and not isinstance(given[k], ast.Constant)
                                    for k in needed)  # None: **options
        seen, bad = seen + 1, bad if fine else [*bad, f"{path.name}:{call.lineno}"]
  assert seen > 7 and not bad


def test_what_is_of_the_global_batch_is_told_the_axis():
  """Statistics of a device's share alone look right on one device. Calls of models and methods."""
  calls = ("by_name", "normalise", "BatchNorm", "normalised", "update_track", "update_stats", "pmean", "psum",
           "all_gather")
  bad, seen = [], 0
  for path in sorted(p for room in ("methods", "models") for p in (ROOT / "medae_jax" / room).rglob("*.py")):
    for call in ast.walk(tree(path)):
      name = ast.unparse(call.func).rpartition(".")[2] if isinstance(call, ast.Call) else ""
      if name in calls and not path.name.startswith(("norm_kernel", "swish_norm")):  # statistics of one image
        named = {k.arg: ast.unparse(k.value) for k in call.keywords}  # None: **norm, which holds it
        fine = None in named or any("axis_name" in g for g in [*map(ast.unparse, call.args),
                                                               named.get("axis_name", "")])
        seen, bad = seen + 1, bad if fine else [*bad, f"{path.name}:{call.lineno}"]
  assert seen > 20 and not bad


def test_an_error_that_is_made_is_raised():
  lost = [f"{path.relative_to(ROOT)}:{n.lineno}" for path in CODE if "tests" not in path.parts
          for n in ast.walk(tree(path)) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Call)
          and ast.unparse(n.value.func).endswith(("Error", "Refused", "Broken", "Problem"))]
  assert not lost
