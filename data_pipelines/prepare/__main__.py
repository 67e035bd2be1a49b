"""python -m data_pipelines.prepare NAME --help; NAME is a program of this folder."""

from __future__ import annotations

import importlib
import pkgutil
import sys

from data_pipelines import prepare


def programs() -> dict[str, str]:
  """{name: first line of its docstring}."""
  names = sorted(m.name for m in pkgutil.iter_modules(prepare.__path__) if m.name[0] != "_")
  return {n: importlib.import_module(f"{prepare.__name__}.{n}").__doc__.split("\n")[0] for n in names}


def main(argv: list[str]) -> None:
  """Runs the program that argv[0] names; without a name, or with a wrong one, lists them."""
  known = programs()
  if not argv or argv[0] not in known:
    lines = "\n".join(f"  {name:12s} {line}" for name, line in known.items())
    usage = f"usage: python -m {prepare.__name__} NAME --help\n{lines}"
    if argv and argv[0] in ("-h", "--help"):
      print(usage)
      return
    sys.exit(usage if not argv else f"error: there is no program {argv[0]!r}\n{usage}")
  module = importlib.import_module(f"{prepare.__name__}.{argv[0]}")
  prepare.program(module.main, argv[1:])


if __name__ == "__main__":
  main(sys.argv[1:])
