"""comparison.html and comparison.csv over several workdirs."""

from __future__ import annotations

from collections.abc import Sequence
import os
import pathlib

from absl import logging

from medae_jax.core import files
from medae_jax.metrics import dictionary
from medae_jax.reporting import page as pages
from medae_jax.reporting.comparison import paired

MOST = 12  # runs; 66 pairs are more than anybody reads


def write(folders: Sequence[str | os.PathLike], output: pathlib.Path) -> pathlib.Path | None:
  """Compares the runs that lie in `folders` (each a workdir) on their common test cases.

  Returns:
    The page; None where fewer than two of them are evaluated runs with a case in common, or more than MOST.
  """
  workdirs = list(dict.fromkeys(pathlib.Path(f) for f in folders
                                if (pathlib.Path(f) / "evaluation" / "test.json").is_file()))
  if not 2 <= len(workdirs) <= MOST:
    if len(workdirs) > MOST:
      logging.info("No pairs are compared: %d runs are more than %d.", len(workdirs), MOST)
    return None
  names = _names(workdirs)
  runs = [paired.read(folder, name) for folder, name in zip(workdirs, names)]
  measures = paired.compare(runs)
  if not measures:
    logging.info("No pairs are compared: %s have no cases in common.", ", ".join(names))
    return None
  files.write_csv(output / "comparison.csv", paired.rows(measures))
  page = pages.render(
      "comparison.html", title="medae_jax comparison of runs", runs=runs, measures=measures,
      synthetic=any(r.synthetic for r in runs), metric=dictionary.metric, pairs=len(measures[0].pairs),
      resamples=paired.RESAMPLES,
      links=[os.path.relpath(w / "report.html", output) if (w / "report.html").is_file() else ""
             for w in workdirs])
  path = files.write_bytes(output / "comparison.html", page)
  logging.info("Comparison of %d runs on common cases: %s", len(runs), path)
  return path


def _names(workdirs) -> list[str]:
  """Names of the folders, with as many parents as it takes to tell them apart."""
  parts = [w.resolve().parts for w in workdirs]
  depth = next((d for d in range(1, 20) if len({p[-d:] for p in parts}) == len(parts)), 20)
  return ["/".join(p[-depth:]) for p in parts]
