"""Brain MRI volumes: BraTS folders, any manifest.csv of NIfTI volumes, or synthetic brains."""

from __future__ import annotations

import logging
import pathlib


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
    raise ValueError(f"config.data.image_size={size} must be two positive numbers (rows, columns)")
  cfg["image_size"] = size
  cfg["modalities"] = tuple(cfg["modalities"])
  if not cfg["modalities"] or len(set(cfg["modalities"])) != len(cfg["modalities"]):
    raise ValueError(f"config.data.modalities={cfg['modalities']} must be different names")
  if cfg["storage"] not in ("float32", "float16"):
    raise ValueError(f"config.data.storage={cfg['storage']!r} is neither float32 nor float16")
  return cfg


def batch_ops(cfg: dict) -> tuple:
  """The noise op of the pipeline; none where the step draws its own."""
  if cfg["noise_on_device"] or cfg["resident"]:
    return ()
  from data_pipelines import noise  # pylint: disable=import-outside-toplevel
  return (noise.coarse_noise(cfg["noise_res"], cfg["noise_std"], cfg["noise_roll"]),)


def open(data_cfg, seed: int):  # pylint: disable=redefined-builtin
  """Opens `data_cfg.dir`, preparing it first where needed; without one, synthetic brains.

  Raises:
    FileNotFoundError, ValueError, OSError: see prepare.prepare_set; the line says what to change.
  """
  cfg = resolve(data_cfg)
  if not cfg["dir"] and not cfg["tfds_dir"]:
    from data_pipelines import synthetic  # pylint: disable=import-outside-toplevel
    logging.warning("config.data.dir is empty: using SYNTHETIC brains. The results say nothing "
                    "about patients; set --config.data.dir=FOLDER for real volumes.")
    return synthetic.open(data_cfg, seed)
  from data_pipelines import prepare, records, slices  # pylint: disable=import-outside-toplevel
  if cfg["tfds_dir"]:
    from data_pipelines import tfds_brats  # pylint: disable=import-outside-toplevel
    scans, info = tfds_brats.read_scans(cfg["tfds_dir"], cfg)
    name = pathlib.Path(info["source"]).name or "tfds"
    synthetic = info.pop("synthetic_source")
  else:
    folder, manifest = prepare.prepare_set(cfg)
    scans = {split: [] for split in manifest["splits"]}
    for record in manifest["scans"]:
      scans[record["split"]].append(records.scan_of(folder, record))
    info = {"preparation": manifest["parameters"], "source": manifest["source"],
            "prepared_dir": str(folder), "split_rule": manifest["split_rule"],
            "sha256": manifest["sha256"], "left_out": manifest["left_out"]}
    name, synthetic = pathlib.Path(manifest["source"]).name, manifest["synthetic"]
  if synthetic and "synthetic" not in name:
    name = f"synthetic_{name}"
  return slices.SliceDataSet(name, synthetic, scans, info, batch_ops(cfg), seed, cfg["cache"],
                             int(cfg["limit_train"]))
