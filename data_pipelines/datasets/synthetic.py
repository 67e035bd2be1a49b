"""Synthetic brains as a data set: no files needed, the same brains for the same synthetic_seed.

Results on them say that a program works, and nothing about patients.
"""

from __future__ import annotations

import concurrent.futures
import os
import pathlib

import numpy as np

from data_pipelines import when_read
from data_pipelines.brains import fields, normalise, phantom
from data_pipelines.brains.slices import Scan, SliceDataSet
from data_pipelines.errors import UserError
from data_pipelines.formats import nifti

_SPLITS = ("train", "val", "test")
# Voxels of brain in a slice that is kept for certain: each is at least 0.02 of its modality's gain, so that
# they reach normalise.SLICE_SUM up to a 99th percentile of four times the gain; it is near the gain itself.
_SURELY_KEPT = 100


def defaults():
  """Fields of config.data: those of brain volumes, of which the "synthetic" ones count here."""
  return fields.defaults("synthetic")


def resolve(data_cfg):
  """All fields, checked.

  Raises:
    UserError: an unknown field, a modality that is not one of flair, t1, t1ce, t2, or a number out
      of range.
  """
  cfg = fields.resolve(data_cfg, "synthetic")
  unknown = [m for m in cfg.modalities if m not in phantom.MODALITIES]
  if unknown:
    raise UserError(f"config.data.modalities: synthetic brains have "
                    f"{', '.join(phantom.MODALITIES)}, not {', '.join(unknown)}")
  return cfg


spec = fields.spec


def build(data_cfg, seed: int) -> SliceDataSet:
  """`n_patients` = (train, val, test) synthetic patients, each drawn when one of its slices is first read.

  Args:
    data_cfg: those fields that count here: modalities, image_size, n_patients, n_slices,
      lesion_share, synthetic_seed, noise_*.
    seed: orders the training patients; the patients themselves depend on `synthetic_seed`.

  Raises:
    UserError: see `resolve`.
  """
  cfg = resolve(data_cfg)
  counts = [int(n) for n in cfg.n_patients]
  jobs = [(split, i) for split, n in zip(_SPLITS, counts) for i in range(n)]
  with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
    scans = list(pool.map(lambda job: _scan(cfg, *job), jobs))
  by_split = {split: [s for s, job in zip(scans, jobs) if job[0] == split] for split in _SPLITS}
  info = {"preparation": {k: cfg[k] for k in ("modalities", "image_size", "n_patients", "n_slices",
                                              "lesion_share", "synthetic_seed")}}
  return SliceDataSet("synthetic_brains", True, by_split, info, fields.batch_ops(cfg), seed,
                      augment=fields.augment_ops(cfg))


def patient(cfg, split: str, number: int, shape):
  """Raw volumes {modality: float32 [H,W,Z]} and seg uint8 [H,W,Z] of one synthetic patient."""
  rng, lesions = _who(cfg, split, number)
  return phantom.brain(rng, shape, tuple(cfg["modalities"]), lesions)


def _who(cfg, split, number):
  """The source of a patient's random choices, and whether it has lesions."""
  key = [int(cfg["synthetic_seed"]), _SPLITS.index(split), number]
  share = float(cfg["lesion_share"][_SPLITS.index(split)])
  # Spread evenly rather than drawn, so that a set of three patients has its share too.
  return np.random.default_rng(key), int((number + 1) * share + 1e-9) > int(number * share + 1e-9)


def _scan(cfg, split, number) -> Scan:
  """One patient, drawn now only where its outline does not say which slices it has."""
  name, outline = f"synthetic_{split}_{number:04d}", _outline(cfg, split, number)
  if outline is None:
    return Scan(name, *_drawn(cfg, split, number))

  def make():
    image, mask, *found = _drawn(cfg, split, number)
    if not all(map(np.array_equal, found, outline)):
      raise RuntimeError(f"{name} was drawn with other slices or lesions than its outline has")
    return image, mask
  parts, shape = when_read.Parts(make), (len(outline[0]), *cfg["image_size"])
  return Scan(name, when_read.WhenRead(parts, 0, (*shape, len(cfg["modalities"])), np.float32),
              when_read.WhenRead(parts, 1, (*shape, 1), np.uint8), *outline)


