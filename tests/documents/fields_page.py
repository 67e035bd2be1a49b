"""docs/config_fields.md: every field with its default and its comment, read from the files that define it."""

from __future__ import annotations

import ast
import importlib
import io
import pathlib
import re
import tokenize

import ml_collections

from tests.contract.cases import ROOT

HEAD = """# What config fields mean

Made from the code by `python -m tests.documents.write`; a test keeps it up to date. A field is set with
`--config.GROUP.FIELD=VALUE`, in Python with `mx.config(NAME, **{"GROUP.FIELD": VALUE})`; a misspelt one, or
a value of another type, stops before anything runs. What a *run* holds is in its `config.json`. Fields of a
method's `model`, `optim` and `method` are explained where its config sets them, in `configs/` and
`configs/fields/`; the page of each method has the important ones.
"""


def comments(path: pathlib.Path) -> dict[int, str]:
  """{line: comment} with the lines that go on with a comment alone."""
  text, found, alone = path.read_text(encoding="utf-8"), {}, {}
  for token in tokenize.generate_tokens(io.StringIO(text).readline):
    if token.type == tokenize.COMMENT:
      first = not token.line[:token.start[1]].strip()
      (alone if first else found)[token.start[0]] = token.string.lstrip("# ").strip()
  for line in sorted(found):
    after = line + 1
    while after in alone:
      found[line] += " " + alone[after]
      after += 1
  return found


def assigned(path: pathlib.Path) -> dict[str, str]:
  """{dotted or bare field: comment} of `name.field = value  # comment` and `dict(field=value,  # comment`."""
  said, found = comments(path), {}
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Assign):
      for target in node.targets:
        if isinstance(target, ast.Attribute):
          found[ast.unparse(target)] = said.get(node.end_lineno, said.get(node.lineno, ""))
    elif isinstance(node, ast.keyword) and node.arg and not isinstance(node.value, ast.Call):
      found.setdefault(node.arg, said.get(node.value.end_lineno, ""))
  return found


def _rows(config, said, prefix="", owners=("",)):
  order = {key: i for i, key in enumerate(said)}  # as the files have them
  place = lambda name: min(order.get(key, len(order)) for key in (*(f"{o}.{name}" for o in owners), name))
  for name, value in sorted(config.items(), key=lambda item: place(item[0])):
    if isinstance(value, (dict, ml_collections.ConfigDict)):
      yield from _rows(value, said, f"{prefix}{name}.", owners)
      continue
    text = next((said[key] for key in (*(f"{o}.{name}" for o in owners), name) if key in said), "")
    shown = repr(value).replace("|", "\\|")
    yield f"| `{prefix}{name}` | `{shown}` | {text.replace('|', chr(92) + '|')} |"


def _table(config, said, prefix="", owners=("",)):
  return "\n".join(["| field | default | |", "|---|---|---|", *_rows(config, said, prefix, owners)])


def page() -> str:
  """The text of docs/config_fields.md."""
  from configs import common
  said = assigned(ROOT / "configs/common.py")
  parts = [HEAD]
  base = common.base()
  shared = assigned(ROOT / "medae_jax/core/fields.py")
  for group in ("train", "eval", "predict", "parallel", "export", "bench"):
    owners = {"eval": ("evaluation",)}.get(group, (group,))
    own = {"eval": "anomaly", "predict": "anomaly"}.get(group)
    more = assigned(ROOT / f"medae_jax/tasks/{own}/fields.py") if own else {}
    table = _table(base[group], {**shared, **more, **said}, f"{group}.", owners)
    parts.append(f"## config.{group}\n\n{table}")
  for task in ("restoration", "segmentation"):
    module = importlib.import_module(f"medae_jax.tasks.{task}.fields")
    more = assigned(ROOT / f"medae_jax/tasks/{task}/fields.py")
    table = _table({"eval": module.EVAL, "predict": module.PREDICT}, {**shared, **more})
    parts.append(f"## Of the task {task}\n\n{table}")
  parts.append("## Scores of reconstructions: config.method.score\n\n" + _table(
      importlib.import_module("medae_jax.core.fields").RECON_SCORE, shared, "method.score."))
  for path in sorted((ROOT / "data_pipelines/datasets").glob("*.py")):
    module = importlib.import_module(f"data_pipelines.datasets.{path.stem}")
    if hasattr(module, "defaults"):
      parts.append(_data_set(path, module))
  return "\n\n".join(parts) + "\n"


def _data_set(path, module):
  said = assigned(ROOT / "data_pipelines/fields.py")
  for other in re.findall(r"from data_pipelines\.(\w+) import (\w+)", path.read_text(encoding="utf-8")):
    shared = ROOT / "data_pipelines" / other[0] / f"{other[1]}.py"
    if shared.is_file():
      said.update(assigned(shared))
  said.update(assigned(path))
  said = {**{k.rpartition(".")[2]: v for k, v in said.items() if v}, **{k: v for k, v in said.items() if v}}
  first = (module.__doc__ or "").split("\n")[0]
  return f"## config.data of `{path.stem}`\n\n{first}\n\n" + _table(module.defaults(), said, "data.")
