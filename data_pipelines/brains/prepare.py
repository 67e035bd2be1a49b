"""Prepares a folder of scans once: parallel, resumable, every bad scan named with its reason."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pathlib

from data_pipelines import typed, workers
from data_pipelines.brains import files, folds, labels, normalise, prepare_scan, records
from data_pipelines.errors import UserError

SYNTHETIC_MARK = "SYNTHETIC.txt"  # lies in folders that synthetic.write_nifti wrote
_VERSION = 1  # of the preparation itself: raise it when its numbers change


def parameters(cfg: dict) -> dict:
  """What a record depends on besides its source files."""
  # Only what differs from the first form: sets that were prepared before these fields stay valid.
  place = {k: cfg[k] for k in ("orientation", "placement", "field_mm")
           if (k == "orientation" and cfg[k]) or (k != "orientation" and cfg["placement"] != "scan")}
  if cfg["unit"] != "percentile":
    place["unit"] = cfg["unit"]
  if cfg["lesion_values"]:
    place["lesion_values"] = list(cfg["lesion_values"])
  return {**place, "version": _VERSION, "modalities": list(cfg["modalities"]),
          "image_size": list(cfg["image_size"]), "storage": cfg["storage"],
          "percentile": normalise.PERCENTILE, "slice_sum": normalise.SLICE_SUM,
          "label": normalise.LABEL}


def default_folder(cfg: dict) -> pathlib.Path:
  """$XDG_CACHE_HOME or ~/.cache, medae_jax/<source>_<hash of source and parameters>.

  Not beside the source, which is often read-only.
  """
  source = pathlib.Path(cfg["dir"]).expanduser().resolve()
  text = json.dumps([str(source), parameters(cfg)], sort_keys=True)
  base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
  return base / "medae_jax" / f"{source.name}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def folder_of(cfg) -> pathlib.Path:
  """The folder of a prepared set: config.data.prepared_dir, else the default one."""
  own = cfg["prepared_dir"]
  return typed.new(own, "config.data.prepared_dir") if own else default_folder(cfg)


def is_prepared(cfg) -> bool:
  """Whether `prepare_set` has come to its end before with these parameters."""
  return (folder_of(cfg) / "manifest.json").is_file()


def prepare_set(cfg, found: files.Found | None = None) -> tuple[pathlib.Path, dict]:
  """Prepares what is missing or stale of `cfg["dir"]`.

  Args:
    cfg: resolved fields of brains.fields.defaults().
    found: the scans, where another rule than files.find_scans has found them.

  Returns:
    (folder of the prepared set, content of its manifest.json).

  Raises:
    FileNotFoundError, ValueError: see files.find_scans; every scan bad; one scan bad with
      `strict`; the folder holds a set of other parameters. OSError: it cannot be written.
  """
  found = found or files.find_scans(cfg["dir"], cfg["modalities"], cfg["group_pattern"], cfg["grouping"])
  if cfg["folds"]:
    found = folds.regroup(found, cfg["folds"], cfg["fold"])
  folder = folder_of(cfg)
  try:
    (folder / "records").mkdir(parents=True, exist_ok=True)
  except OSError as e:
    raise OSError(f"cannot make the folder for prepared scans {folder} ({e.strerror}); set "
                  "config.data.prepared_dir to one that can be written") from e
  with workers.locked(folder):
    _check_parameters(folder, cfg)
    for left in (*folder.glob(".*.tmp"), *(folder / "records").glob(".*.tmp")):
      left.unlink()  # of a run that was killed: the lock says that nobody else writes here
    done, bad = _prepare_missing(found, cfg, folder)
    bad = {**found.incomplete, **bad}
    manifest = _manifest(found, done, bad, cfg)
    records.write_json(folder / "report.json", {
        "source": str(cfg["dir"]), "prepared": len(done), "left_out": len(bad),
        "scans": [{"patient": p, "reason": r} for p, r in sorted(bad.items())],
        "warnings": [{"patient": p, "warning": w} for p, r in sorted(done.items())
                     if (w := r.get("warning"))]})
    records.write_json(folder / "manifest.json", manifest)
  _say(bad, done, cfg, folder)
  _say_copies(manifest["scans"])
  return folder, manifest


def _check_parameters(folder, cfg):
  """A folder belongs to one set of parameters: two configs must not overwrite each other's."""
  try:
    old = json.loads((folder / "manifest.json").read_text())["parameters"]
  except (OSError, ValueError, KeyError):
    return
  new = parameters(cfg)
  changed = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
  if changed:
    raise UserError(f"config.data.prepared_dir={str(folder)!r} holds a set prepared with another "
                     + ", ".join(f"{k} ({old.get(k)}, now {new.get(k)})" for k in changed)
                     + "; choose another folder")


