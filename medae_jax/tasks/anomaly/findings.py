"""Image scores finding by finding: each pathology against all normal images, with two kinds of interval.

A finding is what the data set calls an abnormal image: "finding" of its meta (of several joined
by "|" for each), else "kind". The bootstrap draws patients or groups, DeLong takes images for independent.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from medae_jax.metrics import bootstrap, detection, ranking, roc


def names_of(meta) -> list[str]:
  """Findings of an image."""
  return [name for name in str(meta.get("finding") or meta.get("kind") or "").split("|") if name]


def measure(evaluator) -> dict[str, Any]:
  """{"findings": {name: numbers}, "image_fpr95", "image_fpr99", "ci95_delong": {"image_auroc": [low, high]}}.

  Numbers of a finding: "n" images, "auroc", "ap", "fpr95", "fpr99" (false-positive rate at 95 and 99 %
  sensitivity), "ci95" {"auroc", "ap"} over patients, "ci95_delong" of the AUROC; "auroc_mean", "auroc_std"
  as published tables have them (metrics.roc.published_spread). {} without both kinds of images.
  """
  score, label = evaluator.image_scores["model"], evaluator.label
  known = label >= 0
  if set(label[known]) != {0, 1}:
    return {}
  found: dict[str, Any] = {"ci95_delong": {"image_auroc": roc.delong(score[known], label[known])}}
  for share in (95, 99):
    found[f"image_fpr{share}"] = roc.fpr_at(score[known], label[known], share / 100)[0]
  members: dict[str, list[int]] = {}
  for i in np.flatnonzero(label == 1):
    for name in names_of(evaluator.metas[i]):
      members.setdefault(name, []).append(int(i))
  if members:
    normal = np.flatnonzero(label == 0)
    found["findings"] = {name: _one(evaluator, np.concatenate([normal, rows]).astype(int))
                         for name, rows in sorted(members.items())}
  return found


def rows(found: dict[str, Any]) -> list[dict[str, Any]]:
  """Lines of <split>_findings.csv."""
  lines = []
  for name, v in found.get("findings", {}).items():
    flat = {k: x for k, x in v.items() if not isinstance(x, (dict, list))}
    for key, pair in (*v["ci95"].items(), ("auroc_delong", v["ci95_delong"])):
      flat[f"{key}_low"], flat[f"{key}_high"] = pair or (None, None)
    lines.append({"finding": name, **flat})
  return lines


def _one(evaluator, where):
  score, label = evaluator.image_scores["model"][where], evaluator.label[where]
  counts = detection.sorted_counts(score, label)
  out = {"n": int((label == 1).sum()), "auroc": float(detection.auroc(counts)),
         "ap": float(detection.average_precision(counts)),
         **{f"fpr{s}": roc.fpr_at(score, label, s / 100)[0] for s in (95, 99)},
         "ci95_delong": roc.delong(score, label), **roc.published_spread(score, label)}
  patients, group = np.unique(evaluator.group[where], return_inverse=True)
  resamples = int(evaluator.config.eval.bootstrap) if len(patients) > 1 else 0
  weights = bootstrap.resample_weights(len(patients), resamples, evaluator.config.seed)
  drawn = ranking.of_images(score, label, group, weights)["ci95"]
  return {**out, "ci95": {name.removeprefix("image_"): interval for name, interval in drawn.items()}}
