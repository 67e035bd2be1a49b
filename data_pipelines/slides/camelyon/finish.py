"""Step 7 and the end: lists of patches, manifest.csv, report.json; functions of the records alone.

Several processes may finish one preparation: each writes the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import csv
import io
from typing import Any

from data_pipelines import cells as table_cells, store as stores
from data_pipelines.slides.camelyon import source, steps
from data_pipelines.slides.camelyon.settings import Settings
from data_pipelines.slides.camelyon.source import Entry

COLUMNS = ("file", "slide", "part", "kind", "level", "left", "top", "width", "height", "tissue", "lesion",
           "mpp", "stain", "scales", "bytes", "sha256")


def rows(entries: Sequence[Entry], settings: Settings, store: stores.Store) -> list[dict[str, Any]]:
  """A row a patch, slides in their order: what is in x40, else what was cut."""
  found = []
  for entry in entries:
    cut, merged, stained, reduced = (store.record(entry.name, s) for s in ("cut", "merge", "stain", "resize"))
    if cut is None:
      continue
    said = stained["said"] if stained and settings.stain else {}
    scales = "" if reduced is None else " ".join(f"{s}={o}" for s, o in reduced["origin"].items())
    for row, file in zip(cut["rows"], merged["files"] if merged else cut["files"][steps.PICTURES:]):
      known = {k: "" if v is None else v for k, v in row.items() if k != "name"}
      found.append({"file": file["file"], **known, "mpp": cut["mpp"] or "",
                    "stain": said.get(row["name"], "as cut"), "scales": scales, "bytes": file["bytes"],
                    "sha256": file["sha256"]})
  return found


def write(entries: Sequence[Entry], left_out: Mapping[str, str], settings: Settings,
          store: stores.Store) -> dict[str, Any]:
  """Writes train_test_split/camelyon16/healthy/..., manifest.csv and report.json; returns the report."""
  found = rows(entries, settings, store)
  lists: dict[str, list[str]] = {}
  for part in ("train", "test"):
    for kind in ("normal", "tumor"):
      names = sorted(r["file"].rpartition("/")[2] for r in found if (r["part"], r["kind"]) == (part, kind))
      lists[source.list_file(part, kind)] = names
      store.write(source.list_file(part, kind), "".join(f"{n}\n" for n in names).encode())
  table = io.StringIO()
  writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
  writer.writeheader()
  for row in found:
    writer.writerow({k: table_cells.inert(v) if isinstance(v, str) else v for k, v in row.items()})
  manifest = store.write("manifest.csv", table.getvalue().encode())
  filled = {row["slide"] for row in found}
  report = {"patches": {name: len(names) for name, names in lists.items()},
            "slides": len(filled), "left_out": dict(sorted(left_out.items())),
            # Small metastases: no cell of a slide lies inside of a lesion.
            "without_patches": [e.name for e in entries if e.name not in filled and e.name not in left_out],
            "stains_unchanged": {r["file"]: r["stain"] for r in found if r["stain"].startswith("unchanged")},
            # x40 has 0.25 micrometres a pixel: patches of other slides show more or less than the names say.
            "other_resolutions": {r["slide"]: r["mpp"] for r in found
                                  if r["mpp"] and not 0.2 < r["mpp"] < 0.3},
            "manifest_sha256": manifest["sha256"], "settings": settings.matters()}
  store.write("report.json", stores.as_json(report))
  return report
