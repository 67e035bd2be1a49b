"""The preparation of an export: the modules of data_pipelines that predict runs, copied as they are.

They need no JAX and load no TensorFlow while they read and prepare a file; requirements.txt beside them
names every package that one of them imports at its top.
"""

from __future__ import annotations

import ast
import pathlib
import re
import shutil
import sys

from medae_jax.core import places

FOLDER = "preparation"
# A wheel keeps the package inside medae_jax (setup.py); beside run_onnx.py it stands alone.
_INSIDE = re.compile(r"^([ \t]*(?:from|import)[ \t]+)medae_jax\.(data_pipelines)", re.MULTILINE)
_VOLUMES = ("brains.inputs", "brains.normalise", "formats.images")
_PIP = {"PIL": "pillow", "ml_collections": "ml-collections", "sklearn": "scikit-learn"}
_OWN = ("data_pipelines", "medae_jax")


def write(folder: pathlib.Path, data: str, volumes: bool) -> list[str]:
  """Copies the modules, run_onnx.py and requirements.txt into the folder of an export.

  Args:
    data: config.data.name. volumes: the data set has modalities: scans, not single images.

  Returns:
    The requirements.
  """
  root = places.folder("data_pipelines")
  starts = _VOLUMES if volumes else ("brains.inputs", "formats.images", "dataset", f"datasets.{data}")
  needed: set[str] = set()
  for name in sorted(closure(root, starts)):
    source = _file(root, name)
    target = folder / FOLDER / "data_pipelines" / source.relative_to(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    text = _INSIDE.sub(r"\1\2", source.read_text(encoding="utf-8"))
    target.write_text(text, encoding="utf-8")
    needed |= _outside(text)
  for package in {p.parent for p in (folder / FOLDER).rglob("*.py")}:
    (package / "__init__.py").touch()
  runner = (places.folder("examples") / "run_onnx.py").read_text(encoding="utf-8")
  (folder / "run_onnx.py").write_text(_INSIDE.sub(r"\1\2", runner), encoding="utf-8")
  shutil.copymode(__file__, folder / "run_onnx.py")
  names = sorted({_PIP.get(n, n) for n in needed | {"numpy", "onnxruntime", "nibabel", "pydicom", "PIL"}})
  (folder / "requirements.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
  return names


def closure(root: pathlib.Path, starts) -> set[str]:
  """Names below data_pipelines of the modules that `starts` import, directly or not."""
  found: set[str] = set()
  todo = list(starts)
  while todo:
    name = todo.pop()
    if name in found:
      continue
    found.add(name)
    todo += _imports(root, name)
  return found


def _file(root, name) -> pathlib.Path:
  path = root.joinpath(*name.split("."))
  return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imports(root, name) -> list[str]:
  """Modules of data_pipelines that one of them imports anywhere in it, packages on the way included."""
  known = []
  for node in ast.walk(ast.parse(_file(root, name).read_text(encoding="utf-8"))):
    if isinstance(node, ast.ImportFrom) and node.module:
      parts = node.module.removeprefix("medae_jax.").split(".")
      if parts[0] == "data_pipelines":
        base = ".".join(parts[1:])
        known += [f"{base}.{a.name}".lstrip(".") for a in node.names] + ([base] if base else [])
  return [k for k in known if k and _file(root, k).is_file()]


def _outside(text: str) -> set[str]:
  """Packages that a module imports when it is imported: not those inside its functions."""
  names: set[str] = set()
  for node in ast.parse(text).body:
    if isinstance(node, ast.Import):
      names |= {a.name.split(".")[0] for a in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
      names.add(node.module.split(".")[0])
  return names - set(sys.stdlib_module_names) - set(_OWN)
