"""PadChest (Bustos et al., Medical Image Analysis 2020): 16-bit PNG files and one table of labels.

  <root>/PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv   (or .csv.gz, or any name that fits)
  <root>/<ImageDir>/<ImageID>, or <root>/images/..., or all files in one folder

Columns that are read: ImageID, PatientID, Labels, and where they are there ImageDir, Projection,
BitsStored_DICOM, PhotometricInterpretation_DICOM. The PNG files hold the pixels that the DICOM files had, so
that those of MONOCHROME1 are inverted on reading.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
import logging
import pathlib

from data_pipelines.chest.listing import NORMAL, Radiograph, unlisted_folders
from data_pipelines.errors import UserError
from data_pipelines.intake import find, tables
from data_pipelines.intake.tables import same

TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
# Labels that say nothing of the lungs, or that the image cannot be read.
UNUSABLE = ("exclude", "suboptimal study")
SILENT = ("", "unchanged")
_OPTIONAL = ("imagedir", "projection", "bitsstored_dicom", "photometricinterpretation_dicom", "studyid")


def radiographs(root, image_root="", projections: Collection[str] = ("PA", "AP"), inverts: bool = True
                ) -> list[Radiograph]:
  """Images of the projections whose labels say something, in the order of the table.

  Args:
    root: folder of the table. image_root: of the images; "" = root, or <root>/images where that is there.
    projections: values of the column Projection that are used, () = all.
    inverts: whether files of MONOCHROME1 are inverted.

  Raises:
    FileNotFoundError: no table. UserError: a table that is not PadChest's, or a list of labels that is none.
  """
  root = pathlib.Path(root)
  table = tables.read_table(_table(root), ("imageid", "patientid", "labels"), _OPTIONAL)
  table.unique("imageid", file=True)
  if projections and "projection" not in table.columns:
    raise UserError(f"{table.path} has no column 'Projection': set config.data.projections=() to use all")
  folder = pathlib.Path(image_root) if image_root else root / "images" if (root / "images").is_dir() else root
  wanted, found, unclear, other = {same(p) for p in projections}, [], 0, 0
  for row in table.rows:
    if wanted and same(row.get("projection", "")) not in wanted:
      other += 1
      continue
    finding = _finding(row)
    if not finding:
      unclear += 1
      continue
    name = row.file("imageid")
    below = row.get("imagedir", "").removesuffix(".0")
    place = folder / below if below and _split_by_folder(folder, table) else folder
    found.append(Radiograph(name, str(place / name), finding, row.need("patientid"), bits=_bits(row),
                            inverted=inverts and same(row.get("photometricinterpretation_dicom", ""))
                            == "monochrome1"))
  logging.info("%s: %d images; left out: %d of other projections, %d whose labels say nothing or to leave "
               "them out", table.path, len(found), other, unclear)
  return unlisted_folders(found, str(table.path))


def _table(root):
  """The table of labels: by its published name, else the one CSV file of the folder."""
  for path in (tables.place(root, TABLE), tables.place(root, TABLE + ".gz")):
    if path.is_file():
      return path
  others = find.find(root, ("table",), deep=False).files if root.is_dir() else []
  if len(others) == 1:
    return others[0]
  raise FileNotFoundError(f"no {root / TABLE} (or .gz); set config.data.root to the folder that holds it")


def _split_by_folder(folder, table):
  """Whether images lie in the folders that the column ImageDir names."""
  first = table.rows[0].get("imageid", "")
  return not (folder / first).is_file()


def _bits(row):
  text = row.get("bitsstored_dicom", "").removesuffix(".0")
  return int(text) if text.isdecimal() and len(text) < 3 else 0


def _finding(row):
  """"normal", findings joined by "|", or "" where the labels say nothing that can be used."""
  text = row.get("labels", "")
  if text.lower() in ("", "nan", "none"):
    return ""
  try:
    labels = ast.literal_eval(text) if text.startswith("[") else text.split("|")
    words = list(dict.fromkeys(same(str(label)) for label in labels))
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    raise UserError(f"{row.where}: Labels {text[:60]!r} is not a list such as ['normal']") from None
  if any(word in UNUSABLE for word in words):
    return ""
  ill = [word for word in words if word not in (NORMAL, *SILENT)]
  return "|".join(ill) if ill else NORMAL if NORMAL in words else ""
