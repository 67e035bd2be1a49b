"""Fields of config.data for brain volumes: defaults, checks, and the noise op they ask for."""

from __future__ import annotations

import ml_collections

from data_pipelines import fields as data_fields
from data_pipelines.brains import normalise, placement
from data_pipelines.errors import UserError


def defaults(name: str = "brats") -> ml_collections.ConfigDict:
  """Every field of config.data for brain volumes, with its default."""
  fields = data_fields.common(name)
  # Folder with BraTS2021_*/..._flair.nii.gz, with BraTS-*/...-t2f.nii.gz, or with manifest.csv
  # (patient, split, one column a modality, optional seg or mask, optional group: whose scan it is).
  fields.dir = ""                  # that folder; "" = synthetic brains
  fields.modalities = ("flair", "t1", "t1ce", "t2")  # channels, in this order
  fields.image_size = (128, 128)   # (rows, columns) after the resize
  data_fields.files(fields)
  fields.orientation = "LPS"       # axes to which all volumes are turned, BraTS's; "" = as stored
  # The whole slice resized to image_size, as published; or true to scale with the anatomy in the
  # middle, so that crops, margins and voxel sizes do not matter.
  fields.placement = "scan"        # scan or anatomy
  fields.field_mm = 192.0          # anatomy: mm of the longer side of image_size
  fields.unit = "percentile"       # of intensity: the 99th percentile of a modality, as published, which a
                                   # bright lesion raises; "median": twice the median of its brain; or
                                   # "balanced": the geometric mean of these two
  fields.lesion_values = ()        # values of a label that are lesion; () = all above 0, where they are
                                   # 0 to 4 (BraTS) or 0 and 255; a label with others is refused
  fields.prepared_dir = ""         # of prepared scans; "" = ~/.cache/medae_jax/<folder>_<hash>
  fields.storage = "float32"       # of prepared scans: float32 (exact) or float16 (half the disk)
  fields.workers = 0               # processes of the preparation; 0 = one a core
  fields.strict = False            # True: one bad scan stops the preparation, else it is left out
  fields.limit_train = 0           # the first n training scans of the shuffled list; 0 = all
  # Cross-validation: patients of train and val are dealt into so many folds, those of test are not read
  # at all. Fold `fold` is then the split test, the next one val, the others train; see brains/folds.py.
  fields.folds = 0                 # 0 = the splits as they are
  fields.fold = 0
  fields.tfds_dir = ""             # read the set from this TFDS folder instead of `dir`
  fields.cache = True              # keep prepared scans in memory; False = memory-mapped files
  fields.noise_res = 16            # nodes of the coarse noise along each side
  fields.noise_std = 0.2           # its sigma, in `unit`
  fields.noise_roll = "batch"      # one random shift per batch (reference) or per example
  fields.noise_on_device = False   # True: the training step draws the noise, not the pipeline
  fields.flip = False              # training: slices mirrored left to right, half of them at random
  fields.gain = 0.0                # training: each modality of a slice times exp(gain z), z ~ N(0, 1)
  fields.n_patients = (64, 8, 16)  # synthetic: patients in train, val, test
  fields.n_slices = 16             # synthetic: slices of a volume
  fields.lesion_share = (0.6, 1.0, 1.0)  # synthetic: share of patients with a tumour, by split
  fields.synthetic_seed = 0        # synthetic: which patients; not config.seed: runs compare
  return fields


def resolve(data_cfg, name: str = "brats") -> ml_collections.ConfigDict:
  """`data_cfg` over the defaults, checked.

  Raises:
    UserError: an unknown field, or one that is out of range.
  """
  cfg = data_fields.resolve(data_cfg, defaults(name))
  check(cfg)
  return cfg


