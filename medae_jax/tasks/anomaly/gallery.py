"""Rows of pictures for the page of a run: the panel's images, the worst misses, the worst false alarms."""

from __future__ import annotations

from typing import Any

import numpy as np

from medae_jax.tasks.anomaly import captions, pictures

_WORST = 6


def choose(evaluator, n: int) -> dict[str, np.ndarray]:
  """Rows of the split to show, by part of the page.

  Args:
    n: rows of the panel; 0 = no pictures at all.

  Returns:
    {"panel", "misses", "false_alarms"}: misses are abnormal images with the lowest scores, false alarms
    normal ones with the highest, at most one a patient; on the wrong side of the image threshold where
    there is one.
  """
  found = {"panel": pictures.choose(evaluator, n)}
  score, label, cut = evaluator.image_scores["model"], evaluator.label, _cut(evaluator)
  most = min(n, _WORST)
  missed = np.flatnonzero((label == 1) & (True if cut is None else score <= cut))
  alarms = np.flatnonzero((label == 0) & (True if cut is None else score > cut))
  found["misses"] = _one_each(evaluator, missed[np.argsort(score[missed], kind="stable")], most)
  found["false_alarms"] = _one_each(evaluator, alarms[np.argsort(-score[alarms], kind="stable")], most)
  return found


def _cut(evaluator):
  return (evaluator.calibration or {}).get("image_threshold")


def _one_each(evaluator, rows, most):
  """The first row of every patient, in order."""
  _, first = np.unique(evaluator.group[rows], return_index=True)
  return rows[np.sort(first)][:most].astype(np.int64)


def rows(evaluator, cases: list[dict[str, Any]], scale: dict[str, Any]) -> list[dict[str, Any]]:
  """The cases in the order of `choose`, as `reporting.gallery` writes them."""
  parts = [part for part, chosen in evaluator._chosen.items() for _ in chosen]
  drawn = pictures.rows(evaluator, cases, scale)
  table = []
  for part, case, cells in zip(parts, cases, drawn, strict=True):
    row = case["row"]
    table.append({"part": part, "title": str(evaluator.patients[evaluator.group[row]]),
                  "facts": captions.describe(evaluator, row),
                  "verdict": captions.confusion_of(evaluator, case), "sides": captions.sides(evaluator),
                  "cells": [{"head": head, "picture": picture} for head, picture in cells.items()]})
  return table
