"""report.html of a workdir: one page that needs no other file."""

from __future__ import annotations

from collections.abc import Mapping
import json
import pathlib
import statistics
from typing import Any

from medae_jax.core import calibration as calibrate, files
from medae_jax.reporting import page as pages
from medae_jax.reporting.panels import heat_stops, marked_below, truth_name
from medae_jax.reporting.run import figures, results, tables, verdicts
from medae_jax.reporting.run.results import Split

_ROWS = 500
# Parts of the gallery in their order: (title, what it shows).
_PARTS = {
    "misses": ("Worst misses", "Abnormal images with the lowest scores, one a patient."),
    "false_alarms": ("Worst false alarms", "Normal images with the highest scores, one a patient."),
    "worst": ("Made worse by restoring", "Marked frames that are further from the clean one than before."),
    "panel": ("A spread of cases", "Evenly over the range of results, quiet normal ones included."),
    "overlays": ("Annotations", "The most suspicious ones first, then the most trusted.")}
_GOOD = ("found", "rightly normal", "nearer to the clean frame")
_MARKED = (marked_below("slice"), marked_below("image"),
           "slice not called abnormal", "image not called abnormal")  # of older evaluations
_BAD = ("missed", *_MARKED, "false alarm", "worse than untouched")
_TRUTHS = (truth_name(False), truth_name(True))
_MEANS = {"mean": "the mean of its map", "max": "the highest value of its map",
          "top1": "the mean of the highest 1 % of its map",
          "foreground_mean": "the mean of its map inside the body"}


def write(workdir) -> pathlib.Path:
  """Writes <workdir>/report.html from evaluation/, calibration.json, config.json and metrics.jsonl.

  Returns:
    Its path.

  Raises:
    UserError: a damaged file; the line names it.
  """
  workdir = pathlib.Path(workdir)
  splits = results.read(workdir / "evaluation")
  path = workdir / "config.json"
  config = files.read_json(path, "restore it from a copy") if path.exists() else {}
  calibration = calibrate.read(workdir) or {}
  method = config.get("method")
  method = method.get("name", "?") if isinstance(method, dict) else "?"
  first: Mapping[str, Any] = splits[0].result if splits else {}
  scale = calibration.get("map_max") if splits and splits[0].kind == "anomaly" else None
  synthetic = any(bool(s.result.get("synthetic")) for s in splits)
  page = pages.render(
      "run.html", title=f"medae_jax report: {workdir.name}", method=str(method), name=workdir.name,
      dataset=str(first.get("dataset", "no data yet")), trunk=str(first.get("trunk") or ""),
      synthetic=synthetic, truth=truth_name(synthetic),
      variants=sorted({str(s.result["variant"]) for s in splits if s.result.get("variant")}),
      verdicts=verdicts.of_splits(splits), splits=splits, results=tables.results(splits),
      counts=tables.counts(splits), settings=tables.settings(splits), missing=tables.missing(splits),
      units=" or ".join(dict.fromkeys(s.unit for s in splits)),
      details=[_details(workdir, s) for s in splits],
      thresholds=calibrate.explain(calibration) if calibration else "", scale=scale,
      threshold=calibration.get("threshold"), heat=heat_stops(), p_value=_p_value(calibration),
      fitted=_fitted(calibration), about=_about(first, config, splits), links=_links(workdir, splits),
      training=figures.training(files.read_events(workdir / "metrics.jsonl")),
      config=json.dumps(config, indent=1), good=_GOOD, bad=_BAD, marked=_MARKED,
      score_of=_score_of(config, calibration), image_threshold=calibration.get("image_threshold"))
  return files.write_bytes(workdir / "report.html", page)


