"""Steps 1 to 4 on one slide: annotation, mask, and the patches that are cut from it."""

from __future__ import annotations

import functools
import pathlib
from typing import Any
import zlib

import numpy as np

from data_pipelines import store as stores
from data_pipelines.errors import UserError
from data_pipelines.formats import images, writing
from data_pipelines.slides import annotations as outlines, cells, lesions, reader, tissue
from data_pipelines.slides.camelyon import overview, settings as fields
from data_pipelines.slides.camelyon.source import Entry

Record = dict[str, Any]
PICTURES = 2  # files of the record of a cut before its patches


class Slide:
  """One slide of a preparation; opened when a step needs its pixels.

  Attributes:
    entry: what it is. settings, store: of the preparation.
  """

  def __init__(self, entry: Entry, settings: fields.Settings, store: stores.Store):
    self.entry, self.settings, self.store = entry, settings, store
    self.path = pathlib.Path(settings.source) / entry.file
    self.place = f"{entry.part}/{entry.name}"

  @functools.cached_property
  def pixels(self) -> reader.Slide:
    """The open slide."""
    return reader.open_slide(self.path)

  def close(self) -> None:
    """Closes the slide where it was opened."""
    if "pixels" in self.__dict__:
      self.pixels.close()

  def needed(self, step: str) -> Record:
    """The record of a step that comes before.

    Raises:
      UserError: it is not there, or the slide is left out by it.
    """
    found = self.store.record(self.entry.name, step)
    if found is None:
      named = step if step != "cut" else self.entry.kind
      raise UserError(f"step {named} of {self.entry.name} is not done: run it first (--steps={named})")
    return found

  @property
  def has_mask(self) -> bool:
    """Whether there is an annotation to make a mask of."""
    return self.entry.kind == "tumor" and bool(self.entry.xml)


def annotate(slide: Slide) -> tuple[str, Any]:
  """Step 1: XML to JSON, annotations/<part>/<slide>.json."""
  entry = slide.entry
  if not entry.xml:
    raise UserError(f"no annotation: {slide.path} is a tumour slide, and there is no {entry.name}.xml for it")
  path = pathlib.Path(slide.settings.source) / entry.xml

  def work() -> Record:
    found = outlines.read_xml(path)
    outlines.check_inside(found, slide.pixels.width, slide.pixels.height, path)
    if not found["tumor"]:
      raise UserError(f"{path} outlines no tumour (groups {', '.join(outlines.GROUPS[0][1])})")
    text = outlines.as_json(found).encode()
    return {"files": [slide.store.write(f"annotations/{slide.place}.json", text)]}
  return stores.key("annotations", [path, slide.path], ()), work


def mask(slide: Slide) -> tuple[str, Any]:
  """Step 2: masks/<part>/<slide>.png at 1/256: 0 to 255 for the share of lesion, or 0, 127 and 255."""
  before = slide.needed("annotations")

  def work() -> Record:
    polygons = outlines.read_json(slide.store.folder / before["files"][0]["file"])
    size, form = (slide.pixels.width, slide.pixels.height), slide.settings.mask
    if form == "area":
      found = np.rint(lesions.shares(polygons, *size) * 255).astype(np.uint8)
    else:
      found = lesions.published(polygons, *size, bicubic=form == "bicubic")
    return {"files": [slide.store.write(f"masks/{slide.place}.png", writing.encoded(found, ".png"))]}
  return stores.key("masks", [slide.path], [before["key"]]), work


def cut(slide: Slide) -> tuple[str, Any]:
  """Steps 3 and 4: patches/<kind>_<part>/<name> at full resolution, {tissue,overview}/<part>/<slide>.png."""
  entry, settings = slide.entry, slide.settings
  before = slide.needed("masks") if slide.has_mask else None

  def work() -> Record:
    if slide.pixels.width < cells.SIDE or slide.pixels.height < cells.SIDE:
      raise UserError(f"{slide.path} has {slide.pixels.width} x {slide.pixels.height} pixels: less than one "
                      f"patch of {cells.SIDE}")
    thumbnail = slide.pixels.overview(tissue.DOWNSAMPLE)
    dark = tissue.opened(tissue.dark(thumbnail))
    lesion = share = None
    if before:
      lesion = images.read_8bit(slide.store.folder / before["files"][0]["file"], 1)[..., 0]
      share = lesion / 255 if settings.mask == "area" else lesion == lesions.TUMOR
      lesions.check_on_tissue(f"annotation of {slide.path}", share, dark)
    chosen = ([cells.parse(name) for name in entry.names] if entry.names is not None
              else _drawn(slide, thumbnail, lesion))
    pictures = {"tissue": dark.astype(np.uint8) * 255,
                "overview": overview.draw(thumbnail, dark, share, chosen)}
    files = [slide.store.write(f"{kind}/{slide.place}.png", writing.encoded(picture, ".png"))
             for kind, picture in pictures.items()]
    rows = []
    for patch in chosen:
      _check(slide, patch)
      image = slide.pixels.read(0, patch.left, patch.top, patch.width, patch.height)
      file = slide.store.write(f"patches/{entry.kind}_{entry.part}/{patch.stem}{settings.ending}",
                               writing.encoded(image, settings.ending))
      files.append(file)
      rows.append({"name": patch.stem, "slide": entry.name, "part": entry.part, "kind": patch.kind,
                   "level": 0, "left": patch.left, "top": patch.top, "width": patch.width,
                   "height": patch.height, "tissue": round(cells.share(dark, patch), 4),
                   "lesion": _lesion(slide, patch, share)})
    return {"files": files, "rows": rows, "mpp": slide.pixels.mpp}
  return stores.key("cut", [slide.path], [before["key"]] if before else [], entry.names or ()), work


def _drawn(slide, thumbnail, lesion):
  """Patches of cells that are all tissue (and in tumour slides lesion), drawn with the seed and the name."""
  entry, settings = slide.entry, slide.settings
  where = tissue.cells(thumbnail, None if settings.border < 0 else settings.border)
  if not where.any():
    raise UserError(f"{slide.path} has no cell of {cells.SIDE} x {cells.SIDE} pixels that is all tissue")
  if entry.kind == "tumor":
    where = cells.lesion_cells(lesion / 255, where, settings.least_lesion) if settings.mask == "area" else (
        cells.tumor_cells(lesion, where, exact=not settings.parity))
  seed = [settings.seed, zlib.crc32(entry.name.encode())]
  rng = np.random.RandomState(seed) if settings.parity else np.random.default_rng(seed)
  return cells.patches(entry.name, entry.kind, cells.draw(where, settings.per_slide, rng))


def _check(slide, patch):
  if patch.left + patch.width > slide.pixels.width or patch.top + patch.height > slide.pixels.height:
    raise UserError(f"{patch.stem} lies outside of {slide.path} ({slide.pixels.width} x "
                    f"{slide.pixels.height}): the list is of another slide")
  if patch.kind != slide.entry.kind:
    raise UserError(f"{patch.stem} is listed as {patch.kind}, and {slide.path} is a {slide.entry.kind} slide")


def _lesion(slide, patch, share):
  """Share of lesion in a patch: 0 in normal slides, None where there is no annotation.

  Args:
    share: of every thumbnail pixel [H,W], or None.
  """
  if slide.entry.kind == "normal":
    return 0.0
  return None if share is None else round(cells.share(share, patch), 4)
