"""Volumes of one's own folder (intake/sides.py) as scans of the preparation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import logging
import pathlib

import numpy as np

from data_pipelines.brains import (
  fields,
  files,
  labels as truth,
  prepare,
  records,
  scan_folders,
  series,
  slices,
)
from data_pipelines.brains.sequences import (
  ANY,
  KNOWN,
  LABEL_ENDINGS,
  scans_of_label,
  split_name,
)
from data_pipelines.errors import UserError
from data_pipelines.formats import nifti
from data_pipelines.intake import (
  counts,
  find as finder,
  mask_words,
  processed,
  sides,
  tables,
  unlisted,
)
from data_pipelines.intake.sides import Member

_BEFORE = 20  # labels of normal scans that are read before the preparation


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
    UserError: a scan lacks a modality that was asked for; channels of one case without a name.
  """
  asked = tuple(modalities) or KNOWN
  processed.refuse_maps(m.path for m in members)
  processed.refuse_channels(m.path for m in members if not split_name(m.path, asked)[1])
  sets: dict[str, dict[str, Member]] = {}
  labels: dict[str, pathlib.Path] = {}
  for m in members:
    prefix, modality = split_name(m.path, (*asked, *LABEL_ENDINGS))
    key = f"{m.name.rpartition('/')[0]}/{prefix}".lstrip("/")
    if modality in LABEL_ENDINGS:
      labels[key] = m.path
    elif (other := sets.setdefault(key, {}).setdefault(modality, m)) != m:
      alike = tables.same(finder.stem_of(other.path)) == tables.same(finder.stem_of(m.path))
      how = "differ only in their ending" if alike else "are one sequence"
      raise UserError(f"{other.path} and {m.path} {how}: take one away")
  label_of = _labels_of(sets, labels)
  taken = {*labels.values(), *label_of.values()}
  scans = [m.path for m in members if m.path not in taken]
  truth.refuse_marks(scans, asked)
  everywhere = [k for k in asked if all(k in found for found in sets.values())]
  if not everywhere and tuple(modalities) in ((), (ANY,)):  # ANY: found out when the run began
    if any(set(found) != {""} for found in sets.values()):
      logging.warning("the names of the volumes tell no modality that all scans have: each file is a scan of "
                      "its own; set config.data.modalities where several files belong together")
    own = {next(iter(one.values())).path: label_of.get(key) for key, one in sets.items() if len(one) == 1}
    processed.refuse_forms(scans)
    return [Group(m.name, {ANY: m}, m.mask or own.get(m.path)) for m in members if m.path not in taken], (
        ANY,)
  lacking = {key: [k for k in modalities if k not in found] for key, found in sets.items()}
  bad = [f"{key} ({', '.join(missing)})" for key, missing in lacking.items() if missing]
  if bad:
    raise UserError(f"{len(bad)} scans lack a modality of config.data.modalities, the first: {bad[0]}")
  chosen = tuple(modalities) or tuple(everywhere)
  processed.refuse_scans(sets, "config.data.dir")
  processed.refuse_forms(found[chosen[0]].path for found in sets.values())
  return [Group(key, {k: found[k] for k in chosen}, label_of.get(key) or next(iter(found.values())).mask)
          for key, found in sets.items()], chosen


def _labels_of(sets, labels):
  """{scan: its label}: of the scan's name, else of that name and words of labels (P01_tumor_seg), which then
  is none of `sets`; says which labels fit none."""
  found, lonely = {key: path for key, path in labels.items() if key in sets}, []
  besides = {key: path for key, path in labels.items() if key not in sets}
  besides |= {key: one[""].path for key, one in sets.items() if set(one) == {""}}
  for key, path in besides.items():
    folder = key.rpartition("/")[0]
    owners = (f"{folder}/{name}".lstrip("/") for name in scans_of_label(path))
    owner = next((k for k in owners if k in sets and k != key), "")
    if owner and found.setdefault(owner, path) == path:
      sets.pop(key, None)
    elif labels.get(key) == path:
      lonely.append(path)
  if lonely and all(m.label == 0 for one in sets.values() for m in one.values()):
    raise UserError(f"{lonely[0]} is named as a label and is of no scan, or of one that has a label "
                    f"({len(lonely)} such files), and all scans would be taken for normal: "
                    f"{truth.remedy(lonely[0], place=' beside its scan, or put it into masks')}")
  if lonely:
    logging.warning("%d files named as labels are of no scan, or of one that has a label, and are not used, "
                    "the first %s", len(lonely), lonely[0])
  return found


def group_series(found: sides.Sides, modalities: Sequence[str]
                 ) -> tuple[list[Group], tuple[str, ...]]:
  """(scans, modalities) of DICOM series: which belong together says series.py; logs what became of the files.

  Args:
    modalities: config.data.modalities; () = those that all scans have, else, where no series names any, each
      series is a scan of one modality, "image".

  Raises:
    UserError: a scan lacks a modality, or nothing tells which one its series is.
  """
  chosen = tuple(modalities) or KNOWN
  lost = series.unnamed(found.series, chosen, found.root) if len(chosen) > 1 else []
  if lost and not modalities and len(lost) == len(found.series):
    chosen, lost = (ANY,), []
  if lost:
    raise UserError(f"neither folder nor SeriesDescription tells which of {', '.join(chosen)} {len(lost)} "
                    f"series are, the first: {lost[0].folder}: name the folder so (P01/flair), or take each "
                    f"series for a scan with --config.data.modalities='(\"{ANY}\",)'")
  scans = series.scans(found.found, chosen, found.series)
  if not modalities and chosen != (ANY,):
    chosen = tuple(k for k in KNOWN if all(k in s.files for s in scans))
  lacking = [f"{s.name} (has {', '.join(s.files)})" for s in scans
             if not chosen or not set(chosen) <= set(s.files)]
  if lacking:
    raise UserError(f"{len(lacking)} of {len(scans)} scans lack a modality that the others have or that "
                    f"config.data.modalities asks for, the first: {lacking[0]}")
  members = _as_members(scans, found)
  groups = [Group(m.name, {k: dataclasses.replace(m, files=tuple(s.files[k])) for k in chosen}, m.mask)
            for m, s in zip(members, scans, strict=True)]
  used = {f for g in groups for v in g.volumes.values() for f in v.files} | {g.seg for g in groups}
  found.found.leave_out({f: "belongs to no scan" if nifti.is_nifti(f) else
                         f"is of a series that is none of {', '.join(chosen)}"
                         for f in found.found.files if f not in used})
  counts.say(found.found)
  counts.refuse_broken(found.found)
  return groups, chosen


