"""What `--mode=list` prints: read from the files themselves, so that nothing is listed by hand."""

from __future__ import annotations

import ast
import pathlib

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def overview() -> str:
  """Methods, data sets and configs with the first line of their docstrings."""
  parts = []
  for title, folder, needed in (("Methods", "medae_jax/methods", "Method"),
                                ("Data sets", "data_pipelines/datasets", "open"),
                                ("Configs", "configs", "get_config")):
    rows = []
    for path in sorted((_ROOT / folder).glob("*.py")):
      tree = ast.parse(path.read_text(encoding="utf-8"))
      defined = {n.name for n in tree.body if isinstance(n, (ast.ClassDef, ast.FunctionDef))}
      if needed in defined:
        name = f"{folder}/{path.name}" if folder == "configs" else path.stem
        doc = (ast.get_docstring(tree) or "").split("\n")[0]
        rows.append(f"  {name:34s} {doc}")
    parts.append(f"{title}:\n" + "\n".join(rows))
  return "\n\n".join(parts)