def _details(workdir: pathlib.Path, split: Split) -> dict[str, Any]:
  """What the page shows of one split beyond its numbers."""
  parts = [{"title": title, "what": what, "key": part, "rows": rows,
            "truth": next((c["head"] for r in rows for c in r["cells"] if c["head"] in _TRUTHS), "")}
           for part, (title, what) in _PARTS.items()
           if (rows := [r for r in split.pictures if r["part"] == part])]
  return {"split": split, "figures": figures.of_split(split), "calls": tables.calls(split),
          "findings": tables.findings(split), "fillings": tables.fillings(split),
          "quality": tables.quality(split), "parts": parts,
          "old": [] if parts else _panels(workdir, split.name),
          "head": list(split.rows[0]) if split.rows else [], "more": max(0, len(split.rows) - _ROWS),
          "rows": [[_short(c) for c in row.values()] for row in split.rows[:_ROWS]]}


def _score_of(config, calibration) -> str:
  """What the image score is, in words; "" where the run does not say, or where it is none of a map."""
  asked = (config.get("method") or {}).get("score") if isinstance(config.get("method"), dict) else None
  how = {**(asked if isinstance(asked, dict) else {}), **(calibration.get("score") or {})}.get("image_score")
  return _MEANS.get(how, "") if isinstance(how, str) else ""


def _p_value(calibration) -> dict[str, Any] | None:
  n = len(calibration.get("scan_scores") or [])
  return {"n": n, "unit": str(calibration.get("scan_unit", "scan")), "least": 1 / (n + 1)} if n else None


def _fitted(calibration) -> dict[str, Any] | None:
  """What val decided of config.method.score, and what that stands on, for whichever method fits something."""
  if not calibration.get("score"):
    return None
  about = calibration.get("score_fit") or {}
  compared = about.get("image_auroc") if isinstance(about.get("image_auroc"), dict) else {}
  words = {"pixel_ap_plain": "pixel AP without the fit", "pixel_ap_fitted": "with it (flattering)",
           "pixel_ap_other_patients": "fitted on the other patients"}
  return {"score": json.dumps(calibration["score"]), "normal": about.get("normal"),
          "abnormal": about.get("abnormal"), "compared": sorted(compared.items(), key=lambda i: -i[1]),
          "facts": [(words.get(k, k.replace("_", " ")), v) for k, v in about.items() if tables.known(v)
                    and k not in ("normal", "abnormal")]}


def _about(first, config, splits) -> list[tuple[str, str]]:
  """Where the numbers come from; lines that nobody knows are left out."""
  checkpoint = first.get("checkpoint") or {}
  versions = first.get("versions") or {}
  seconds = [s.result["seconds"] for s in splits if tables.known(s.result.get("seconds"))]
  lines = {
      "Command": first.get("command"), "Commit": first.get("commit"),
      "Seed": first.get("seed", config.get("seed")),
      "Checkpoint": ", step ".join(str(checkpoint[k]) for k in ("which", "step") if k in checkpoint),
      "Versions": ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else "",
      "Device": first.get("device"), "Evaluated": first.get("date"),
      "Duration": f"{sum(seconds):.1f} s for {len(seconds)} splits"
                  f" (median {statistics.median(seconds):.1f} s)" if seconds else "",
      "Data": first.get("dataset")}
  return [(k, str(v)) for k, v in lines.items() if v not in (None, "")]


def _links(workdir: pathlib.Path, splits) -> list[str]:
  """Files beside the page, as relative addresses."""
  names = ["config.json", "calibration.json", "metrics.jsonl", "trained_on.json"]
  for s in splits:
    names += [f"evaluation/{s.name}{end}" for end in (".json", ".csv", "_images.csv", "_quality.csv",
                                                      "_panel.png", "_overlays.png")]
    names.append(f"evaluation/curves/{s.name}.json")
  return [n for n in names if (workdir / n).is_file()]


def _short(cell: str) -> str:
  try:
    return f"{float(cell):.3f}" if "." in cell else cell
  except ValueError:
    return cell


def _panels(workdir: pathlib.Path, split: str) -> list[tuple[str, bytes]]:
  """(name, PNG) of evaluations without rows of pictures: the panels as they are."""
  return [(path.stem.removeprefix(f"{split}_"), path.read_bytes())
          for path in sorted((workdir / "evaluation").glob(f"{split}_*.png"))]
