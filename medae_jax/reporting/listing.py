"""What `--mode=list` prints: read from the files themselves, so that nothing is listed by hand."""

from __future__ import annotations

import ast

from medae_jax.core import places


def _arguments(tree: ast.Module) -> str:
  """The words that may stand after the colon of a config, or the name of the config that reads them."""
  words = _words(tree)
  for name in () if words else _imports(tree):
    file = places.folder("configs") / f"{name}.py"
    words = _words(ast.parse(file.read_text(encoding="utf-8"))) if file.is_file() and name != "common" else ""
    if words and "/" not in name:  # fields/ are no configs: their words are this one's
      words = f"the arguments of configs/{name}.py"
    if words:
      break
  return words and f"\n{'':37s}{words}"


def _words(tree: ast.Module) -> str:
  """":demo run=...", of the calls of common.parse_arg in a file; "" where it has none."""
  calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)
           and isinstance(n.func, ast.Attribute) and n.func.attr == "parse_arg"]
  words = dict.fromkeys(k.arg if _is_flag(k.value) else f"{k.arg}=..."
                        for c in calls for k in c.keywords if k.arg)
  return ":" + " ".join(words) if words else ""


def _imports(tree: ast.Module):
  """Files of configs/ that a config imports, without the ending: "deep_geo_cifar10", "fields/deep_if"."""
  for node in tree.body:
    if isinstance(node, ast.ImportFrom) and node.module:
      package, *below = node.module.removeprefix("medae_jax.").split(".")
      if package == "configs":
        whole = below and below != ["fields"]
        yield from ["/".join(below)] if whole else ["/".join([*below, a.name]) for a in node.names]


def _is_flag(value: ast.expr) -> bool:
  return isinstance(value, ast.Constant) and isinstance(value.value, bool)


def overview() -> str:
  """Methods, data sets and configs with the first line of their docstrings."""
  parts = []
  for title, folder, needed in (
      ("Methods", places.PACKAGE / "methods", "Method"),
      ("Data sets", places.folder("data_pipelines") / "datasets", "build"),
      ("Configs", places.folder("configs"), "get_config")):
    rows = []
    for path in sorted(folder.rglob("*.py"), key=lambda p: p.name):  # families have folders of their own
      tree = ast.parse(path.read_text(encoding="utf-8"))
      defined = {n.name for n in tree.body if isinstance(n, (ast.ClassDef, ast.FunctionDef))}
      if needed in defined and path.stem != "from_workdir":  # that one is no experiment
        name = f"configs/{path.name}" if title == "Configs" else path.stem
        doc = (ast.get_docstring(tree) or "").split("\n")[0]
        rows.append(f"  {name:34s} {doc}{_arguments(tree)}")
    parts.append(f"{title}:\n" + "\n".join(rows))
  return "\n\n".join(parts)
