"""predictions.html: one page for a folder of predicted scans, beside predictions.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import Any

from medae_jax.core import files
from medae_jax.reporting import page as pages, provenance

FILE = "predictions.html"
HEAD = b"<!doctype html>\n<!-- medae_jax -->"  # by which a later run knows the page as its own
_INLINE = 20 * 2**20  # bytes of pictures inside the page; what is beyond lies beside it and is linked
_COLUMNS = {"score": "score", "p_value": "p-value", "verdict": "verdict",
            "called_abnormal": "called abnormal",
            "mask_ml": "mask ml", "mask_pixels": "mask pixels", "mask_voxels": "mask voxels",
            "map_max": "highest of the map", "highest_slice": "highest slice",  # from 1 there, as in pictures
            "slices": "slices"}


def write(output: pathlib.Path, rows: Sequence[Mapping[str, Any]], made: Mapping[str, Sequence[pathlib.Path]],
          about: Mapping[str, Any]) -> pathlib.Path:
  """Writes <output>/predictions.html.

  Args:
    rows: of predictions.csv. made: {name of an input: files written for it}.
    about: "method", "run", "checkpoint", "trained_on", "calibration" in words; "own_threshold" of the
      masks, 0 or absent = that of the calibration.

  Returns:
    The page.
  """
  good = [r for r in rows if not r.get("error")]
  order = sorted(good, key=lambda r: -float(r.get("score") or 0))
  left, cases = _INLINE, []
  for row in order:
    paths = sorted(made.get(row["input"], ()))
    picture = next((p for p in paths if _is_picture(p)), None)
    inline = picture is not None and picture.stat().st_size <= left
    data = picture.read_bytes() if inline else None
    left -= len(data) if data else 0
    cases.append({"row": row, "notes": _notes(row), "data": data,
                  "picture": _relative(picture, output) if picture else "",
                  "files": [_relative(p, output) for p in paths], "abnormal": row.get("called_abnormal")})
  columns = {k: v for k, v in _COLUMNS.items() if any(r.get(k) not in (None, "") for r in good)}
  if "verdict" in columns:
    columns.pop("called_abnormal", None)
  known = [c["abnormal"] for c in cases if c["abnormal"] in (0, 1)]
  page = pages.render(
      "predictions.html", title=f"medae_jax predictions: {about.get('run', '')}", about=about, cases=cases,
      columns=columns, failed=[r for r in rows if r.get("error")], abnormal=sum(known), judged=len(known),
      total=len(rows), warned=sum(bool(r.get("warning")) for r in good), made_by=provenance.about())
  return files.write_bytes(output / FILE, page)


def _is_picture(path: pathlib.Path) -> bool:
  return path.suffix == ".png" and (path.stem.endswith("_overlay") or "compare" in path.parent.name)


def _relative(path: pathlib.Path, output: pathlib.Path) -> str:
  return pathlib.PurePath(os.path.relpath(path, output)).as_posix()


def _notes(row: Mapping[str, Any]) -> list[str]:
  """What a row needs to be understood."""
  found = [str(row["warning"])] if row.get("warning") else []
  marked = any((row.get(k) or 0) > 0 for k in ("mask_ml", "mask_pixels", "mask_voxels"))
  if marked and row.get("called_abnormal") == 0:
    found.append("The mask marks pixels above the threshold of the map; the verdict on the whole goes by "
                 "another threshold, which the score does not pass.")
  known = [row[k] for k in ("mask_ml", "mask_pixels", "mask_voxels") if row.get(k) is not None]
  passed = row.get("threshold") is not None and (row.get("map_max") or 0) > row["threshold"]
  if passed and known and not any(known):
    found.append("The map passes its threshold in places, all of them too small to be kept "
                 "(config.eval.components): the mask is empty.")
  return found
