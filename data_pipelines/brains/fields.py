"""Fields of config.data for brain volumes: defaults, checks, and the noise op they ask for."""

from __future__ import annotations

from data_pipelines.errors import UserError


def defaults() -> dict:
  """Every field of config.data for brain volumes, with its default."""
  return {
      "name": "brats",
      # Folder with BraTS2021_*/..._flair.nii.gz, with BraTS-*/...-t2f.nii.gz, or with manifest.csv
      # (patient, split, one column a modality, optional seg or mask). "" = synthetic brains.
      "dir": "",
      "modalities": ("flair", "t1", "t1ce", "t2"),  # channels, in this order
      "image_size": (128, 128),  # (rows, columns) after the resize
      "prepared_dir": "",  # where prepared scans go; "" = ~/.cache/medae_jax/<folder>_<hash>
      "storage": "float32",  # of prepared scans: "float32" (exact) or "float16" (half the disk)
      "workers": 0,  # processes of the preparation; 0 = one a core
      "strict": False,  # True: one bad scan stops the preparation instead of being left out
      "limit_train": 0,  # the first n training scans of the shuffled list; 0 = all
      "tfds_dir": "",  # read the set from this TFDS folder instead of `dir`
      "cache": True,  # keep prepared scans in memory; False = memory-mapped files
      "resident": False,  # keep the whole training split on the accelerator
      "noise_res": 16,  # nodes of the coarse noise along each side
      "noise_std": 0.2,  # its sigma, unit = 99th percentile of the modality
      "noise_roll": "batch",  # one random shift per "batch" (reference) or per "example"
      "noise_on_device": False,  # True: the training step draws the noise, not the pipeline
      "n_patients": (64, 8, 16),  # synthetic: patients in train, val, test
      "n_slices": 16,  # synthetic: slices of a volume
      "lesion_share": (0.6, 1.0, 1.0),  # synthetic: share of patients with a tumour, by split
      "synthetic_seed": 0,  # synthetic: which patients; not config.seed, so that runs compare
  }


def resolve(data_cfg) -> dict:
  """`data_cfg` over the defaults, sizes checked.

  Raises:
    ValueError: the field that is out of range.
  """
  cfg = {**defaults(), **dict(data_cfg)}
  size = cfg["image_size"]
  size = (size, size) if isinstance(size, int) else tuple(int(v) for v in size)
  if len(size) != 2 or min(size) < 1:
    raise UserError(f"config.data.image_size={size} must be two positive numbers (rows, columns)")
  cfg["image_size"] = size
  cfg["modalities"] = tuple(cfg["modalities"])
  if not cfg["modalities"] or len(set(cfg["modalities"])) != len(cfg["modalities"]):
    raise UserError(f"config.data.modalities={cfg['modalities']} must be different names")
  if cfg["storage"] not in ("float32", "float16"):
    raise UserError(f"config.data.storage={cfg['storage']!r} is neither float32 nor float16")
  return cfg


def batch_ops(cfg: dict) -> tuple:
  """The noise op of the pipeline; none where the step draws its own."""
  if cfg["noise_on_device"] or cfg["resident"]:
    return ()
  # Here, not at the top: configs import this file on hosts without TensorFlow.
  from data_pipelines.ops import coarse_noise  # pylint: disable=import-outside-toplevel
  return (coarse_noise.coarse_noise(cfg["noise_res"], cfg["noise_std"], cfg["noise_roll"]),)
