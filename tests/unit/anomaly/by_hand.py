"""What the parts of the anomaly evaluator read of it, given by hand: nothing is scored or compiled."""

import types

import ml_collections
import numpy as np

from medae_jax.tasks.anomaly import image_numbers, whole_scans


def evaluator(score, label, patients, *, baselines=None, **more):
  """An evaluator that has seen images of these scores, labels (-1: unknown) and patients (a letter each)."""
  names, group = np.unique(list(patients), return_inverse=True)
  n = len(score)
  config = ml_collections.ConfigDict({"seed": 3, "data": {}, "eval": {
      "bootstrap": 40, "components": 0, "surface_tolerance": 1.0, "baseline_channel": 0}})
  found = types.SimpleNamespace(
      image_scores={"model": np.array(score, float), **(baselines or {})}, label=np.array(label),
      patients=names, group=group, metas=[{} for _ in range(n)], calibration={}, split="test", counts=None,
      overlap=None, lesion_px=np.full(n, -1), numbers=image_numbers.ImageNumbers(n), config=config,
      dice_grid=None, dataset=types.SimpleNamespace(synthetic=False))
  vars(found).update(more)
  found.scans = lambda: whole_scans.of_images(found.image_scores["model"], found.label, found.metas,
                                              found.group)
  return found


def with_maps(maps, mask, patients, *, slices=False, **more):
  """... of images with maps [n,H,W] and masks, for measures of whole scans: volumes, or images alone."""
  maps, mask = np.asarray(maps, np.float32), np.asarray(mask, bool)
  found = evaluator(maps.max((1, 2)), mask.any((1, 2)).astype(int), patients, overlap={}, **more)
  if slices:
    found.metas = [{**m, "slice": i} for i, m in enumerate(found.metas)]
  found.store = types.SimpleNamespace(get=lambda rows: (maps[rows], mask[rows]))
  own = [np.flatnonzero(found.group == p) for p in range(len(found.patients))]
  found.volumes = lambda: [[rows] if slices else [rows[i:i + 1] for i in range(len(rows))] for rows in own]
  return found
