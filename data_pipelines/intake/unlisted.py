"""Images that lie below a data folder and that its table does not list: said, never used."""

from __future__ import annotations

from collections.abc import Collection
import logging
import pathlib
import posixpath

from data_pipelines.intake import find
from data_pipelines.intake.counts import shown


def say(table_path, root: pathlib.Path, listed: Collection[str], kinds: Collection[str],
        elsewhere: Collection[str] = ()) -> int:
  """Logs how many files of some kinds below the data folder are not listed; returns the number.

  Args:
    root: the data folder. listed: paths below it, as `Row.file` gives them.
    kinds: as of `find.find`.
    elsewhere: first folders, in lower case, whose files are found otherwise than by the table: masks.
  """
  known = {posixpath.normpath(posixpath.join(root.as_posix(), name)) for name in listed}  # or absolute ones
  below = [(p, p.relative_to(root)) for p in find.find(root, kinds).files]
  rest = [p for p, name in below if posixpath.normpath(p.as_posix()) not in known and not (
      name.parts[1:] and name.parts[0].lower() in elsewhere)]
  if rest:
    logging.warning("%s does not list %d images below %s, the first %s: they are not used", table_path,
                    len(rest), root, shown(rest[0], root))
  return len(rest)