def _outline(cfg, split, number):
  """(numbers, lesion pixels) of the slices that `_drawn` will keep; None where only drawing tells."""
  if cfg["placement"] != "scan":
    return None  # where a slice lies depends on all of them
  rng, lesions = _who(cfg, split, number)
  n = int(cfg["n_slices"])
  inside, seg = phantom.outline(rng, (*cfg["image_size"], n), lesions)
  ends = []
  for order in (range(n), range(n - 1, -1, -1)):
    z, count = next(((z, c) for z in order if (c := int(inside(z).sum()))), (0, 0))
    if count < _SURELY_KEPT:
      return None
    ends.append(z)
  slices = np.arange(ends[0], ends[1] + 1, dtype=np.int64)
  return slices, (seg[..., slices] > normalise.LABEL).sum((0, 1), dtype=np.int64)


def _drawn(cfg, split, number):
  """(image, mask, slices, lesion pixels) of a patient, through the same preparation as real scans."""
  h, w = cfg["image_size"]
  raw, seg = patient(cfg, split, number, (h, w, int(cfg["n_slices"])))
  prepared = normalise.prepare([raw[m] for m in cfg["modalities"]], seg, (h, w),
                               [cfg["field_mm"] / max(h, w)] * 3, cfg["placement"], cfg["field_mm"],
                               cfg["unit"])
  mask = np.ascontiguousarray(prepared.mask)
  # Contiguous by slice: gathering a batch out of [h,w,n,C] memory is four times slower.
  return (np.ascontiguousarray(prepared.image, np.float32), mask, prepared.slices,
          mask.sum(axis=(1, 2, 3), dtype=np.int64))


def write_nifti(folder, n_patients: int = 3, *, shape=(48, 48, 12), modalities=None, seed: int = 0,
                style: str = "brats2021", lesion_share: float = 1.0, splits=None) -> list[str]:
  """Writes synthetic patients as BraTS-style NIfTI folders, for tests and for trying things out.

  Args:
    folder: made if needed; gets one folder a patient, and SYNTHETIC.txt.
    shape: (H, W, Z) voxels; BraTS has (240, 240, 155).
    modalities: names, default all four.
    style: "brats2021" = BraTS2021_90000/BraTS2021_90000_flair.nii.gz ... (no id of a real scan),
      "brats2023" = BraTS-SYN-00000-000/BraTS-SYN-00000-000-t2f.nii.gz ...
    splits: (train, val, test) counts that add up to n_patients, written as data_splits/*/scans.csv;
      None = no such files, so that the seeded rule applies.

  Returns:
    The scan ids. Volumes are int16 (0 .. about 1000), labels uint8 with 1, 2, 4.
  """
  from data_pipelines.brains import prepare, scan_folders
  folder = pathlib.Path(folder)
  modalities = tuple(modalities or phantom.MODALITIES)
  cfg = {"synthetic_seed": seed, "modalities": modalities, "lesion_share": (lesion_share,) * 3}
  ids = []
  for i in range(n_patients):
    name = f"BraTS2021_{90000 + i:05d}" if style == "brats2021" else f"BraTS-SYN-{i:05d}-000"
    raw, seg = patient(cfg, "train", i, shape)
    (folder / name).mkdir(parents=True, exist_ok=True)
    arrays = {m: np.rint(v * 600).astype(np.int16) for m, v in raw.items()} | {"seg": seg}
    for kind, array in arrays.items():
      # Axes towards left, posterior, superior, as in BraTS.
      nifti.write(folder / name / scan_folders.file_name(name, kind, style), array,
                  np.diag([-1.0, -1.0, 1.0, 1.0]))
    ids.append(name)
  (folder / prepare.SYNTHETIC_MARK).write_text("Synthetic brains of medae_jax, not patients.\n")
  ends = np.cumsum((0, *splits)) if splits else ()
  for split, start, end in zip(_SPLITS, ends, ends[1:]):
    (folder / "data_splits" / split).mkdir(parents=True, exist_ok=True)
    (folder / "data_splits" / split / "scans.csv").write_text("\n".join(ids[start:end]))
  return ids
