"""docs/api_reference.md: signatures and docstrings of the names that stay."""

from __future__ import annotations

import inspect
import re

from medae_jax import api
from medae_jax.reporting import results

HEAD = """# API reference

Made from the docstrings by `python -m tests.documents.write`; a test keeps it up to date.
By example: [api.md](api.md).
"""
NAMES = {api: ("config", "train", "load", "Run"), results: ("Score", "Evaluation", "Predictions")}


def _doc(thing, call: str = "") -> str:
  first = f"{call}\n\n" if call else ""
  return f"```text\n{first}{(inspect.getdoc(thing) or '').strip()}\n```"


def _signature(thing) -> str:
  text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(thing)))  # annotations are strings
  return text.replace("(self, ", "(").replace("(self)", "()")


def _members(cls):
  for name, member in vars(cls).items():
    called = inspect.isfunction(member) or isinstance(member, property)
    if called and not name.startswith("_") and member.__doc__:
      yield name, member


def page() -> str:
  """The text of docs/api_reference.md."""
  parts = [HEAD]
  for module, names in NAMES.items():
    for name in names:
      thing = getattr(module, name)
      where = "mx." if module is api else ""
      if inspect.isclass(thing):
        parts.append(f"## `{where}{name}`\n\n{_doc(thing)}")
        for member, method in _members(thing):
          call = f"{member}{_signature(method)}" if inspect.isfunction(method) else ""
          parts.append(f"### `{name}.{member}`\n\n{_doc(method, call)}")
      else:
        parts.append(f"## `{where}{name}`\n\n{_doc(thing, f'{where}{name}{_signature(thing)}')}")
  return "\n\n".join(parts) + "\n"