def check(cfg: ml_collections.ConfigDict) -> None:
  """Raises UserError where a field of volumes is out of range."""
  cfg.image_size = tuple(int(v) for v in cfg.image_size)
  if not cfg.modalities or len(set(cfg.modalities)) != len(cfg.modalities):
    raise UserError(f"config.data.modalities={cfg.modalities} must be different names")
  if cfg.orientation and sorted("LRPASI".find(c) // 2 for c in cfg.orientation) != [0, 1, 2]:
    raise UserError(f'config.data.orientation={cfg.orientation!r}: axes such as LPS or RAS (one each of L R, '
                    'P A and S I), or ""')
  if not 0 < cfg.field_mm < 1e5:
    raise UserError(f"config.data.field_mm={cfg.field_mm} must be a positive number of mm")
  values = cfg.lesion_values
  if not all(type(v) is int and v for v in values) or len(set(values)) < len(values):
    raise UserError(f"config.data.lesion_values={tuple(values)}: different whole numbers, none of them 0")
  if cfg.folds and not (cfg.folds >= 3 and 0 <= cfg.fold < cfg.folds):
    raise UserError(f"config.data.folds={cfg.folds} and fold={cfg.fold}: at least three folds (train, val, "
                    "test), and one of 0 to folds - 1; 0 folds = the splits as they are")
  if cfg.fold and not cfg.folds:
    raise UserError(f"config.data.fold={cfg.fold} is one of folds, and config.data.folds=0 makes none: set "
                    "folds=5, or fold=0")
  if cfg.folds and cfg.tfds_dir:
    raise UserError("config.data.folds needs the scans themselves (config.data.dir): the splits of a TFDS "
                    "folder are fixed")
  if not 0 <= cfg.gain <= 1:
    raise UserError(f"config.data.gain={cfg.gain}: from 0 (none) to 1")
  if cfg.flip:
    _left_right(cfg.orientation)
  if cfg.resident and (cfg.flip or cfg.gain):
    raise UserError("config.data.resident cannot mirror slices or change their gain; turn flip and gain off, "
                    "or resident")
  data_fields.choice(cfg, "placement", placement.NAMES)
  data_fields.choice(cfg, "unit", normalise.UNITS)
  data_fields.choice(cfg, "noise_roll", ("batch", "example"))
  if cfg.unit != "percentile" and cfg.get("tfds_dir", ""):
    raise UserError(f"config.data.unit={cfg.unit} needs the scans themselves (config.data.dir): those of a "
                    "TFDS folder are in units of the 99th percentile")
  data_fields.choice(cfg, "storage", ("float32", "float16"))
  data_fields.choice(cfg, "grouping", data_fields.GROUPINGS)


def spec(data_cfg) -> data_fields.Spec:
  """Slices as they are shown to the network: background 0, in `unit`, not clipped."""
  cfg = resolve(data_cfg)
  return data_fields.Spec((*cfg.image_size, len(cfg.modalities)), 0, None)


def batch_ops(cfg) -> tuple:
  """The noise op of the pipeline; none where the step draws its own."""
  if cfg["noise_on_device"] or cfg["resident"] or not cfg["noise_std"]:
    return ()
  # Here, not at the top: configs import this file on hosts without TensorFlow.
  from data_pipelines.ops import coarse_noise
  return (coarse_noise.coarse_noise(cfg["noise_res"], cfg["noise_std"], cfg["noise_roll"]),)


def augment_ops(cfg) -> tuple:
  """What changes training slices before the noise: mirror images and gains."""
  if not cfg["flip"] and not cfg["gain"]:
    return ()
  from data_pipelines.ops import augment
  return ((augment.random_flip((_left_right(cfg["orientation"]),)),) if cfg["flip"] else ()) + (
      (augment.random_gain(cfg["gain"]),) if cfg["gain"] else ())


def _left_right(orientation):
  """Axis of a batch [n,h,w,C] of slices that runs between left and right: 1 for LPS."""
  axis = 1 + next((i for i, letter in enumerate(orientation[:2]) if letter in "LR"), -1)
  if not axis:
    raise UserError(f'config.data.flip mirrors left to right, and slices of orientation "{orientation}" have '
                    "no such axis: set orientation=LPS, or flip=False")
  return axis
