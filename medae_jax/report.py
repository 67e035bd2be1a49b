"""One self-contained HTML page from what evaluate and train wrote; it needs no other file.

`report` is --mode=report: the page of one run, or the benchmark over a sweep or several folders.
"""

from __future__ import annotations

import base64
import csv
import json
import math
import pathlib
from typing import Any

from medae_jax.core import calibration as calibrate, files
from medae_jax.core.errors import UserError
from medae_jax.reporting import page as pages
from medae_jax.reporting.benchmark import page as benchmark_page
from medae_jax.reporting.plots import chart, number, text

_ORDER = ("test", "val")
_REMEDY = "run --mode=evaluate again, or delete it"
# JSON key -> (name, what it means). Keys that are not listed are shown under their own name.
_NAMES = {
    "pixel_ap": ("Pixel average precision", "over all pixels of the split, background included"),
    "pixel_auroc": ("Pixel AUROC", "flattered by the many easy background pixels: prefer AP"),
    "dice_val_threshold": ("Dice at the validation threshold", "a threshold fixed beforehand"),
    "dice_val_threshold_components": ("... small components removed",
                                      "as above, then filtered in 3-D"),
    "dice_patients_mean": ("... mean over patients", "patients with lesions, before the filter"),
    "dice_best": ("Best Dice (oracle)", "threshold chosen with the masks of this split: a bound"),
    "dice_components": ("... small components removed", "at the oracle threshold"),
    "image_auroc": ("Image AUROC", "slice or image with any lesion against without"),
    "image_ap": ("Image average precision", "likewise"),
    "scan_auroc": ("Scan AUROC", "whole scans by the highest score of their slices"),
    "scan_sensitivity": ("Abnormal scans found", "share above the threshold for scans of val"),
    "scan_false_alarms": ("Normal scans called abnormal", "share above the same threshold"),
    "n_normal_scans": ("Normal scans", "whole scans, or images"),
    "n_abnormal_scans": ("Abnormal scans", "likewise"),
}
_HIDDEN = {"dataset", "synthetic", "split", "ci95", "baseline", "notes", "versions", "checkpoint",
           "device", "date", "seconds", "model_better", "model_better_by"}


def report(workdir, others: str = "", output=None) -> pathlib.Path:
  """The page of a run, or, where `workdir` is a sweep or holds several runs, the benchmark.

  Args:
    workdir: of a run, a sweep, or a folder with any number of them below.
    others: further folders, with commas between them: they make a benchmark of a single run, too.
    output: folder of the benchmark's files; default <workdir>/benchmark.

  Returns:
    The HTML page.

  Raises:
    FileNotFoundError: a folder is not there, or none holds an evaluated run. UserError: a damaged file.
  """
  workdir, folders = pathlib.Path(workdir), [f for f in others.split(",") if f]
  alone = (workdir / "config.json").is_file() and not (workdir / "sweep.json").is_file()
  if alone and not folders and not output:
    return write(workdir)
  return benchmark_page.write([workdir, *folders], pathlib.Path(output or workdir / "benchmark"))


def write(workdir) -> pathlib.Path:
  """Writes <workdir>/report.html from evaluation/*.json, *.csv, *.png and metrics.jsonl.

  Returns:
    Its path.
  """
  workdir = pathlib.Path(workdir)
  results = _results(workdir / "evaluation")
  path = workdir / "config.json"
  config = files.read_json(path, "restore it from a copy") if path.exists() else {}
  calibration = calibrate.read(workdir)
  body = [_head(workdir, results, config)]
  body += [_table(results), _notes(results)] if results else ["<p>Nothing was evaluated yet.</p>"]
  if calibration:
    body.append(_thresholds(calibration))
    if calibration.get("score"):
      body.append(_fitted(calibration["score"], calibration.get("score_fit") or {}))
  body += [_pictures(workdir / "evaluation", split) for split in results]
  body += [_patients(workdir / "evaluation" / f"{split}.csv", split) for split in results]
  body.append(_training(workdir / "metrics.jsonl"))
  body.append("<h2>Configuration</h2><details><summary>config.json</summary><pre>"
              f"{text(json.dumps(config, indent=1))}</pre></details>")
  page = pages.page(f"medae_jax report: {workdir.name}", body)
  return files.write_bytes(workdir / "report.html", page)


# ------------------------------------------------------------------------------------- sections
def _head(workdir, results, config):
  first = next(iter(results.values()), {})
  method = config.get("method")
  method = method.get("name", "?") if isinstance(method, dict) else "?"
  lines = [f"<h1>{text(method)} on {text(first.get('dataset', 'no data yet'))}</h1>"]
  if first:
    checkpoint = first.get("checkpoint") or {}
    lines.append(f"<p>{text(workdir.name)}: {text(checkpoint.get('which', ''))} checkpoint, step "
                 f"{checkpoint.get('step', '?')}; evaluated {text(first.get('date', ''))} on "
                 f"{text(first.get('device', ''))}."
                 + (f" Pretrained network: {text(first['trunk'])}." if first.get("trunk") else "") + "</p>")
  if any(r.get("synthetic") for r in results.values()):
    lines.append(pages.SYNTHETIC)
  for variant in sorted({str(r["variant"]) for r in results.values() if r.get("variant")}):
    lines.append(f"<div class='warn'>Variant {text(variant)}: a short training in small, chosen because "
                 "there was neither a data folder nor an accelerator; not the published experiment.</div>")
  lines += [f"<div class='say'>{_sentence(split, r)}</div>" for split, r in results.items()
            if _sentence(split, r)]
  return "\n".join(lines)


