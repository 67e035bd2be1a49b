"""Rows of pictures of an evaluation on the disk: evaluation/pictures/<split>.json and <split>/*.png.

A row is a dict: "part" of the page, "title", "facts" [str], "verdict", "sides" (letters at the left and the
right edge, or []), "cells" [{"head": str, "picture": uint8 [H,W,3]}]; on the disk "file" is in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import shutil
from typing import Any

import numpy as np

from medae_jax.core import files

FOLDER = "pictures"
REMEDY = "run --mode=evaluate again, or delete it"


def write(evaluation: pathlib.Path, split: str, rows: Sequence[dict[str, Any]]) -> None:
  """Replaces the pictures of a split; the list comes last."""
  folder = evaluation / FOLDER / split
  index = folder.with_suffix(".json")
  index.unlink(missing_ok=True)
  shutil.rmtree(folder, ignore_errors=True)
  listed = []
  for i, row in enumerate(rows):
    cells = []
    for k, cell in enumerate(row["cells"]):
      picture = np.asarray(cell["picture"])
      if picture.ndim == 3 and (picture == picture[..., :1]).all():
        picture = picture[..., 0]  # a grey file is a third as large
      path = files.write_png(folder / f"{i:03d}_{k}.png", picture)
      cells.append({"head": cell["head"], "file": f"{split}/{path.name}", "height": picture.shape[0],
                    "width": picture.shape[1]})
    listed.append({**row, "cells": cells})
  if listed:
    files.write_json(index, {"rows": listed})


def read(evaluation: pathlib.Path, split: str) -> list[dict[str, Any]]:
  """The rows of a split with "data" (bytes of the PNG) in each cell; [] where there are none.

  Raises:
    UserError: the list is damaged.
  """
  index = evaluation / FOLDER / f"{split}.json"
  if not index.is_file():
    return []
  rows = files.read_json(index, REMEDY).get("rows")
  found = []
  for row in rows if isinstance(rows, list) else []:
    cells = []
    for cell in row.get("cells", []):
      path = evaluation / FOLDER / split / pathlib.PurePosixPath(str(cell.get("file", ""))).name
      if path.is_file():
        cells.append({"height": 0, "width": 0, **cell, "data": path.read_bytes()})
    found.append({"part": "panel", "title": "", "facts": [], "verdict": "", "sides": [], **row,
                  "cells": cells})
  return found
