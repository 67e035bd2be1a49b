"""Images that lie below a data folder and that its table does not list: said, never used."""

from __future__ import annotations

from collections.abc import Collection
import logging
import pathlib
import posixpath

from data_pipelines.intake import find
from data_pipelines.intake.counts import shown


def say(table_path, root: pathlib.Path, listed: Collection[str], kinds: Collection[str]) -> int:
  """Logs how many files of some kinds below the data folder are not listed; returns the number.

  Args:
    root: the data folder. listed: paths below it, as `Row.file` gives them.
    kinds: as of `find.find`.
  """
  known = {posixpath.normpath(name) for name in listed}
  rest = [p for p in find.find(root, kinds).files if p.relative_to(root).as_posix() not in known]
  if rest:
    logging.warning("%s does not list %d images below %s, the first %s: they are not used", table_path,
                    len(rest), root, shown(rest[0], root))
  return len(rest)