def _sentence(split, r):
  """The comparison with the intensity threshold in words; "" where it does not apply."""
  by = r.get("model_better_by") or {}
  key, base = by.get("metric"), r.get("baseline") or {}
  if not isinstance(key, str) or key not in _NAMES or not isinstance(r.get(key), (int, float)):
    return ""
  best = max((v for k, v in base.items() if k.startswith(key) and isinstance(v, (int, float))),
             default=None)
  better = r.get("model_better")  # by identity: an edited file may hold anything
  verdict = "better than" if better is True else "WORSE than" if better is False else (
      "not shown to be better than")
  said = (f"{_split_name(split)} ({r.get('n_patients', '?')} patients, {r.get('n_images', '?')} images): "
          f"{_NAMES[key][0].lower()} {number(r.get(key))}; a plain intensity threshold reaches "
          f"{number(best)}: the model is {verdict} it")
  interval = (r.get("ci95") or {}).get(f"{key}_minus_baseline")
  if interval:
    said += (f" (difference, 95 % interval over patients: {number(interval[0])} to "
             f"{number(interval[1])})")
  return text(said + ".")


def _fitted(score, about) -> str:
  """What val decided of config.method.score, and what that stands on."""
  said = f"<p>Fitted on validation: <code>{text(json.dumps(score))}</code>. "
  if "image_auroc" in about:
    rows = sorted(about["image_auroc"].items(), key=lambda item: -item[1])
    return (f"{said}Image AUROC there of all that were compared, on {number(about.get('abnormal'))} "
            f"abnormal and {number(about.get('normal'))} normal images (the best one flatters):</p><table>"
            + "".join(f"<tr><td>{text(name)}</td><td>{number(value)}</td></tr>" for name, value in rows)
            + "</table>")
  about = {k: number(v) for k, v in about.items()}
  return (f"{said}Pixel AP there: {about.get('pixel_ap_plain')} without, {about.get('pixel_ap_fitted')} "
          f"with the fit (flattering), {about.get('pixel_ap_other_patients')} when fitted on the other "
          "patients.</p>")


def _table(results):
  keys = list(dict.fromkeys(k for r in results.values() for k, v in r.items()
                            if k not in _HIDDEN and not isinstance(v, (dict, list, str))))
  # What no split has is named below with its reason, not shown as a row of dashes.
  keys = [k for k in keys if any(_known(r.get(k)) or _known((r.get("baseline") or {}).get(k))
                                 for r in results.values())]
  keys = [k for k in _NAMES if k in keys] + [k for k in keys if k not in _NAMES]
  head = "".join(f"<th>{_split_name(s)}</th>" for s in results)
  with_base = any(_known(v) for r in results.values() for v in (r.get("baseline") or {}).values()
                  if not isinstance(v, str))
  base_head = "".join(
      f"<th>{text(r.get('baseline_name', 'intensity threshold'))}, {_split_name(s)}</th>"
      for s, r in results.items()) if with_base else ""
  rows = []
  for key in keys:
    name, what = _NAMES.get(key, (key.replace("_", " "), ""))
    cells = "".join(f"<td>{_with_interval(r, key)}</td>" for r in results.values())
    if with_base:
      cells += "".join(f"<td>{_baseline(r.get('baseline') or {}, key)}</td>"
                       for r in results.values())
    rows.append(f"<tr><td>{text(name)}</td>{cells}<td class='what'>{text(what)}</td></tr>")
  return ("<h2>Results</h2><table><tr><th></th>" + head + base_head + "<th></th></tr>"
          + "".join(rows) + "</table><p class='ci'>In square brackets: 95 % bootstrap intervals "
          "over patients.</p>")


def _notes(results):
  """What could not be measured, with the reason, a line for each reason of a split."""
  reasons: dict[tuple[str, str], list[str]] = {}
  for split, r in results.items():
    for key, why in (r.get("notes") or {}).items():
      name, plain = _NAMES.get(key, ("...", ""))[0], key.replace("_", " ")
      reasons.setdefault((split, why), []).append(plain if name.startswith("...") else name)
  lines = [f"<li>{_split_name(split)}: {text(why)}, hence no {text(', no '.join(names))}</li>"
           for (split, why), names in reasons.items()]
  return f"<p>Not available:</p><ul>{''.join(lines)}</ul>" if lines else ""


