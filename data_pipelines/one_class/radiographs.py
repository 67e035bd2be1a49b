"""NIH ChestX-ray14 in the form of the DPA benchmark: images of 300 x 300, lists a view, a manifest.

Source (the download, as it comes): Data_Entry_2017.csv, train_val_list.txt, test_list.txt, and the images in
images_*.tar.gz, or unpacked in any folders. Rules of ninatu/anomaly_detection: every image of the table to
8-bit grey, 300 x 300 by Pillow's bilinear filter; lists a view in the order of the table. The subset has no
rule: its lists are taken from the folder of published ones.
"""

from __future__ import annotations

from collections.abc import Sequence
import csv
import io
import logging
import pathlib
import re
from typing import Any

from data_pipelines import cells, claims, store as stores, workers
from data_pipelines.errors import UserError
from data_pipelines.intake import find as finder, tables
from data_pipelines.one_class import folds, radiograph_job

SIDE = 300
VIEWS = ("PA", "AP")
PARTS = ("normal/train", "normal/test", "anomaly/test")
COLUMNS = ("file", "patient", "view", "findings", "lists", "bytes", "sha256")
_TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
_CHUNK = 500  # unpacked images a job
_MEMORY = 4e8


def prepare(source, target, subset="", count: int = 0, strict: bool = False, stale: float = claims.STALE,
            side: int = SIDE) -> dict[str, Any]:
  """Does what is missing.

  Args:
    source: folder of the download. target: gets nih_300/, train_test_split/nih/, manifest.csv, report.json.
    subset: folder with train_test_split/nih/subset, "" = no lists of the subset.
    count: processes, 0 = as many as pay. strict: an image that is left out is an error.
    stale: see claims. side: of the stored images.

  Returns:
    The report.

  Raises:
    UserError: no images, a part is damaged, lists name images that are not there; strict.
    FileNotFoundError: the table or a list is missing. OSError: the target cannot be written.
  """
  source, store = pathlib.Path(source), stores.Store(target)
  table = next((source / n for n in _TABLES if (source / n).is_file()), source / _TABLES[0])
  rows = folds.read_data_entry(table)
  lists = _lists(source, rows, subset)
  folder = f"nih_{side}"
  jobs = [{**part, "table": str(table), "folder": folder, "side": side, "target": str(target), "stale": stale}
          for part in _parts(source)]
  try:
    store.settle({"side": side})
    store.clear()
    left_out, broken = _work(jobs, count)
    report = _finish(store, rows, lists, jobs, left_out, broken, folder)
  finally:
    store.close()
  for name, reason in sorted({**left_out, **broken}.items()):
    logging.warning("%s left out: %s", name, reason)
  if broken:
    raise UserError("; ".join(sorted(broken.values())[:3]) + "; all else is prepared, run again with them")
  if strict and (report["left_out"] or report["missing"]):
    raise UserError(f"{len(report['left_out'])} images cannot be read, {report['missing']} of the table are "
                    "not there, and --strict is set; see report.json")
  return report


def _parts(source) -> list[dict[str, Any]]:
  """Jobs: one a tar.gz, else one a few hundred files."""
  tars = sorted(p for p in source.iterdir() if re.search(r"\.(tar|tar\.gz|tgz)$", p.name.lower())
                and p.is_file() and not finder.is_system_file(p.name))
  if tars:
    return [{"name": p.name.partition(".")[0], "tar": str(p), "files": []} for p in tars]
  files = [p for p in finder.find(source, ("image",)).files if p.suffix.lower() == ".png"]
  if not files:
    raise UserError(f"{source} holds neither images_*.tar.gz nor .png files")
  return [{"name": f"files_{i // _CHUNK:04d}", "tar": "", "files": [str(p) for p in files[i:i + _CHUNK]]}
          for i in range(0, len(files), _CHUNK)]


def _lists(source, rows, subset) -> dict[str, list[str]]:
  """{"AP/normal/train": names, ...}."""
  train_val, test = (tables.read_list(source / f"{n}_list.txt") for n in ("train_val", "test"))
  found = {}
  for view in VIEWS:
    of_view = folds.train_test_lists([r for r in rows if r["view"] == view], train_val, test)
    found.update({f"{view}/{part}": of_view[part] for part in PARTS})
  if subset:
    base = pathlib.Path(subset) / "train_test_split" / "nih" / "subset"
    found.update({f"subset/{part}": tables.read_list(base / part) for part in PARTS})
  return found


def _work(jobs, count) -> tuple[dict[str, str], dict[str, str]]:
  """({image: why it is left out}, {part: why it is}) after all parts are done, here or elsewhere."""
  left_out, broken = {}, {}
  pool = lambda left: workers.run(radiograph_job, left, count or workers.default_count(_MEMORY))
  progress = workers.Progress(len(jobs), "part", "stored")
  try:
    for job, result in claims.until_done(jobs, pool, lambda job: job["name"]):
      if "bad" in result:
        broken[job["name"]] = result["bad"]
      left_out.update(result.get("left_out", {}))
      progress.step(len(left_out))
  finally:
    progress.close()
  return left_out, broken


def _finish(store, rows: Sequence[dict], lists, jobs, left_out, broken, folder) -> dict[str, Any]:
  """Writes the lists, the manifest and the report."""
  stored = {pathlib.PurePosixPath(f["file"]).name: f for job in jobs
            for f in (store.record(job["name"], radiograph_job.STEP) or {"files": []})["files"]}
  on: dict[str, list[str]] = {}
  for name, names in lists.items():
    store.write(f"train_test_split/nih/{name}", "".join(f"{n}\n" for n in names).encode())
    for image in names:
      on.setdefault(image, []).append(name)
  table = io.StringIO()
  writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
  writer.writeheader()
  for row in rows:
    file = stored.get(row["name"])
    if file:
      writer.writerow({"file": cells.inert(file["file"]), "patient": cells.inert(row["patient"]),
                       "view": cells.inert(row["view"]),
                       "findings": cells.inert("|".join(sorted(row["findings"]))),
                       "lists": " ".join(on.get(row["name"], ())), "bytes": file["bytes"],
                       "sha256": file["sha256"]})
  manifest = store.write("manifest.csv", table.getvalue().encode())
  absent = {name: len([n for n in names if n not in stored]) for name, names in lists.items()}
  report = {"images": len(stored), "folder": folder, "missing": sum(r["name"] not in stored for r in rows),
            "lists": {name: len(names) for name, names in lists.items()},
            "listed_without_image": {n: c for n, c in absent.items() if c},
            "left_out": dict(sorted(left_out.items())), "damaged_parts": dict(sorted(broken.items())),
            "manifest_sha256": manifest["sha256"]}
  store.write("report.json", stores.as_json(report))
  return report
