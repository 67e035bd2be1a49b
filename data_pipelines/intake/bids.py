"""Data sets laid out as the Brain Imaging Data Structure (BIDS): scans by the entities of their names.

  dataset_description.json (not asked for where a name ends in T1w or T2w)
  sub-01/[ses-1/]anat/sub-01[_ses-1][_acq-x][_ce-gd][_run-1]_T1w.nii.gz     FLAIR, T1w, T2w ...

Brain Imaging Data Structure 1.10 (Gorgolewski et al., Scientific Data 2016, and the specification).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import pathlib
import re

from data_pipelines.intake import find

DESCRIPTION = "dataset_description.json"
_PAIR = re.compile(r"([a-z]+)-([0-9a-zA-Z+]+)")
# (suffix, whether a contrast agent is told by the entity `ce`) of the modalities of brain models.
_SUFFIXES = {"flair": ("FLAIR", False), "t1": ("T1w", False), "t1ce": ("T1w", True), "t2": ("T2w", False)}


def describe(root: pathlib.Path) -> dict:
  """dataset_description.json of a data set; {} where it cannot be read."""
  try:
    found = json.loads((root / DESCRIPTION).read_text(encoding="utf-8"))
  except (OSError, ValueError):
    return {}
  return found if isinstance(found, dict) else {}


def root_of(path: pathlib.Path) -> pathlib.Path | None:
  """The data set that a file or folder is, or is a subject, session or scan of; None where it is of none."""
  path = pathlib.Path(path).absolute()
  for at in (path, *path.parents):
    if at.is_dir() and find.holds_names(at, "sub-") and ((at / DESCRIPTION).is_file() or _laid_out(at)):
      return at
    if not (at.name.startswith(("sub-", "ses-")) or at.name == "anat"):
      return None
  return None


def _laid_out(at):
  """Whether a scan lies as BIDS says and has a suffix that nobody else uses: a part of a data set, copied."""
  return any(suffix in ("T1w", "T2w") and _is_anat(path, at, entities)
             for path in find.like(at, "sub-*/anat/sub-*", "sub-*/ses-*/anat/sub-*")
             for entities, suffix in [parse(path)])


def parse(path) -> tuple[dict[str, str], str]:
  """({"sub": "01", "run": "1"}, "T1w") of a name; ({}, "") where it is none of BIDS."""
  *pairs, suffix = find.stem_of(path).split("_")
  found = [_PAIR.fullmatch(p) for p in pairs]
  if not pairs or not all(found) or not suffix.isalnum():
    return {}, ""
  entities = {m[1]: m[2] for m in found if m}
  return (entities, suffix) if len(entities) == len(pairs) and pairs[0].startswith("sub-") else ({}, "")


def name(entities: Mapping[str, str]) -> str:
  """"sub-01_ses-1" of {"sub": "01", "ses": "1"}, in their order."""
  return "_".join(f"{k}-{v}" for k, v in entities.items())


def label(text: str) -> str:
  """What a value of an entity may hold of any text, letters and digits; "0" where nothing is left."""
  return re.sub(r"[^0-9a-zA-Z]", "", text) or "0"


def modality_of(path, modalities: Sequence[str]) -> str:
  """The modality whose suffix (and contrast agent) the name has, "" where it is none of them, or a phase."""
  entities, suffix = parse(path)
  shown = suffix and entities.get("part", "mag") == "mag"  # phases are no pictures of the brain
  for modality in modalities if shown else ():
    own, agent = _SUFFIXES.get(modality.lower(), (modality, "ce" in entities))
    if suffix.lower() == own.lower() and ("ce" in entities) == agent:
      return modality
  return ""


def scans(found: find.Found, root: pathlib.Path, modalities: Sequence[str], any_suffix: bool = False
          ) -> list[tuple[str, dict[str, pathlib.Path]]]:
  """[(name of the scan, {modality: file})] of NIfTI files below sub-*/[ses-*/]anat; takes out of `found`
  what is none.

  Files of one subject and session are one scan, with a file a modality; where there are several of one,
  those with the same acquisition, run and the like belong together.

  Args:
    any_suffix: every volume is a scan of the only modality, whatever its suffix.
  """
  sets: dict[str, list[tuple[str, str, pathlib.Path]]] = {}
  reasons: dict[pathlib.Path, str] = {}
  for path in found.files:
    entities, suffix = parse(path)
    modality = modalities[0] if any_suffix and suffix not in ("mask", "dseg", "probseg", "") else modality_of(
        path, modalities)
    if not _is_anat(path, root, entities) or find.kind_of(path, False) != "nifti":
      reasons[path] = "is no volume of sub-*/[ses-*/]anat of the BIDS data set"
    elif not modality:
      reasons[path] = f"is none of {', '.join(modalities)} by its BIDS name"
    else:
      own = {k: v for k, v in entities.items() if k not in ("sub", "ses", "ce", "desc")}
      session = name({k: v for k, v in entities.items() if k in ("sub", "ses")})
      rest = name(own) if not any_suffix else find.stem_of(path)
      sets.setdefault(session, []).append((modality, rest, path))
  result: list[tuple[str, dict[str, pathlib.Path]]] = []
  twins: dict[pathlib.Path, str] = {}
  for session, members in sorted(sets.items()):
    for files in _apart(members):
      paths = dict(files)
      if len(paths) < len(files):
        twins.update({p: f"is one of several files of a modality of {session}: keep one, or give it alone"
                      for _, p in files})
      else:
        result.append((find.stem_of(files[0][1]) if any_suffix else _title(paths, modalities), paths))
  found.leave_out(reasons)
  found.leave_out(twins, broken=True)
  return result


def _title(paths, modalities):
  """sub-01_ses-1_run-1 of the first modality that is there, without suffix, agent and description."""
  first = next(paths[m] for m in modalities if m in paths)
  return name({k: v for k, v in parse(first)[0].items() if k not in ("ce", "desc")})


def _apart(members):
  """[[(modality, file)]]: all of a session, or by their other entities where a modality has several."""
  if len({m for m, _, _ in members}) == len(members):
    return [[(m, p) for m, _, p in members]]
  return [[(m, p) for m, own, p in members if own == rest]
          for rest in dict.fromkeys(own for _, own, _ in members)]


def _is_anat(path, root, entities):
  """Whether a file lies where its name says: sub-01/[ses-1/]anat below the data set."""
  if not entities or not path.absolute().is_relative_to(root):
    return False
  place = [f"{k}-{entities[k]}" for k in ("sub", "ses") if k in entities]
  return list(path.absolute().relative_to(root).parts[:-1]) == [*place, "anat"]
