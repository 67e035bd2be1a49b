"""The table of a score study: trained folds in, table of candidates out; see configs/sweep_brains.py.

AP of a row is the mean over folds of the pixel AP of the fold's own patients, then over seeds. Intervals:
patients are drawn with replacement within their fold, the same ones for all rows, so that differences are
paired.
"""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
from typing import Any

from absl import logging
import numpy as np

from data_pipelines import dataset as datasets, stream
from data_pipelines.brains import drawn_lesions
from data_pipelines.dataset import Source
from data_pipelines.formats import arrays
from medae_jax.core import files, trained
from medae_jax.core.errors import UserError
from medae_jax.metrics import bootstrap, detection
from medae_jax.tasks.anomaly.study.candidates import CANDIDATES, Fold

PUBLISHED = "published"
THRESHOLDS = tuple(name for name in CANDIDATES if name.startswith("FLAIR") and "brighter" not in name)
_BATCH = 32


def write(workdir: pathlib.Path, runs: Sequence[tuple[Any, pathlib.Path]], command: str,
          resamples: int = 500) -> list[dict[str, Any]]:
  """Scores what is not scored yet and writes scores.md and scores.csv.

  Args:
    runs: (seed, folder) of every trained fold. command: shown under the table.

  Returns:
    a row for each candidate: {"score", "ap", "sd" (over seeds), "low", "high", "minus_published" [low, high],
    "minus_baseline" [low, high] (of the threshold with the highest AP), "folds" (AP of each)}.
  """
  drawn: dict[str, list] = {name: [] for name in CANDIDATES}
  points: dict[str, dict[Any, list[float]]] = {name: {} for name in CANDIDATES}
  for seed, folder in runs:
    counts = _scored(folder)
    for name, grouped in counts.items():
      # One draw of patients a fold, whatever the seed and score: differences are paired.
      weights = bootstrap.resample_weights(len(grouped), resamples, len(points[name].get(seed, ())))
      ap = bootstrap.resample_counts(grouped, weights, {"ap": detection.average_precision})["ap"]
      drawn[name].append(ap)
      points[name].setdefault(seed, []).append(float(detection.average_precision(grouped.sum(0))))
  mean = lambda name: np.mean([np.mean(v) for v in points[name].values()])
  references = {"published": PUBLISHED, "baseline": max(THRESHOLDS, key=mean)}
  rows = []
  for name in CANDIDATES:
    resampled = np.nanmean(drawn[name], 0)
    means = [np.mean(v) for v in points[name].values()]
    row = {"score": name, "ap": float(np.mean(means)),
           "sd": float(np.std(means, ddof=1)) if len(means) > 1 else None,
           "folds": [round(float(np.mean(v)), 3) for v in zip(*points[name].values())]}
    row["low"], row["high"] = bootstrap.interval(resampled)
    for word, other in references.items():
      row[f"minus_{word}"] = bootstrap.interval(resampled - np.nanmean(drawn[other], 0))
    rows.append(row)
  files.write_csv(workdir / "scores.csv", [
      {k: " ".join(f"{x:.4f}" for x in v) if isinstance(v, list) else v for k, v in r.items()} for r in rows])
  files.write_bytes(workdir / "scores.md", text(rows, runs, command).encode())
  return rows


def text(rows, runs, command) -> str:
  """The table in Markdown."""
  pair = lambda v: f"{v[0]:+.3f} to {v[1]:+.3f}"
  lines = ["| score | AP | sd of seeds | 95 % | minus published | minus best threshold |",
           "|---|---|---|---|---|---|"]
  for r in rows:
    sd = "-" if r["sd"] is None else f"{r['sd']:.3f}"
    lines.append(f"| {r['score']} | {r['ap']:.3f} | {sd} | {r['low']:.3f} to {r['high']:.3f} | "
                 f"{pair(r['minus_published'])} | {pair(r['minus_baseline'])} |")
  seeds = sorted({seed for seed, _ in runs})
  lines += ["", f"{len(runs)} trained networks, {len(seeds)} seed(s); patients neither trained nor "
            f"fitted on. {command}"]
  return "\n".join(lines) + "\n"


def _scored(folder):
  """{candidate: int [patients,2,CODES]} of a run, kept in its folder."""
  path = pathlib.Path(folder) / "evaluation" / "scores.npz"
  if path.is_file():
    try:
      kept = arrays.read_some(path, ("names", "counts"))
      found = dict(zip(kept["names"].tolist(), kept["counts"]))
    except UserError as e:  # half a file of a killed process
      logging.warning("%s: the run is scored again", e)
      found = {}
    if set(found) == set(CANDIDATES):
      return {name: found[name] for name in CANDIDATES}
  fold = collect(folder)
  counts = {}
  for name, candidate in CANDIDATES.items():
    counts[name] = _counts(candidate(fold), fold.test)
    logging.info("%s: %s %.3f", folder, name, detection.average_precision(counts[name].sum(0)))
  np.savez_compressed(path, names=np.array(list(counts)), counts=np.stack(list(counts.values())))
  return counts


def _counts(maps, part):
  code, names = detection.code_of(np.maximum(maps, 0)), np.unique(part["patient"])
  found = np.zeros((len(names), 2, detection.CODES), np.int32)
  for p, name in enumerate(names):
    rows = part["patient"] == name
    for y in (0, 1):
      found[p, y] = np.bincount(code[rows][part["mask"][rows] == y], minlength=detection.CODES)
  return found


def collect(folder) -> Fold:
  """Images and reconstructions of a trained run.

  Raises:
    UserError: no healthy slices in val.
  """
  run = trained.load(folder, calibrated=False)
  dataset = datasets.open_dataset(run.config.data, run.config.seed)
  healthy = dataset.validation()
  if not isinstance(healthy, Source):
    raise UserError(f"{folder}: val has no healthy slice, on which lesions could be drawn")
  of = "method.score.test_noise_"
  draws = {name: run.override({of + "draws": count, of + "mirror": axis})
           for name, count, axis in (("mean4", 4, 0), ("mirrored2", 2, 2))}
  sources = {"val": dataset.split("val"), "test": dataset.split("test"),
             "drawn": drawn_lesions.DrawnLesions(healthy, run.config.data.modalities)}
  train = dataset.train()
  assert isinstance(train, Source)  # of one stage
  return Fold(**{k: _read(s, {"recon": run, **draws}) for k, s in sources.items()},
              healthy=train.read(np.arange(len(train)))["image"])


def _read(source, runs):
  parts: dict[str, list] = {k: [] for k in ("image", "mask", *runs)}
  for batch in stream.eval_batches(source, batch_size=_BATCH):
    found = {"image": batch["image"], "mask": batch["mask"][..., 0] > 0, **{
        key: np.asarray(of.score_fn({"image": batch["image"]})["recon"])
        for key, of in runs.items()}}
    for key, value in found.items():
      parts[key].append(value[batch["valid"]])
  metas = [source.meta(i) for i in range(len(source))]
  return {**{k: np.concatenate(v) for k, v in parts.items()},
          "patient": np.array([m["patient"] for m in metas]), "slice": np.array([m["slice"] for m in metas])}