def _as_members(scans, found):
  """One member a scan, with its label: NIfTI, below masks/ by the scan's path or beside its series."""
  side = {m.path: m for m in found.members}
  members = []
  for s in scans:
    first = side[next(iter(s.files.values()))[0]]
    place = found.root / s.name
    members.append(dataclasses.replace(first, name=s.name, path=place if place.is_dir() else first.path,
                                       person=s.patient))
  members = sides.with_masks(dataclasses.replace(found, members=members))
  wrong = next((m.mask for m in members if m.mask is not None and not nifti.is_nifti(m.mask)), None)
  if wrong is not None:
    raise UserError(f"{wrong} is the mask of a volume: give it as NIfTI")
  result = []
  for m, s in zip(members, scans, strict=True):
    masks = [m.mask] if m.mask else []
    masks += [p for p in found.labels if p.parent == s.place or (
        p.parent == s.place.parent and split_name(p, LABEL_ENDINGS)[0] == s.place.name)]
    if len(masks) > 1:
      raise UserError(f"{masks[0]} and {masks[1]} are masks of one scan: take one away")
    result.append(dataclasses.replace(m, mask=masks[0] if masks else None))
  return result


def _check_label(scan, ill, marks):
  """Refuses marks in a scan that is normal by its folder; says where an abnormal one has none."""
  if marks and not ill:
    raise UserError(f"{scan} is normal by its folder, and its label marks something: move it to the abnormal "
                    "scans, or take the label away")
  if ill and not marks:
    logging.warning("%s is abnormal by its folder, and its label marks nothing: all of its slices count as "
                    "normal", scan)


def _check_first_labels(healthy, root, wanted):
  """`_check_label` of some scans before hours of preparation; that of the others comes after it."""
  for scan in healthy[:_BEFORE]:
    try:
      found = np.unique(np.rint(nifti.read(scan.seg)[0]))
    except (UserError, OSError):  # the preparation names it
      continue
    _check_label(root / scan.name, False, any(v in wanted if wanted else v > 0 for v in found))


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
  mask_words.refuse_folders([m.path for m in found.members], found.root, [
      *cfg["normal_words"], *cfg["anomaly_words"]])
  groups, modalities = (group_series(found, cfg["modalities"]) if found.kind == "series" else
                        group(sides.with_masks(found), cfg["modalities"]))
  cfg = {**cfg, "modalities": modalities, "dir": str(found.root)}
  if not any(g.seg for g in groups):
    truth.check_foreign(found.root, [item for item in found.found.left_out if not item.broken])
  firsts = {g.first.name: g for g in groups}
  members = sides.assign([g.first for g in groups], cfg, found.root)
  if cfg["grouping"] == "patient":
    pictures = [unlisted.Picture(firsts[m.name].name, m.split, m.label) for m in members]
    beside = unlisted.tables_of(found.found, cfg["split_table"])
    unlisted.say_tables(beside, pictures, found.root, unlisted.TOGETHER)
  scans = []
  for m in members:
    g = firsts[m.name]
    scans.append(scan_folders.ScanFiles(g.name, m.split, tuple(v.source for v in g.volumes.values()),
                                        str(g.seg) if g.seg else None, m.patient))
  if not prepare.is_prepared(cfg):  # later the records of the labels say it
    _check_first_labels([g for g in groups if g.seg and not g.first.label], found.root, cfg["lesion_values"])
  folder, manifest = prepare.prepare_set(cfg, files.Found(scans, {}, "by patient, of one's own folder"))
  label = {firsts[m.name].name: (m.label, bool(firsts[m.name].seg)) for m in members}
  by_split: dict[str, list[slices.Scan]] = {s: [] for s in sides.SPLITS}
  for record in manifest["scans"]:
    ill, has_mask = label[record["patient"]]
    if has_mask and "label_values" in record:
      wanted = cfg["lesion_values"]
      marks = any(not wanted or int(v) in wanted for v in record["label_values"])
      _check_label(found.root / record["patient"], ill, marks)
    scan = dataclasses.replace(records.scan_of(folder, record), unlabelled=bool(ill and not has_mask),
                               scan_label=ill)
    by_split[record["split"]].append(scan)
  info = {"preparation": manifest["parameters"], "source": manifest["source"], "prepared_dir": str(folder),
          "sha256": manifest["sha256"], "left_out": manifest["left_out"]}
  name = found.root.name
  if manifest["synthetic"] and "synthetic" not in name:
    name = f"synthetic_{name}"
  return OwnScans(name, manifest["synthetic"], by_split, info, ops, seed, cfg["cache"],
                  augment=fields.augment_ops(cfg),
                  decided={"modalities": modalities, **sides.decided(found)}, listing=sides.rows(members))
