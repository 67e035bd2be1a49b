"""Brain volumes as an ordinary TFDS data set, built from a local folder, never from the network.

  tfds build data_pipelines/brains/tfds_brats.py --manual_dir=FOLDER [--config=flair_t1_t1ce]
  python -m data_pipelines.brains.tfds_brats --manual_dir=FOLDER [--config=...] [--data_dir=OUT]

The second form is for installations where the program `tfds` does not start (that of TFDS 4.9.10
wants apache-beam for every command). FOLDER is what config.data.dir takes: BraTS folders or
manifest.csv. The numbers are those of data_pipelines.brains.prepare, which this wraps: slices in
order, scans in the order of their ids.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines.brains import fields, prepare, records
from data_pipelines.brains.slices import Scan
from data_pipelines.errors import UserError
from data_pipelines.intake import patients as people, splits


@dataclasses.dataclass(kw_only=True)
class BratsConfig(tfds.core.BuilderConfig):
  """Channels and size.

  Attributes:
    modalities: channels of "image", in this order.
    image_size: (rows, columns).
    source: folder with the volumes; "" = the manual_dir of `tfds build`.
    prepared_dir: see data_pipelines.brains.fields.defaults.
  """

  modalities: tuple[str, ...] = ("flair", "t1", "t1ce", "t2")
  image_size: tuple[int, int] = (128, 128)
  source: str = ""
  prepared_dir: str = ""


class MedaeBrats(tfds.core.GeneratorBasedBuilder):
  """Axial slices of brain MRI volumes with lesion masks; splits train, val, test by scan."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES = {"1.0.0": "Preparation of Kascenas et al., MIDL 2022."}
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
      "Give --manual_dir a folder with BraTS scan folders or with manifest.csv.")
  BUILDER_CONFIGS = [
      BratsConfig(name="flair_t1_t1ce_t2", description="The four modalities of BraTS."),
      BratsConfig(name="flair_t1_t1ce", description="Without T2.",
                  modalities=("flair", "t1", "t1ce")),
  ]

  def _info(self) -> tfds.core.DatasetInfo:
    c = self.builder_config
    return tfds.core.DatasetInfo(
        builder=self,
        description=self.__doc__,
        features=tfds.features.FeaturesDict({
            "image": tfds.features.Tensor(shape=(*c.image_size, len(c.modalities)),
                                          dtype=np.float32),
            "mask": tfds.features.Tensor(shape=(*c.image_size, 1), dtype=np.uint8),
            "label": np.int32,
            "patient": tfds.features.Text(),
            "slice": np.int32,
        }),
        disable_shuffling=True,  # slices of a scan stay together and in order
        metadata=tfds.core.MetadataDict(modalities=list(c.modalities)),
    )

  def _split_generators(self, dl_manager):
    c = self.builder_config
    source = c.source or str(dl_manager.manual_dir)
    cfg = fields.resolve({"dir": source, "modalities": c.modalities, "image_size": c.image_size,
                         "prepared_dir": c.prepared_dir})
    folder, manifest = prepare.prepare_set(cfg)
    self.info.metadata.update(source=manifest["source"], synthetic=manifest["synthetic"])
    found = {split: [r for r in manifest["scans"] if r["split"] == split]
             for split in manifest["splits"]}
    return {split: self._generate_examples(folder, scans) for split, scans in found.items()
            if scans}

  def _generate_examples(self, folder, scans):
    number = 0  # with disable_shuffling, keys must be increasing integers
    for record in scans:
      scan = records.scan_of(folder, record)
      image, mask = np.asarray(scan.image, np.float32), np.asarray(scan.mask)
      for i, z in enumerate(scan.slices):
        yield number, {"image": image[i], "mask": mask[i], "label": int(scan.lesion_px[i] > 0),
                       "patient": scan.patient, "slice": int(z)}
        number += 1


def read_scans(tfds_dir, cfg) -> tuple[dict[str, list[Scan]], dict]:
  """Scans {split: [...]} of a built set, in memory, and what to say about it.

  Args:
    tfds_dir: the folder with dataset_info.json, or one above it (.../medae_brats/<config>/1.0.0).

  Raises:
    FileNotFoundError: no TFDS set there. UserError: it has other modalities or another size.
  """
  folder = pathlib.Path(tfds_dir).expanduser()
  found = sorted(folder.glob("**/dataset_info.json")) if folder.is_dir() else []
  if len(found) != 1:
    raise FileNotFoundError(f"config.data.tfds_dir={str(folder)!r} must lead to one TFDS set, "
                            f"found {len(found)} dataset_info.json; build one with tfds build "
                            "data_pipelines/brains/tfds_brats.py --manual_dir=FOLDER")
  builder = tfds.builder_from_directory(found[0].parent)
  shape = tuple(builder.info.features["image"].shape)
  modalities = tuple((builder.info.metadata or {}).get("modalities", cfg["modalities"]))
  if shape[:2] != tuple(cfg["image_size"]) or modalities != tuple(cfg["modalities"]):
    raise UserError(f"the TFDS set {found[0].parent} has images {shape} of {modalities}; set "
                     "config.data.image_size and config.data.modalities to them")
  scans = {"train": [], "val": [], "test": []}
  for split in builder.info.splits:
    rows = {}
    for row in tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False)):
      rows.setdefault(row["patient"].decode(), []).append(row)
    for patient, mine in rows.items():
      mine.sort(key=lambda r: int(r["slice"]))
      mask = np.stack([r["mask"] for r in mine])
      scans[split].append(Scan(
          patient, np.stack([r["image"] for r in mine]), mask,
          np.array([r["slice"] for r in mine], np.int64),
          mask.sum(axis=(1, 2, 3), dtype=np.int64), str(found[0].parent)))
  group = people.of_scans([s.patient for found in scans.values() for s in found], cfg["group_pattern"],
                          cfg["grouping"])
  splits.check_no_leak({split: [group[s.patient] for s in found] for split, found in scans.items()},
                       str(found[0].parent), "build the set again: its splits are then by patient",
                       allow=cfg["grouping"] == "legacy")
  metadata = builder.info.metadata or {}
  info = {"preparation": {"modalities": list(modalities), "image_size": list(shape[:2])},
          "source": metadata.get("source", ""), "tfds_dir": str(found[0].parent),
          "synthetic_source": bool(metadata.get("synthetic", False))}
  return scans, info


def main():
  """Builds a set as `tfds build` does."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--manual_dir", required=True, help="folder with the volumes")
  parser.add_argument("--config", default=MedaeBrats.BUILDER_CONFIGS[0].name)
  parser.add_argument("--data_dir", default=None, help="default ~/tensorflow_datasets")
  args = parser.parse_args()
  builder = MedaeBrats(data_dir=args.data_dir, config=args.config)
  builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(manual_dir=args.manual_dir))
  print(builder.data_dir)


if __name__ == "__main__":
  main()
