"""Brain MRI volumes: BraTS folders, any manifest.csv of NIfTI volumes, or synthetic brains."""

from __future__ import annotations

import pathlib

from data_pipelines.brains import fields

defaults, resolve, spec = fields.defaults, fields.resolve, fields.spec


def build(data_cfg, seed: int):
  """Opens `data_cfg.dir`, preparing it first where needed; without one, synthetic brains.

  Raises:
    FileNotFoundError, ValueError, OSError: see prepare.prepare_set; the line says what to change.
  """
  cfg = resolve(data_cfg)
  if not cfg["dir"] and not cfg["tfds_dir"]:
    from data_pipelines.datasets import synthetic
    return synthetic.build({**data_cfg, "name": "synthetic"}, seed)
  from data_pipelines.brains import prepare, records, slices
  if cfg["tfds_dir"]:
    from data_pipelines.brains import tfds_brats
    scans, info = tfds_brats.read_scans(cfg["tfds_dir"], cfg)
    name = pathlib.Path(info["source"]).name or "tfds"
    made_up = info.pop("synthetic_source")
  else:
    folder, manifest = prepare.prepare_set(cfg)
    scans = {split: [] for split in manifest["splits"]}
    for record in manifest["scans"]:
      scans[record["split"]].append(records.scan_of(folder, record))
    info = {"preparation": manifest["parameters"], "source": manifest["source"],
            "prepared_dir": str(folder), "split_rule": manifest["split_rule"],
            "sha256": manifest["sha256"], "left_out": manifest["left_out"]}
    name, made_up = pathlib.Path(manifest["source"]).name, manifest["synthetic"]
  if made_up and "synthetic" not in name:
    name = f"synthetic_{name}"
  return slices.SliceDataSet(name, made_up, scans, info, fields.batch_ops(cfg), seed, cfg.cache,
                             cfg.limit_train, fields.augment_ops(cfg))
