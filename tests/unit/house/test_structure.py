"""The house plan as tests: who may import whom, what runs without TensorFlow, small files, no paths."""

import ast
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
CODE = [p for folder in ("medae_jax", "data_pipelines", "configs", "benchmarks", "examples")
        for p in sorted((ROOT / folder).rglob("*.py"))] + [ROOT / "launch.py"]
# may read data; stage_pictures: what training draws at the end of a stage
ENTRIES = ("train", "evaluate", "predict", "report", "validate", "feed", "sweep", "vectorised",
           "bench", "stage_pictures")


def imports(path):
  """Modules that a file imports, at any depth, as (dotted name, at the top of the file)."""
  tree = ast.parse(path.read_text(encoding="utf-8"))
  found = []
  for node in ast.walk(tree):
    top = node in tree.body
    if isinstance(node, ast.Import):
      found += [(a.name, top) for a in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
      found += [(f"{node.module}.{a.name}", top) for a in node.names]
  return found


def room(path):
  return path.relative_to(ROOT).parts


def test_data_pipelines_know_nothing_of_jax():
  bad = [(p.name, m) for p in CODE if room(p)[0] == "data_pipelines" for m, _ in imports(p)
         if m.split(".")[0] in ("jax", "flax", "optax", "orbax", "medae_jax")]
  assert not bad


def test_methods_models_and_core_read_no_data_and_no_loop():
  bad = []
  for p in CODE:
    parts = room(p)
    if parts[0] != "medae_jax" or p.stem.startswith(ENTRIES) or parts[1] in ("predictors", "evaluators"):
      continue
    for m, _ in imports(p):
      if m.startswith(("data_pipelines", "configs", "medae_jax.train", "medae_jax.evaluate",
                       "medae_jax.predict", "medae_jax.validate")) and p.stem not in ("export",
                                                                                     "convert"):
        bad.append(("/".join(parts), m))
  assert not bad


def test_core_and_models_stand_below_methods():
  bad = []
  for p in CODE:
    parts = room(p)
    if parts[:2] in (("medae_jax", "core"), ("medae_jax", "models")):
      allowed = ("medae_jax.core",) if parts[1] == "core" else ("medae_jax.core", "medae_jax.models")
      bad += [("/".join(parts), m) for m, top in imports(p)
              if top and m.startswith("medae_jax.") and not m.startswith(allowed)]
  assert not bad


def test_only_parallel_names_pmap():
  bad = []
  for p in CODE:
    if p.name == "parallel.py":
      continue
    for node in ast.walk(ast.parse(p.read_text(encoding="utf-8"))):
      if isinstance(node, ast.Attribute) and node.attr in ("pmap", "shard_map"):
        bad.append(str(p.relative_to(ROOT)))
  assert not bad


def test_training_steps_and_scores_import_without_tensorflow():
  modules = ["medae_jax." + ".".join(p.relative_to(ROOT / "medae_jax").with_suffix("").parts)
             for p in CODE if room(p)[0] == "medae_jax" and p.stem != "__init__" and not p.stem.startswith(ENTRIES)
             and room(p)[1] not in ("predictors", "evaluators")]
  script = ("import sys, importlib\n"
            "class Block:\n"
            "  def find_spec(self, name, path=None, target=None):\n"
            "    if name.split('.')[0] in ('tensorflow', 'tensorflow_datasets'):\n"
            "      raise ImportError('blocked: ' + name)\n"
            "sys.meta_path.insert(0, Block())\n"
            f"for m in {modules!r}: importlib.import_module(m)\n"
            "print('fine')")
  done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True,
                        timeout=300)
  assert done.stdout.strip().endswith("fine"), done.stderr[-1500:]


def test_files_are_small_and_named_for_what_they_hold():
  long = {str(p.relative_to(ROOT)): n for p in CODE
          if (n := len(p.read_text(encoding="utf-8").splitlines())) > 400}
  assert not long
  assert not [p for p in CODE if p.stem in ("utils", "helpers", "misc")]


def test_every_module_says_what_it_is():
  assert not [str(p.relative_to(ROOT)) for p in CODE
              if p.stat().st_size and not ast.get_docstring(ast.parse(p.read_text("utf-8")))]


def test_no_path_of_a_developers_machine():
  needles = ("/work/", "/root/", "/tmp/", "/home/")
  text = [*CODE, *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "Makefile"]
  bad = [(str(p.relative_to(ROOT)), n) for p in text if p.exists() for n in needles
         if n in p.read_text(encoding="utf-8")]
  assert not bad


def test_list_mode_knows_every_method_and_config():
  from medae_jax.core import listing, method
  text = listing.overview()
  for name in method.names():
    assert f"\n  {name} " in text
  assert "configs/dae_brats.py" in text