def _thresholds(calibration):
  """The thresholds in words, and what a p-value of predict means."""
  n, unit = len(calibration.get("scan_scores") or []), text(calibration.get("scan_unit", "scan"))
  p_value = (f"<p>predict writes a p-value for each new {unit}: the share of {n:,} normal {unit}s of "
             f"validation, and of itself, that score as high; the lowest possible is "
             f"{number(1 / (n + 1))}.</p>") if n else ""
  return ("<h2>Thresholds and scales</h2><p>Fixed on the validation split, used on every other: "
          f"{text(calibrate.explain(calibration))}. One grey window and one heat scale (top "
          f"{number(calibration.get('map_max'))}) for all pictures.</p>{p_value}")


def _pictures(folder, split):
  parts = []
  for path in sorted(folder.glob(f"{split}_*.png")):
    data = base64.b64encode(path.read_bytes()).decode()
    name = path.stem.removeprefix(f"{split}_")
    what = "" if name == "panel" else f": {text(name)}"
    parts.append(f"<h2>Pictures, {_split_name(split)}{what}</h2>"
                 f"<img alt='{text(path.stem)}' src='data:image/png;base64,{data}'>")
  return "".join(parts)


def _patients(path, split):
  """The CSV as a table, folded."""
  if not path.exists():
    return ""
  try:
    with open(path, newline="", encoding="utf-8") as file:
      rows = list(csv.reader(file))
  except (csv.Error, UnicodeDecodeError) as e:
    raise UserError(f"{path} is damaged ({e}): {_REMEDY}") from e
  if not rows:
    return ""
  head = "".join(f"<th>{text(c.replace('_', ' '))}</th>" for c in rows[0])
  lines = "".join("<tr>" + "".join(f"<td>{text(_short(c))}</td>" for c in r) + "</tr>"
                  for r in rows[1:501])
  n, more = len(rows) - 1, ""
  if n > 500:
    more = f"<p>The first 500 of {n}; all are in {text(path.name)}.</p>"
  return (f"<h2>Case by case, {_split_name(split)}</h2><details><summary>{n} rows</summary>"
          f"<table><tr>{head}</tr>{lines}</table>{more}</details>")


def _training(path):
  series: dict[str, list[tuple[float, float]]] = {}
  for event in files.read_events(path):
    for key, value in event.items():
      if key != "step" and isinstance(value, (int, float)) and math.isfinite(value):
        series.setdefault(key, []).append((event["step"], value))
  groups: dict[str, dict[str, list]] = {}
  for key, points in series.items():  # train/loss and val/loss share a chart
    group = key.partition("/")[2] or key
    groups.setdefault(group, {})[key] = points
  charts = "".join(chart(group, lines) for group, lines in groups.items())
  return f"<h2>Training</h2><div class='charts'>{charts}</div>" if charts else ""


# -------------------------------------------------------------------------------------- helpers
def _results(folder):
  """{split: result}, test first."""
  order = lambda p: (_ORDER.index(p.stem) if p.stem in _ORDER else len(_ORDER), p.stem)
  return {p.stem: _result(p) for p in sorted(folder.glob("*.json"), key=order)}


def _result(path) -> dict[str, Any]:
  """evaluation/<split>.json, with the entries that are not plain values of the expected form."""
  found = files.read_json(path, _REMEDY)
  is_number = lambda v: v is None or (isinstance(v, (int, float)) and not isinstance(v, bool))
  pair = lambda v: v is None or (isinstance(v, list) and len(v) == 2 and all(map(is_number, v)))
  forms = {"ci95": pair, "baseline": lambda v: is_number(v) or isinstance(v, str),
           "notes": lambda v: isinstance(v, str), "checkpoint": lambda v: True,
           "model_better_by": lambda v: True}
  for key, form in forms.items():
    value = found.get(key) or {}
    if not isinstance(value, dict) or not all(map(form, value.values())):
      raise UserError(f"{path} is damaged (its entry {key!r}): {_REMEDY}")
  for key in ("pixel_ap", "image_auroc"):  # what the first sentence is about
    if not is_number(found.get(key)):
      raise UserError(f"{path} is damaged (its entry {key!r}): {_REMEDY}")
  return found


def _split_name(split):
  return {"val": "validation"}.get(split, text(split))


def _known(value):
  return value is not None and number(value) != number(None)


def _with_interval(result, key):
  interval = (result.get("ci95") or {}).get(key)
  shown = number(result.get(key))
  if interval:
    shown += f" <span class='ci'>[{number(interval[0])}, {number(interval[1])}]</span>"
  return shown


def _baseline(base, key):
  smooth = base.get(f"{key}_median5")
  if smooth is None:
    return number(base.get(key), "")
  return f"{number(base.get(key))} <span class='ci'>({number(smooth)} after a 5x5 median)</span>"


def _short(cell: str) -> str:
  try:
    return f"{float(cell):.3f}" if "." in cell else cell
  except ValueError:
    return cell
