"""The import graph of a clone in numbers: modules a room, layers, edges, cycles.

  python -m benchmarks.import_graph [--root=FOLDER] [--edges]

Prints Markdown for docs/house.md. A room is a folder of medae_jax, data_pipelines or configs; the
files at the root of a package are a room as well. An edge is "module A imports module B" of these
three packages, at any depth of the file. Layer 0 imports nothing of them; a module stands one layer
above the highest that it imports (modules that import each other in a circle stand together).
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter
from collections.abc import Iterable, Mapping
import pathlib

PACKAGES = ("medae_jax", "data_pipelines", "configs")
ROOT = pathlib.Path(__file__).resolve().parents[1]
Graph = dict[str, set[str]]


def modules(root: pathlib.Path, packages: Iterable[str] = PACKAGES) -> dict[str, pathlib.Path]:
  """{dotted name: file}; a package's name stands for its __init__."""
  return {".".join(p.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): p
          for package in packages for p in sorted((root / package).rglob("*.py"))}


def imported(path: pathlib.Path, known: Iterable[str]) -> set[str]:
  """Which of the modules `known` a file imports, by absolute imports at any depth."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import):
      found |= {a.name for a in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
      found |= {child if (child := f"{node.module}.{a.name}") in known else node.module
                for a in node.names}
  return found & set(known)


def graph(root: pathlib.Path, packages: Iterable[str] = PACKAGES) -> Graph:
  """{module: modules that it imports}."""
  files = modules(root, packages)
  return {name: imported(path, files) - {name} for name, path in files.items()}


def room(module: str, files: Mapping[str, pathlib.Path]) -> str:
  """Folder of a module, "medae_jax/core"."""
  parts = module.split(".")
  return "/".join(parts if files[module].name == "__init__.py" else parts[:-1])


def circles(edges: Graph) -> list[set[str]]:
  """Sets of modules that reach each other (Tarjan 1972), those of one module left out."""
  order: dict[str, int] = {}
  low: dict[str, int] = {}
  stack: list[str] = []
  found = []

  def visit(node):
    order[node] = low[node] = len(order)
    stack.append(node)
    for other in edges[node]:
      if other not in order:
        visit(other)
        low[node] = min(low[node], low[other])
      elif other in stack:
        low[node] = min(low[node], order[other])
    if low[node] == order[node]:
      group = set()
      while node not in group:
        group.add(stack.pop())
      if len(group) > 1:
        found.append(group)

  for node in edges:
    if node not in order:
      visit(node)
  return found


def layers(edges: Graph) -> dict[str, int]:
  """{module: its layer}."""
  together = {m: frozenset(group) for group in circles(edges) for m in group}
  done: dict[frozenset, int] = {}

  def layer(node):
    group = together.get(node, frozenset((node,)))
    if group not in done:
      below = set().union(*(edges[m] for m in group)) - group
      done[group] = 1 + max((layer(m) for m in below), default=-1)
    return done[group]
  return {node: layer(node) for node in edges}


def report(root: pathlib.Path, with_edges: bool = False) -> str:
  """Two Markdown tables (rooms; totals), and with `with_edges` one of edges between rooms."""
  files, edges = modules(root), graph(root)
  heights = layers(edges)
  place = {m: room(m, files) for m in files}
  lines = {m: len(p.read_text(encoding="utf-8").splitlines()) for m, p in files.items()}
  pairs = Counter((place[a], place[b]) for a in edges for b in edges[a] if place[a] != place[b])
  rows = ["| room | modules | lines | longest file | layers | edges out | edges in |",
          "|---|---|---|---|---|---|---|"]
  for name in sorted(set(place.values())):
    own = [m for m in files if place[m] == name]
    span = sorted({heights[m] for m in own})
    rows.append(f"| {name} | {len(own)} | {sum(lines[m] for m in own):,} | "
                f"{max(lines[m] for m in own)} | {span[0]} to {span[-1]} | "
                f"{sum(n for (a, _), n in pairs.items() if a == name)} | "
                f"{sum(n for (_, b), n in pairs.items() if b == name)} |")
  total = sum(map(len, edges.values()))
  inner = total - sum(pairs.values())
  rows += ["", "| whole | |", "|---|---|", f"| modules | {len(files)} |",
           f"| rooms | {len(set(place.values()))} |",
           f"| largest room | {max(Counter(place.values()).values())} modules |",
           f"| files over 300 lines | {sum(n > 300 for n in lines.values())} |",
           f"| edges | {total} ({inner} inside a room, {total - inner} between {len(pairs)} pairs) |",
           f"| layers | {1 + max(heights.values())} |",
           f"| modules in circles | {sum(map(len, circles(edges)))} |"]
  if with_edges:
    rows += ["", "| from | to | edges |", "|---|---|---|"]
    rows += [f"| {a} | {b} | {n} |" for (a, b), n in sorted(pairs.items())]
  return "\n".join(rows)


def main():
  parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
  parser.add_argument("--root", type=pathlib.Path, default=ROOT, help="a clone; default: this one")
  parser.add_argument("--edges", action="store_true", help="also the edges between rooms")
  args = parser.parse_args()
  print(report(args.root, args.edges))


if __name__ == "__main__":
  main()
