"""Volumes of one's own folder (intake/sides.py) as scans of the preparation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import logging
import pathlib

from data_pipelines.brains import files, inputs, prepare, records, slices
from data_pipelines.errors import UserError
from data_pipelines.intake import sides
from data_pipelines.intake.sides import Member

KNOWN = tuple(k for k in files.NEW_NAMES if k != "seg")  # modalities that names of files tell
_LABEL = ("seg", "mask", "label")


@dataclasses.dataclass(frozen=True)
class Group:
  """The files of one scan: {modality: member}, its label file or None."""
  name: str
  volumes: dict[str, Member]
  seg: pathlib.Path | None

  @property
  def first(self) -> Member:
    return next(iter(self.volumes.values()))


def group(members: Sequence[Member], modalities: Sequence[str]) -> tuple[list[Group], tuple[str, ...]]:
  """(scans, modalities): files that differ in the name of a modality alone are one scan.

  Args:
    modalities: config.data.modalities; () = those of the names that all scans have, else each file is
      a scan of one modality, "image".

  Raises:
    UserError: a scan lacks a modality that was asked for.
  """
  asked = tuple(modalities) or KNOWN
  sets: dict[str, dict[str, Member]] = {}
  labels: dict[str, pathlib.Path] = {}
  for m in members:
    prefix, modality = inputs.split_name(m.path, (*asked, *_LABEL))
    key = f"{m.name.rpartition('/')[0]}/{prefix}".lstrip("/")
    if modality in _LABEL:
      labels[key] = m.path
    else:
      sets.setdefault(key, {})[modality] = m
  everywhere = [k for k in asked if all(k in found for found in sets.values())]
  if not modalities and not everywhere:
    if any(set(found) != {""} for found in sets.values()):
      logging.warning("the names of the volumes tell no modality that all scans have: each file is a scan of "
                      "its own; set config.data.modalities where several files belong together")
    alone = [m for m in members if inputs.split_name(m.path, _LABEL)[1] == ""]
    return [Group(m.name, {"image": m}, m.mask) for m in alone], ("image",)
  lacking = {key: [k for k in modalities if k not in found] for key, found in sets.items()}
  bad = [f"{key} ({', '.join(missing)})" for key, missing in lacking.items() if missing]
  if bad:
    raise UserError(f"{len(bad)} scans lack a modality of config.data.modalities, the first: {bad[0]}")
  chosen = tuple(modalities) or tuple(everywhere)
  return [Group(key, {k: found[k] for k in chosen}, labels.get(key) or next(iter(found.values())).mask)
          for key, found in sets.items()], chosen


class OwnScans(slices.SliceDataSet):
  """Prepared scans of one's own folder; splits are recorded with the run.

  Attributes:
    decided: fields of config.data that opening has found.
    listing: rows of splits.csv.
  """

  def __init__(self, *args, decided, listing, **options):
    super().__init__(*args, **options)
    self.decided, self.listing = decided, listing


def build(found: sides.Sides, cfg: Mapping, ops, seed: int) -> OwnScans:
  """Prepares the scans; abnormal ones without a mask are scored, and their slices have no label.

  Raises:
    UserError, OSError: see sides.assign and prepare.prepare_set.
  """
  groups, modalities = group(sides.with_masks(found), cfg["modalities"])
  cfg = {**cfg, "modalities": modalities, "dir": str(found.root)}
  firsts = {g.first.name: g for g in groups}
  members = sides.assign([g.first for g in groups], cfg, found.root)
  scans = []
  for m in members:
    g = firsts[m.name]
    scans.append(files.ScanFiles(g.name, m.split, tuple(str(v.path) for v in g.volumes.values()),
                                 str(g.seg) if g.seg else None, m.patient))
  folder, manifest = prepare.prepare_set(cfg, files.Found(scans, {}, "by patient, of one's own folder"))
  label = {firsts[m.name].name: (m.label, bool(firsts[m.name].seg)) for m in members}
  by_split: dict[str, list[slices.Scan]] = {s: [] for s in sides.SPLITS}
  for record in manifest["scans"]:
    ill, has_mask = label[record["patient"]]
    scan = dataclasses.replace(records.scan_of(folder, record), unlabelled=bool(ill and not has_mask),
                               scan_label=ill)
    by_split[record["split"]].append(scan)
  info = {"preparation": manifest["parameters"], "source": manifest["source"], "prepared_dir": str(folder),
          "sha256": manifest["sha256"], "left_out": manifest["left_out"]}
  name = found.root.name
  if manifest["synthetic"] and "synthetic" not in name:
    name = f"synthetic_{name}"
  return OwnScans(name, manifest["synthetic"], by_split, info, ops, seed, cfg["cache"],
                  decided={"modalities": modalities}, listing=sides.rows(members))