def _prepare_missing(found, cfg, folder):
  """({patient: record}, {patient: reason}) after preparing every scan without a valid record."""
  jobs, done, bad = [], {}, {}
  for scan in found.scans:
    try:
      key = {"parameters": parameters(cfg), "source": records.stamp([*scan.volumes, scan.seg])}
    except OSError as e:
      bad[scan.patient] = f"{pathlib.Path(e.filename).name} does not exist"
      continue
    record = records.read_record(folder, scan.patient, key)
    if record:
      done[scan.patient] = record
    jobs.append({"patient": scan.patient, "volumes": scan.volumes, "seg": scan.seg,
                 "modalities": cfg["modalities"], "size": cfg["image_size"],
                 **{k: cfg[k] for k in ("orientation", "placement", "field_mm", "unit", "lesion_values")},
                 "storage": cfg["storage"], "folder": str(folder), "key": key})
  for patient in sorted(records.damaged(folder, list(done.values()))):
    logging.warning("the prepared scan %s is damaged and is prepared again", patient)
    del done[patient]
  jobs = [job for job in jobs if job["patient"] not in done]
  if jobs:
    logging.info("preparing %d of %d scans of %s into %s", len(jobs), len(found.scans), cfg["dir"],
                 folder)
    progress = workers.Progress(len(jobs), "scan", "prepared")
    for job, result in _results(jobs, cfg["workers"] or default_count()):
      patient = job["patient"]
      if "fatal" in result:
        raise OSError(f"preparation stopped at scan {patient}: {result['fatal']}; what is prepared "
                      "is kept, run again to go on")
      if "bad" in result:
        bad[patient] = result["bad"]
      else:
        done[patient] = result["record"]
      progress.step(len(bad))
    progress.close()
  return done, bad


def _results(jobs, count):
  """Yields (job, result); scans that found no memory beside others are read alone at the end."""
  alone = []
  for job, result in workers.run(prepare_scan, jobs, count):
    if "memory" in result and count > 1:
      alone.append(job)
    else:
      yield job, {"bad": result["memory"]} if "memory" in result else result
  yield from _results(alone, 1) if alone else ()


def default_count() -> int:
  """Processes of a preparation: a BraTS scan takes about 1.1 GB while it is read."""
  return workers.default_count(1.5e9)


def _manifest(found, done, bad, cfg):
  """Everything about the prepared set, scans in the order of their ids."""
  split_of = {scan.patient: scan.split for scan in found.scans}
  scans = [{"split": split_of[p], **done[p]} for p in sorted(done)]
  healthy = {s["patient"]: [z for z, px in zip(s["slices"], s["lesion_px"]) if px == 0]
             for s in scans}
  counts = {}
  for split in files.SPLITS:
    mine = [s for s in scans if s["split"] == split]
    slices, clean = sum(len(s["slices"]) for s in mine), sum(len(healthy[s["patient"]])
                                                             for s in mine)
    counts[split] = {"patients": len(mine), "slices": slices, "healthy_slices": clean,
                     "lesion_slices": slices - clean}
  checksum = hashlib.sha256("".join(f["sha256"] for s in scans
                                    for f in s["files"].values()).encode()).hexdigest()
  source = pathlib.Path(cfg["dir"]).expanduser().resolve()
  return {"parameters": parameters(cfg), "source": str(source),
          "synthetic": (source / SYNTHETIC_MARK).exists(), "split_rule": found.split_rule,
          "counts": counts, "sha256": checksum,
          "left_out": dict(sorted(bad.items())), "healthy_slices": healthy,
          "splits": {split: [s["patient"] for s in scans if s["split"] == split]
                     for split in files.SPLITS}, "scans": scans}


def _say(bad, done, cfg, folder):
  """Names the bad scans in the log; raises where they may not be left out."""
  for patient, reason in sorted(bad.items()):
    logging.warning("scan %s left out: %s", patient, reason)
  named = "; ".join(f"{p}: {r}" for p, r in sorted(bad.items())[:5])
  named += f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
  if not done:
    raise UserError(f"none of the {len(bad)} scans of {cfg['dir']} can be prepared ({named}); see "
                     f"{folder / 'report.json'}")
  if values := [r["label_values"] for r in done.values() if r.get("label_values")]:
    logging.info("labels of %d of %d scans, %s; set config.data.lesion_values where that is wrong",
                 len(values), len(done), labels.described(values, cfg["lesion_values"]))
    held = sorted({int(v) for scan in values for v in scan})
    if cfg["lesion_values"] and not {*cfg["lesion_values"]} & {*held}:
      logging.warning("config.data.lesion_values=%s are in none of the %d labels, which hold %s: nothing in "
                      "them counts as lesion", tuple(cfg["lesion_values"]), len(values),
                      ", ".join(map(str, held)))
  if bad and cfg["strict"]:
    raise UserError(f"{len(bad)} scans of {cfg['dir']} cannot be prepared and config.data.strict "
                     f"is set ({named}); see {folder / 'report.json'}")


def _say_copies(scans):
  """Warns of scans that are one volume under two names, in whatever files: packed anew, of another scale."""
  first: dict[str, dict] = {}
  twice = [(first[key], scan) for scan in scans
           if first.setdefault(key := scan["files"]["image"]["sha256"], scan) is not scan]
  if twice:
    twice.sort(key=lambda pair: pair[0]["split"] == pair[1]["split"])  # those on two sides of the split first
    shown = " and ".join(f"{scan['patient']} ({scan['split']})" for scan in twice[0])
    logging.warning("%d scans hold the same voxels as another one, the first %s: are they of one person? "
                    "Take the copies away, else a measure says how well the model knows them", len(twice),
                    shown)
