"""Folds of a cross-validation: the test patients of the study stay unseen until everything is chosen."""

from __future__ import annotations

import dataclasses
import logging

from data_pipelines.brains import files
from data_pipelines.errors import UserError
from data_pipelines.intake import splits


def regroup(found: files.Found, folds: int, fold: int) -> files.Found:
  """Scans of train and val in new splits: fold `fold` is test, the next one val, all others train.

  Weights, thresholds and checkpoints are chosen on val, so that the patients of test were neither trained
  nor fitted on; over all folds each patient is tested on once. People and, where they fit, sites stay
  together (`splits.deal`). The scans that were test are left out: nobody can look at them by accident.

  Raises:
    UserError: fewer people than folds.
  """
  scans = [s for s in found.scans if s.split != "test"]
  place = splits.deal({s.group or s.patient: s.site for s in scans}, folds)
  name = lambda k: {fold: "test", (fold + 1) % folds: "val"}.get(k, "train")
  moved = [dataclasses.replace(s, split=name(place[s.group or s.patient])) for s in scans]
  if not scans:
    raise UserError("config.data.folds: no scan is in train or val")
  count = ", ".join(f"{sum(m.split == s for m in moved)} {s}" for s in ("train", "val", "test"))
  logging.info("Fold %d of %d: %s; the %d scans of test are not read.", fold, folds, count,
               len(found.scans) - len(scans))
  return dataclasses.replace(found, scans=moved,
                             split_rule=f"fold {fold} of {folds} of train and val ({found.split_rule})")
