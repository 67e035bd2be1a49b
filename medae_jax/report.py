"""One self-contained HTML page from what evaluate and train wrote; it needs no other file.

`report` is --mode=report: the page of one run, or the benchmark over a sweep or several folders.
"""

from __future__ import annotations

import pathlib

from medae_jax.core import config as config_lib, places
from medae_jax.core.errors import UserError
from medae_jax.reporting.benchmark import page as benchmark_page
from medae_jax.reporting.comparison import page as comparison_page
from medae_jax.reporting.run.page import write

__all__ = ["report", "write"]
_FILES = ("benchmark.html", "benchmark.md", "runs.csv", "cells.csv", "table.csv", "critical_difference.svg",
          "comparison.html", "comparison.csv")


def _check_others(place: pathlib.Path) -> None:
  """Refuses a folder with files of these names that no report has written."""
  there = [name for name in _FILES if (place / name).exists()]
  if there and _FILES[0] not in there:
    raise UserError(f"{place / there[0]} is there, and no report has written it: choose another --output")


def report(workdir, others: str = "", output=None) -> pathlib.Path:
  """The page of a run, or, where `workdir` is a sweep or holds several runs, the benchmark.

  Args:
    workdir: of a run, a sweep, or a folder with any number of them below.
    others: further folders, with commas between them: they make a benchmark of a single run, too.
    output: folder of the benchmark's files; default <workdir>/benchmark. Runs with common test cases are
      compared there as well, in comparison.html.

  Returns:
    The HTML page.

  Raises:
    FileNotFoundError: a folder is not there, or none holds an evaluated run. UserError: a damaged file.
  """
  workdir, folders = pathlib.Path(workdir), [places.home(f.strip()) for f in others.split(",") if f.strip()]
  alone = (workdir / "config.json").is_file() and not (workdir / config_lib.SWEEP).is_file()
  if alone and not folders and not output:
    return write(workdir)
  place = pathlib.Path(output or workdir / "benchmark")
  places.check_folder(place, "--output")
  if output:
    _check_others(place)
  below = [p.parent for f in [workdir, *map(pathlib.Path, folders)] for p in sorted(f.glob("*/config.json"))
           if not (f / config_lib.SWEEP).is_file()]
  compared = comparison_page.write([workdir, *folders, *below], place)
  return benchmark_page.write([workdir, *folders], place, compared)
