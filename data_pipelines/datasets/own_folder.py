"""One's own folder: normal/, and perhaps abnormal/ and masks/, of images, DICOM files or volumes.

  FOLDER/normal/**       normal scans; a folder without these names holds normal scans alone
  FOLDER/abnormal/**     for testing (or the name of a finding: pneumonia/, tumour/ ...)
  FOLDER/masks/**        masks/a.png is the mask of abnormal/a.png, 0 = normal
PNG, JPEG, TIFF, DICOM: images; NIfTI: volumes, one file a scan, or one a modality (P01_flair, P01_t1);
DICOM series of at least four slices with places along one normal: volumes, one series a scan, or one a
modality (P01/flair/, or by SeriesDescription).
Patients are split into train, val and test; the run keeps the split in splits.csv.
"""

from __future__ import annotations

import ml_collections

from data_pipelines import fields as data_fields
from data_pipelines.brains import fields as brains
from data_pipelines.errors import UserError

_NOT_HERE = ("tfds_dir", "n_patients", "n_slices", "lesion_share", "synthetic_seed", "limit_train")


def defaults() -> ml_collections.ConfigDict:
  """Every field of config.data, with its default; what volumes need is as in brains/fields.py."""
  fields = brains.defaults("own_folder")
  for name in _NOT_HERE:
    del fields[name]
  fields.dir = ""                  # that folder
  fields.modalities = ()           # of volumes, by the ends of their names; () = found out
  fields.channels = 1              # of images: 1 = grey, 3 = colour
  fields.signed = False            # images in [-1, 1] instead of [0, 1]
  fields.dicom = "auto"            # what DICOM files are: images, volumes (series), or auto: by the files
  fields.window = (0, 0)           # (black, white) of deep images; (0, 0) = by the file
  fields.normal_words = ()         # further names of the folder with normal scans
  fields.anomaly_words = ()        # ... and of folders with abnormal ones
  fields.val_share = 0.2           # of the normal patients, for thresholds
  fields.test_share = 0.2          # ... and for the test, beside all abnormal ones
  fields.split_seed = 0            # which patients; not config.seed: runs compare
  fields.split_table = ""          # a table (file, split) instead; a run's own is its splits.csv
  fields.placement = "anatomy"     # of volumes: true to scale
  return fields


def resolve(data_cfg) -> ml_collections.ConfigDict:
  """`data_cfg` over the defaults, checked.

  Raises:
    UserError: an unknown field, or one that is out of range.
  """
  modalities = data_cfg.get("modalities", ())
  none = isinstance(modalities, (list, tuple)) and not modalities
  given = {**dict(data_cfg.items()), "modalities": ("image",) if none else modalities}
  cfg = data_fields.resolve(given, defaults())
  if cfg.folds:
    raise UserError(f"config.data.folds={cfg.folds}: one's own folder is split by val_share, test_share and "
                    "split_seed; another split_seed is another split")
  brains.check(cfg)
  cfg.modalities = () if none else cfg.modalities
  for name in ("val_share", "test_share"):
    if not 0 < cfg[name] < 1:
      raise UserError(f"config.data.{name}={cfg[name]}: a share between 0 and 1")
  data_fields.choice(cfg, "dicom", ("auto", "images", "volumes"))
  if cfg.channels not in (1, 3):
    raise UserError(f"config.data.channels={cfg.channels}: 1 (grey) or 3 (colour)")
  return cfg


def spec(data_cfg) -> data_fields.Spec:
  """Slices of volumes: background 0, in `unit`; images: [0, 1], or [-1, 1] where signed."""
  cfg = resolve(data_cfg)
  if cfg.modalities:
    return data_fields.Spec((*cfg.image_size, len(cfg.modalities)), 0, None)
  return data_fields.Spec((*cfg.image_size, cfg.channels), -1 if cfg.signed else 0, 1)


def build(data_cfg, seed: int):
  """Opens the folder.

  Raises:
    FileNotFoundError, UserError, OSError: what intake/sides.py and the preparation find.
  """
  cfg = resolve(data_cfg)
  from data_pipelines.intake import sides
  root = data_fields.given_dir(cfg, "dir", "the folder of your scans: normal/, and where you have them "
                               "abnormal/ and masks/")
  found = sides.look(root, cfg.normal_words, cfg.anomaly_words, cfg.dicom)
  ops = brains.batch_ops(cfg)
  if found.kind != "image":
    if cfg.signed:
      raise UserError(f"{root} holds volumes, which this method cannot be trained on: use "
                      "--config=configs/own_folder.py:dae")
    from data_pipelines.brains import own_scans
    return own_scans.build(found, cfg, ops, seed)
  if cfg.modalities:
    raise UserError(f"config.data.modalities={tuple(cfg.modalities)}, but {root} holds images, not volumes: "
                    "leave it empty")
  if cfg.flip or cfg.gain:
    raise UserError(f"config.data.flip and gain are of volumes, and {root} holds images: turn them off")
  from data_pipelines.datasets import _own_images as images
  return images.OwnImages(found, cfg, ops)


def read_example(path, data_cfg):
  """An image as the network is shown it, float32 [h,w,C]."""
  from data_pipelines.datasets import _own_images as images
  return images.read(path, resolve(data_cfg))


def place_map(values, shape, data_cfg):
  """A map [h,w] of `read_example` on the image's own pixels, float64 [H,W]."""
  del data_cfg
  from data_pipelines.datasets import _own_images as images
  return images.off_canvas(values, shape)
