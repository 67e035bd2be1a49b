"""RSNA Pneumonia Detection Challenge (Kaggle 2018; Shih et al., Radiology: AI 2019): DICOM and its tables.

  <root>/stage_2_train_labels.csv          patientId, x, y, width, height, Target: a row a box
  <root>/stage_2_detailed_class_info.csv   patientId, class (the words of FINDINGS)
  <root>/stage_2_train_images/<patientId>.dcm

patientId names an image. The images come from NIH ChestX-ray14, which has several of a patient: with the
challenge's own mapping beside the tables (pneumonia-challenge-dataset-mappings_2018.json), patients are those
of NIH; without it each image is a patient of its own, and the log says so.
"""

from __future__ import annotations

import json
import logging
import pathlib

from data_pipelines.chest.listing import NORMAL, Box, Radiograph, box_of
from data_pipelines.errors import UserError
from data_pipelines.formats.regular import is_there
from data_pipelines.intake import tables
from data_pipelines.intake.tables import same

LABELS, CLASSES = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
IMAGES, MAPPING = "stage_2_train_images", "pneumonia-challenge-dataset-mappings_2018.json"
FINDINGS = {"normal": NORMAL, "lung opacity": "lung opacity", "no lung opacity / not normal": "not normal"}


def radiographs(root, image_root="") -> list[Radiograph]:
  """Every image of the training part (the test part has no labels), in the order of the class table.

  Args:
    root: folder of the tables. image_root: of the DICOM files; "" = <root>/stage_2_train_images.

  Raises:
    FileNotFoundError: a table is not there. UserError: tables that contradict each other, with the line.
  """
  root = pathlib.Path(root)
  folder = pathlib.Path(image_root) if image_root else root / IMAGES
  boxes = _boxes(tables.place(root, LABELS))
  found: dict[str, str] = {}
  for row in tables.read_table(tables.place(root, CLASSES), ("patientid", "class")).rows:
    name, finding = row.need("patientid"), FINDINGS.get(same(row.need("class")))
    if finding is None:
      raise UserError(f"{row.where}: class {row['class']!r} is none of the challenge's: Normal, Lung "
                      "Opacity, No Lung Opacity / Not Normal")
    if found.setdefault(name, finding) != finding:
      raise UserError(f"{row.where}: {name} is {finding} here and {found[name]} above")
    if bool(boxes.get(name)) != (finding == "lung opacity"):
      raise UserError(f"{row.where}: {name} is {finding}, but {LABELS} has "
                      f"{len(boxes.get(name, ()))} boxes of it")
  if lacking := sorted(boxes.keys() - found.keys()):
    raise UserError(f"{root / CLASSES} does not list {len(lacking)} images of {LABELS}, e.g. {lacking[0]}")
  patients = _patients(root / MAPPING)
  return [Radiograph(name, str(folder / f"{name}.dcm"), finding, patients.get(name, ""), boxes.get(name, ()))
          for name, finding in found.items()]


def _boxes(path) -> dict[str, tuple[Box, ...]]:
  """{patientId: boxes}, () where Target is 0."""
  found: dict[str, tuple[Box, ...]] = {}
  for row in tables.read_table(path, ("patientid", "x", "y", "width", "height", "target")).rows:
    name, target = row.need("patientid"), row.need("target")
    if target not in ("0", "1"):
      raise UserError(f"{row.where}: Target {target!r} is neither 0 nor 1")
    found[name] = found.get(name, ()) + ((box_of(row),) if target == "1" else ())
  return found


def _patients(path) -> dict[str, str]:
  """{patientId: patient of NIH} of the challenge's mapping, {} without it."""
  if not is_there(path):
    logging.warning("%s is not there: NIH has several images of a patient, and which they are is not known "
                    "without it; each image counts as a patient of its own", path)
    return {}
  try:
    rows = json.loads(path.read_text(encoding="utf-8"))
    return {str(row["subset_img_id"]): str(row["img_id"])[:8] for row in rows if row.get("subset_img_id")}
  except (ValueError, KeyError, TypeError, AttributeError, UnicodeError) as error:
    raise UserError(f"{path} is not the challenge's mapping, a list of records with subset_img_id and img_id "
                    f"({type(error).__name__}: {error})") from None
