"""The slides of Camelyon16 on disk, in the challenge's folders.

  training/normal/*.tif  training/tumor/*.tif  training/lesion_annotations/*.xml
  testing/images/*.tif   testing/lesion_annotations/*.xml   testing/reference.csv
"""

from __future__ import annotations

import dataclasses
import pathlib

from data_pipelines.errors import UserError
from data_pipelines.intake import find as finder, tables
from data_pipelines.slides import cells, reader
from data_pipelines.slides.camelyon.settings import Settings

_FOLDERS = {("train", "normal"): "training/normal", ("train", "tumor"): "training/tumor",
            ("test", ""): "testing/images"}
_XML = {"train": "training/lesion_annotations", "test": "testing/lesion_annotations"}
LISTS = "train_test_split/camelyon16/healthy"
_LIST = {("train", "normal"): "normal/train", ("train", "tumor"): "anomaly/train",
         ("test", "normal"): "normal/test", ("test", "tumor"): "anomaly/test"}


@dataclasses.dataclass(frozen=True)
class Entry:
  """A slide: its name, "train" or "test", "normal" or "tumor", paths below the source ("" = none).

  names: patches that are cut from it, None = they are drawn.
  """
  name: str
  part: str
  kind: str
  file: str
  xml: str = ""
  names: tuple[str, ...] | None = None


def list_file(part: str, kind: str) -> str:
  """Place of a list of patches below a folder of lists."""
  return f"{LISTS}/{_LIST[part, kind]}"


def find(settings: Settings) -> tuple[list[Entry], dict[str, str]]:
  """(slides in the order of their names, {slide: why it is left out}).

  Raises:
    UserError: no slides there; two of one name; reference.csv is missing or says something else than Normal
      and Tumor; a list is wrong. FileNotFoundError: no such folder; no list.
  """
  source = pathlib.Path(settings.source)
  if not source.is_dir():
    raise FileNotFoundError(f"no folder {source}; --source is the folder of Camelyon16 with training/ and "
                            "testing/")
  listed = published(settings.names) if settings.names else None
  found: dict[str, Entry] = {}
  reasons: dict[str, str] = {}
  for (part, kind), folder in _FOLDERS.items():
    files = sorted(p for p in (source / folder).glob("*")
                   if p.suffix.lower() in reader.SUFFIXES and not finder.is_system_file(p.name))
    kinds = _reference(source / "testing" / "reference.csv") if files and not kind else {}
    for file in files:
      name = file.stem
      if name in found:
        raise UserError(f"two slides are called {name}: {found[name].file} and {file.relative_to(source)}")
      if not kind and name not in kinds:
        reasons[name] = "testing/reference.csv does not say whether it is normal"
        continue
      xml = source / _XML[part] / f"{name}.xml"
      entry = Entry(name, part, kind or kinds[name], str(file.relative_to(source)),
                    str(xml.relative_to(source)) if xml.is_file() else "")
      if listed is None:
        found[name] = entry
      elif name in listed:
        found[name] = dataclasses.replace(entry, names=tuple(listed.pop(name)))
  if not found and not reasons:
    raise UserError(f"{source} holds no slides in {', '.join(_FOLDERS.values())}")
  reasons.update(dict.fromkeys(listed or (), "its patches are listed, the slide is not there"))
  return [found[n] for n in sorted(found) if listed is not None or n not in settings.left_out], reasons


def _reference(path):
  """{slide: "normal" or "tumor"} of testing/reference.csv, which has no header."""
  if not path.is_file():
    raise UserError(f"no {path}: it says which slides of testing/images are normal (name,Normal or Tumor)")
  kinds = {}
  for number, row in tables.read_rows(path):
    kind = row[1].lower() if len(row) > 1 else ""
    if kind not in cells.KINDS:
      raise UserError(f"{path} line {number}: the second column is Normal or Tumor, this is {kind!r}")
    kinds[pathlib.PurePath(row[0]).name.removesuffix(".tif")] = kind
  return kinds


def published(folder) -> dict[str, list[str]]:
  """{slide: names of its patches} of the four lists of a folder, with or without .gz.

  Raises:
    FileNotFoundError: a list is missing. UserError: a name is none of a patch, or is listed twice.
  """
  slides: dict[str, list[str]] = {}
  for part, kind in _LIST:
    path = pathlib.Path(folder) / list_file(part, kind)
    for name in tables.read_list(path):
      patch = cells.parse(name)
      if patch.kind != kind:
        raise UserError(f"{path} lists {name!r}: a patch of the other kind")
      slides.setdefault(patch.slide, []).append(name)
  return slides
