"""One's own folder: normal/, abnormal/, masks/, or images alone; who is trained on and who is tested on.

The folder of a file below the root says its side, in any of the words of intake/vocabulary.py. A folder
without any such name holds normal scans alone. Patients are split once; a patient with anything
abnormal is tested on with all that is his.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
import dataclasses
import logging
import math
import pathlib
import re

from data_pipelines import cells, scored_alone
from data_pipelines.errors import UserError
from data_pipelines.formats import dicom_series
from data_pipelines.intake import (
  counts,
  find as finder,
  folder_words,
  mask_words,
  names as naming,
  patients,
  processed,
  splits,
  tables,
  vocabulary,
)
from data_pipelines.intake.tables import same

SPLITS = vocabulary.SPLITS


@dataclasses.dataclass(frozen=True)
class Member:
  """A scan or image: `name` below the root, its files, whose it is, 0 normal or 1 abnormal.

  files, person: of a DICOM series or a scan of them, all files and PatientID.
  """
  name: str
  path: pathlib.Path
  label: int
  patient: str = ""
  mask: pathlib.Path | None = None
  split: str = ""
  files: tuple[pathlib.Path, ...] = ()
  person: str = ""

  @property
  def source(self) -> str | tuple[str, ...]:
    """The path, or those of the series."""
    return tuple(map(str, self.files)) if self.files else str(self.path)


@dataclasses.dataclass
class Sides:
  """What a folder holds.

  kind: "image" (DICOM as well), "nifti", or "series": DICOM volumes, one member a series; then
  `series` are these, and `labels` NIfTI files named as labels beside them. beside: what is left out as
  a label or a result, which lies beside its image.
  """
  root: pathlib.Path
  kind: str
  members: list[Member]
  masks: list[pathlib.Path]
  found: finder.Found
  series: list[dicom_series.Series] = dataclasses.field(default_factory=list)
  labels: list[pathlib.Path] = dataclasses.field(default_factory=list)
  beside: list[pathlib.Path] = dataclasses.field(default_factory=list)


def look(root, normal_words: Sequence[str] = (), anomaly_words: Sequence[str] = (), dicom: str = "auto"
         ) -> Sides:
  """Finds the files of a folder and their sides.

  Args:
    dicom: what DICOM files are: "images", "volumes" (series), or "auto": `dicom_series.Series.sort` says
      it where it says the same of all of them.

  Raises:
    FileNotFoundError: no folder, or no file that can be read. UserError: volumes and images mixed, DICOM
      files that may be either, no normal ones, a link to nothing.
  """
  root = pathlib.Path(root).expanduser()
  if not root.is_dir():
    raise FileNotFoundError(f"config.data.dir={str(root)!r} is not a folder")
  root = root.resolve()
  found = finder.find(root, ("image", "dicom", "nifti"))
  counts.refuse_broken(found)
  if not found.files:
    raise FileNotFoundError(f"{root} holds {counts.nothing(found, ('image', 'dicom', 'nifti'))}")
  words = [{same(w) for w in given} for given in (normal_words, anomaly_words)]
  found.leave_out(folder_words.thumbnails(found.files))
  sides = folder_words.sides(found.files, root, words)
  beside = {p: reason for p, side in sides.items() if side != "mask" and finder.kind_of(p) == "image" and (
      reason := naming.beside_its_image(p, found.files))}
  found.leave_out(beside)
  sides = {p: side for p, side in sides.items() if p not in beside}
  vocabulary.check_one_side((p for p, side in sides.items() if side in (0, 1)), root)
  scans = [p for p, side in sides.items() if side != "mask"]
  if scans and not any(sides[p] in (0, 1) for p in scans):
    folder_words.check_no_sides(scans, root)
    folder_words.say_no_sides(scans, found)
    sides = {path: side if side == "mask" else 0 for path, side in sides.items()}
    logging.info("%s has no folder normal or abnormal: all of its %d scans are taken for normal, and what "
                 "lies in them is learnt as normal, lesions too", root, len(scans))
  found.leave_out(folder_words.of_no_side([p for p, side in sides.items() if side is None], root))
  there = {p: finder.kind_of(p) for p, side in sides.items() if side in (0, 1)}
  folder_words.say_aside(there, root)
  folder_words.say_both_sides({p: int(sides[p]) for p in there})
  series = _volumes([p for p, kind in there.items() if kind == "dicom"], dicom, root, found)
  labels = [p for p, kind in there.items() if series and kind == "nifti" and _is_label(p)]
  kinds = {"nifti" if k == "nifti" else "series" if series and k == "dicom" else "image"
           for p, k in there.items() if p not in labels}
  if len(kinds) > 1:
    what = {"nifti": "NIfTI volumes", "series": "DICOM series of volumes", "image": "images"}
    raise UserError(f"{root} holds both {' and '.join(what[k] for k in what if k in kinds)}: put them into "
                    "two folders")
  if not series:
    counts.say(found)  # of series it is said when they are scans
  below = lambda p: p.relative_to(root).as_posix()
  members = [Member(below(p), p, int(sides[p])) for p in found.files if p in there] if not series else [
      Member(below(s.files[0]), s.files[0], _one_side(s, sides), files=tuple(s.files), person=s.patient)
      for s in series]
  if not (members if scored_alone.now() else any(m.label == 0 for m in members)):
    lacks = ("scan in normal/ or abnormal/: there is nothing to score" if scored_alone.now() else
             "normal scan (a folder normal/): there is nothing to train on")
    raise UserError(f"{root} holds no {lacks}{folder_words.unsaid(found)}")
  return Sides(root, kinds.pop(), members, [p for p, side in sides.items() if side == "mask"], found,
               series, labels, list(beside))


def _volumes(paths, dicom, root, found):
  """The series of DICOM files that are volumes, [] where the files are images; takes out of `found` what is
  neither."""
  if not paths:
    return []
  given = dicom_series.gather(paths)
  found.leave_out({f: s.reason for s in given for f in s.files if s.reason.endswith("no image")})
  if dicom == "images":
    return []
  volumes, images, unclear = ([s for s in given if s.sort == sort and not s.reason]
                              for sort in ("volume", "image", "unclear"))
  if dicom == "auto" and not volumes and not unclear:
    return []
  if dicom == "auto" and (images or unclear):
    odd = (unclear or images)[0]
    raise UserError(
        f"{root} holds {len(volumes)} DICOM series of volumes (at least {dicom_series.LEAST} slices along "
        f"one normal), {len(images)} images and {len(unclear)} series that may be either; the first that is "
        f"no volume is {odd.files[0]} of {len(odd.files)} files: put volumes and images into two folders, or "
        "set --config.data.dicom=volumes or images")
  usable = [*volumes, *unclear]
  used = {f for s in usable for f in s.files}
  found.leave_out({f: s.reason or "is an image, no slice of a volume" for s in given for f in s.files
                   if f not in used})
  if not usable:
    raise UserError(f"{root} holds no DICOM series of a volume: config.data.dicom=volumes asks for them")
  return usable


def _one_side(series, sides):
  """0 or 1; raises UserError where its slices lie on both sides."""
  found = {int(sides[f]) for f in series.files}
  if len(found) > 1:
    raise UserError(f"the DICOM series of {series.files[0]} has slices in normal and in abnormal folders")
  return found.pop()


def _is_label(path):
  name = re.sub("[-_ ]+", "_", same(finder.stem_of(path)))
  return any(f"_{name}".endswith(f"_{word}") for word in mask_words.FOLDERS)


def decided(found: Sides) -> dict[str, str]:
  """Fields of config.data that looking has found out: what the DICOM files are, where there are any."""
  if found.kind == "nifti" or not any(finder.kind_of(m.path) == "dicom" or m.files for m in found.members):
    return {}
  return {"dicom": "volumes" if found.kind == "series" else "images"}


def with_masks(sides: Sides) -> list[Member]:
  """The members with their masks: of the same path below masks/ and the side's folder, any ending; the
  name may end in _mask, _seg, _gt or the like.

  Raises:
    UserError: two masks of one member; a mask that belongs to none, or to several.
  """
  places = []  # of a member's mask
  for m in sides.members:
    below = same(_below(m.path, sides.root, ()))
    inner = same(_below(m.path, sides.root, (pathlib.PurePosixPath(m.name).parts[0],)))
    plain = "/".join(f for f in below.split("/") if f not in folder_words.IMAGES)  # a/images/1, a/masks/1
    places.append((below, inner, plain, folder_words.without_splits(plain)))
  known = {place for of_one in places for place in of_one}
  named: dict[str, pathlib.Path] = {}
  for path in sides.masks:
    *folders, _ = path.relative_to(sides.root).parts
    own = same("/".join([*folder_words.without_masks(folders), finder.stem_of(path)]))
    key = mask_words.image_of(own, known)
    if key in named:
      raise UserError(f"{named[key]} and {path} are masks of one image: take one away")
    named[key] = path
  keys = [next((k for k in of_one if k in named), "") for of_one in places]
  for key in [k for k, count in collections.Counter(keys).items() if k and count > 1]:
    keys = _of_one(key, named[key], sides.members, keys)
  result = [dataclasses.replace(m, mask=named.get(k)) for m, k in zip(sides.members, keys)]
  used = set(keys)
  lonely = {k: p for k, p in named.items() if k not in used}
  mask_words.refuse_several(lonely, known)
  if first := next(iter(lonely.values()), None):
    raise UserError(f"{len(lonely)} of {len(named)} masks belong to no image, the first: {first}; a mask "
                    "has the path of its image, masks/a.png for abnormal/a.png"
                    + folder_words.unsaid(sides.found) + processed.of_label(first, sides.found.files))
  return result


def _of_one(key, path, members, keys):
  """`keys` with one owner of a mask: normal/1.png has none where abnormal/1.png is there, too."""
  mine = [m for m, k in zip(members, keys) if k == key]
  ill = [m for m in mine if m.label]
  if len(ill) != 1:
    raise UserError(f"{path} is the mask of {mine[0].name} and of {mine[1].name}: call them otherwise, or "
                    "give it the path of its image below masks/")
  return ["" if k == key and m is not ill[0] else k for m, k in zip(members, keys)]


def assign(members: Sequence[Member], cfg: Mapping, root) -> list[Member]:
  """The members with patient and split: by config.data.split_table, else made anew.

  Args:
    cfg: group_pattern, grouping, val_share, test_share, split_seed, split_table, normal_words,
      anomaly_words.

  Returns:
    Those that have a split.

  Raises:
    UserError: too few patients for a split; a split table that does not fit.
  """
  names = [m.name for m in members]
  owners = patients.of_files(names, cfg["group_pattern"], cfg["grouping"], root,
                             {m.name: m.person for m in members if m.files},
                             (*cfg["normal_words"], *cfg["anomaly_words"]))
  members = [dataclasses.replace(m, patient=p) for m, p in zip(members, owners, strict=True)]
  if cfg["split_table"]:
    return _recorded(members, cfg["split_table"], pathlib.Path(root))
  folder_words.say_splits((m.path for m in members), pathlib.Path(root))
  ill = {m.patient for m in members if m.label}
  healthy = sorted({m.patient for m in members} - ill)
  shares = {"val": cfg["val_share"], "test": cfg["test_share"]}
  if sum(math.ceil(s * len(healthy)) for s in shares.values()) >= len(healthy):
    if scored_alone.now():
      logging.warning("%s has too few normal scans for a split: all of its scans are scored as test", root)
      return [dataclasses.replace(m, split="test") for m in members]
    raise UserError(folder_words.too_few(root, [m.name for m in members if not m.label], healthy))
  place = splits.split_patients(healthy, shares, cfg["split_seed"])
  found = [dataclasses.replace(m, split=place.get(m.patient, "test")) for m in members]
  splits.check_no_leak({s: [m.patient for m in found if m.split == s] for s in SPLITS}, str(root))
  return found


def rows(members: Sequence[Member]) -> list[dict[str, str]]:
  """The split as a table: file, patient, split, label."""
  return [{"file": m.name, "patient": m.patient, "split": m.split, "label": ("normal", "abnormal")[m.label]}
          for m in members]


def _recorded(members, path, root):
  table = tables.read_table(path, ("file", "split"))
  table.unique("file", file=True)
  # Names as a run writes them into its table, whoever wrote this one.
  listed = {cells.inert(row.file("file")): vocabulary.split_word(row["split"], row.where)
            for row in table.rows}
  names = [cells.inert(m.name) for m in members]
  found = [dataclasses.replace(m, split=listed[name]) for m, name in zip(members, names) if name in listed]
  absent = sorted(set(listed) - set(names))
  if left := [n for n in absent if (root / n).is_file()]:
    why = naming.beside_its_image(root / left[0], sorted(m.path for m in members)) or "is not among its scans"
    raise UserError(f"{path} lists {len(left)} files as scans that are none to this version, the first: "
                    f"{left[0]} {why}. The run was trained or tested on them: train into a new --workdir, or "
                    f"take their lines out of {path} and go on without them")
  if absent:
    raise UserError(f"{len(absent)} files of {path} are not in the data folder any more, the first: "
                    f"{absent[0]}: bring them back, or train into a new --workdir")
  if new := len(members) - len(found):
    logging.warning("%d scans are newer than the split of this run (%s) and are left out", new, path)
  splits.check_no_leak({s: [m.patient for m in found if m.split == s] for s in SPLITS}, str(path))
  return found


def _below(path, root, skip):
  """Path below the root without ending and without its first folder where that is in `skip`."""
  parts = (*path.relative_to(root).parts[:-1], finder.stem_of(path))
  return "/".join(parts[1:] if same(parts[0]) in skip or parts[0] in skip else parts)
