"""Steps 5, 6, 8 and 9: the target of the stains, patches in its stains, x40 and its reductions."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from data_pipelines import store as stores
from data_pipelines.errors import UserError
from data_pipelines.formats import images, writing
from data_pipelines.slides import reader, reduced, stain
from data_pipelines.slides.camelyon import settings as fields, steps
from data_pipelines.slides.camelyon.source import Entry
from data_pipelines.slides.camelyon.steps import Record, Slide

TARGET = "stain_target"  # name of the target's record
_SAME = 0.01  # downsamples this close are one


def target(entry: Entry | None, settings: fields.Settings, store: stores.Store) -> Record:
  """Step 5: the region whose stains all patches get, and its matrix; made where it is not there.

  Raises:
    UserError: the slide is not there, is smaller, or the region holds no stains.
  """
  if entry is None:
    raise UserError(f"no slide {settings.target_slide} in {settings.source}: it gives the stains; name "
                    "another with --target_slide, --target_left and --target_top")
  path = pathlib.Path(settings.source) / entry.file
  key = stores.key("target", [path], ())
  found = store.record(TARGET, "target", key)
  if found:
    return found
  left, top, side = settings.target_left, settings.target_top, settings.target_side
  with reader.open_slide(path) as slide:
    if left < 0 or top < 0 or left + side > slide.width or top + side > slide.height:
      raise UserError(f"the stain target, {side} x {side} at ({left}, {top}), lies outside of {path} "
                      f"({slide.width} x {slide.height}); set --target_left, --target_top and --target_side")
    region = slide.read(0, left, top, side, side)
  file = store.write(f"{TARGET}{settings.ending}", writing.encoded(region, settings.ending))
  try:
    stains = stain.find_stains(images.read_8bit(store.folder / file["file"], 3), settings.parity)
  except stain.NoStain as error:
    raise UserError(f"the stain target, {side} x {side} at ({left}, {top}) of {path}: {error}; choose "
                    "another region") from None
  content = {"key": key, "files": [file], "matrix": stains.matrix.tolist()}
  store.write_record(TARGET, "target", content)
  return content


def normalise(slide: Slide) -> tuple[str, Any]:
  """Step 6: normalised/<kind>_<part>/<name>; a patch without stains stays as it is, and its row says why."""
  before, settings = slide.needed("cut"), slide.settings
  aim = slide.store.record(TARGET, "target")
  if aim is None:
    raise UserError("step target is not done: run it first (--steps=target)")

  def work() -> Record:
    files, said = [], {}
    for row in before["rows"]:
      image = images.read_8bit(slide.store.folder / _patch(slide, row), 3)
      changed, said[row["name"]] = _normalised(slide, aim, image, row["name"])
      files.append(slide.store.write(f"normalised/{slide.entry.kind}_{slide.entry.part}/{row['name']}"
                                     f"{settings.ending}", writing.encoded(changed, settings.ending)))
    return {"files": files, "said": said}
  return stores.key("stain", (), [before["key"], aim["key"]]), work


def _patch(slide, row):
  return f"patches/{slide.entry.kind}_{slide.entry.part}/{row['name']}{slide.settings.ending}"


def _normalised(slide, aim, image, name):
  """(image in the stains of the target, "normalised" or why it is as it was)."""
  try:
    return stain.normalize(image, stain.Stains(np.array(aim["matrix"])), slide.settings.parity), "normalised"
  except stain.NoStain as error:
    if slide.settings.parity:
      raise UserError(f"patch {name}: {error}; the published preparation fails here, run without "
                      "--parity") from None
    return image, f"unchanged: {error}"


def merge(slide: Slide) -> tuple[str, Any]:
  """Step 8: x40/<name>, all patches in one folder: second names of the files where links are known."""
  before = slide.needed("stain" if slide.settings.stain else "cut")
  first = 0 if slide.settings.stain else steps.PICTURES

  def work() -> Record:
    return {"files": [slide.store.link(file, f"x40/{pathlib.PurePath(file['file']).name}")
                      for file in before["files"][first:]]}
  return stores.key("merge", (), [before["key"]]), work


def resize(slide: Slide) -> tuple[str, Any]:
  """Step 9: x20/<name> and x10/<name>, reduced from x40; or read from the slide's own level (pyramid)."""
  before, cut, settings = slide.needed("merge"), slide.needed("cut"), slide.settings
  aim = slide.store.record(TARGET, "target")
  scales = [s for s in settings.scales if s != "x40"]

  def work() -> Record:
    files, origin = [], {}
    for scale in scales:
      factor = fields.SCALES[scale]
      level = _level(slide, factor) if settings.pyramid else None
      origin[scale] = "reduced" if level is None else f"level {level}"
      for row, whole in zip(cut["rows"], before["files"]):
        if level is None:
          small = reduced.reduced(images.read_8bit(slide.store.folder / whole["file"], 3), factor)
        else:
          size = row["width"] // factor, row["height"] // factor
          small = slide.pixels.read(level, row["left"], row["top"], *size)
          if settings.stain:
            small = _normalised(slide, aim, small, row["name"])[0]
        files.append(slide.store.write(f"{scale}/{row['name']}{settings.ending}",
                                       writing.encoded(small, settings.ending)))
    return {"files": files, "origin": origin}
  return stores.key("resize", (), [before["key"]], scales), work


def _level(slide, factor):
  """The level of a downsample, None where the slide has none."""
  found = [i for i, level in enumerate(slide.pixels.levels) if abs(level.downsample / factor - 1) <= _SAME]
  return found[0] if found else None
