"""Camelyon16 annotations: the XML of ASAP as polygons of tumour and of holes in it, and as JSON.

Groups Tumor, _0 and _1 outline tumour, group _2 healthy tissue inside of it; others are left out (the
rule of ninatu/anomaly_detection). Vertices are whole pixels of level 0, x before y, rounded half to even.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import logging
import math
import pathlib
from typing import TypedDict
from xml.etree import ElementTree

from data_pipelines.errors import UserError

_POINTS = ("Dot", "PointSet", "Measurement")  # types of annotations in ASAP that are no areas
GROUPS = (("tumor", ("Tumor", "_0", "_1")), ("normal", ("_2",)))


class Polygon(TypedDict):
  """One closed outline: vertices [[x, y], ...] in pixels of level 0."""
  name: str
  vertices: list[list[int]]


Annotation = dict[str, list[Polygon]]  # "tumor" and "normal"


def read_xml(path) -> Annotation:
  """Polygons of an ASAP file, in its order inside of a group.

  Raises:
    FileNotFoundError: there is none. UserError: it is no ASAP annotation, or a coordinate is no number.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"no annotation {path}")
  try:
    root = ElementTree.parse(path).getroot()
  except ElementTree.ParseError as error:
    raise UserError(f"{path} is no XML ({error}); copy it again") from None
  found = root.findall("Annotations/Annotation")
  if not found:
    raise UserError(f"{path} holds no Annotations/Annotation: it is no annotation of ASAP")
  known = {group for _, groups in GROUPS for group in groups}
  if other := [a.get("PartOfGroup") or "none" for a in found if a.get("PartOfGroup") not in known]:
    logging.warning("%s: %d of %d outlines are of other groups (%s) than %s, and are left out: what they "
                    "enclose counts as healthy", path, len(other), len(found),
                    ", ".join(sorted(set(other))[:6]), ", ".join(sorted(known)))
  if points := [a for a in found if a.get("Type") in _POINTS]:
    logging.warning("%s: %d of %d outlines are %s, which enclose nothing, and are left out", path,
                    len(points), len(found), ", ".join(sorted({str(a.get("Type")) for a in points})))
    found = [a for a in found if a not in points]
  flat = [a.get("Name") for a in found if len(a.findall("Coordinates/Coordinate")) < 3]
  if flat:
    logging.warning("%s: %d of %d outlines have fewer than three vertices and enclose nothing, the first %s",
                    path, len(flat), len(found), flat[0])
  return {kind: [_polygon(a, path) for group in groups for a in found if a.get("PartOfGroup") == group]
          for kind, groups in GROUPS}


def _polygon(element, path):
  try:
    vertices = element.findall("Coordinates/Coordinate")
    if all((c.get("Order") or "").isdigit() for c in vertices):  # editors may write them in another one
      vertices = sorted(vertices, key=lambda c: int(c.get("Order")))
    points = [[float(c.get(axis)) for axis in "XY"] for c in vertices]
    if not all(math.isfinite(v) for p in points for v in p):
      raise ValueError
  except (TypeError, ValueError):
    raise UserError(f"{path}: a vertex of {element.get('Name')!r} has no numbers X and Y") from None
  return {"name": element.get("Name") or "", "vertices": [[round(v) for v in p] for p in points]}


def write_json(path, annotation: Annotation) -> None:
  """{"tumor": [...], "normal": [...]} with indent 1."""
  pathlib.Path(path).write_text(as_json(annotation), encoding="utf-8")


def as_json(annotation: Annotation) -> str:
  """What `write_json` writes."""
  return json.dumps({kind: annotation[kind] for kind, _ in GROUPS}, indent=1)


def read_json(path) -> Annotation:
  """What `write_json` wrote.

  Raises:
    UserError: another content.
  """
  try:
    found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    for kind, _ in GROUPS:
      for polygon in found[kind]:
        for x, y in polygon["vertices"]:
          if not isinstance(x + y, int):
            raise ValueError(polygon)
  except (ValueError, KeyError, TypeError):
    raise UserError(f"{path} holds no polygons of an annotation; delete it, it is made again") from None
  return found


def check_inside(annotation: Mapping[str, Sequence[Polygon]], width: int, height: int, path) -> None:
  """Refuses the annotation of another slide.

  Raises:
    UserError: a vertex lies outside of the slide, by more than the 1 % that annotators overshoot.
  """
  for polygon in (p for polygons in annotation.values() for p in polygons):
    for x, y in polygon["vertices"]:
      if not (-0.01 * width <= x <= 1.01 * width and -0.01 * height <= y <= 1.01 * height):
        raise UserError(f"{path}: {polygon['name']!r} reaches ({x}, {y}), outside of the slide of {width} x "
                        f"{height}: it is the annotation of another slide")
