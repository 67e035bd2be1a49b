"""DICOM series of single-frame files as volumes: which files belong together, and where they lie.

Geometry after PS3.3 C.7.6.2 (Image Plane Module): slices are sorted by their positions along the
normal, the distance between them is that of the positions, never Slice Thickness. What would place a
voxel wrongly is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import dataclasses
import logging
import pathlib

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.formats import dicom, dicom_head

_NEEDED = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_UNEVEN = 0.1  # largest distance of a slice from its place, in distances of slices
_WAITS = 0.25  # share by which repetition times of one volume may differ
_TILT = 0.01   # largest shift in the plane between slices, in distances of slices
# Of what all slices have one: of two echoes, times or patients no volume is made, wherever they lie.
_ALIKE = ("size", "frame of reference", "series", "study", "patient", "position of the patient", "modality",
          "scanning sequence", "tube voltage", "echo", "echo time", "time",
          "inversion time", "flip angle", "reconstruction kernel", "contrast agent",
          "diffusion weighting", "unit", "sign of its pixels", "part of the signal", "description",
          "protocol", "sequence name", "scale (of Philips' own)",
          "rescaling (one has a slope or an intercept, one has none)")
_TAGS = [*_NEEDED[:2], "SeriesInstanceUID", "StudyInstanceUID", "SeriesDescription", "ProtocolName",
         "PatientID", "Modality", "ImageType", "Rows"]
# Objects that speak about images, and carry none to be read.
_ABOUT = {"SEG": "segmentation", "RTSTRUCT": "set of contours", "RTDOSE": "dose", "SR": "report",
          "PR": "presentation state", "KO": "selection of images", "REG": "registration"}
LEAST = 4  # slices at different places of what is surely a volume


@dataclasses.dataclass(frozen=True)
class Series:
  """Files with one SeriesInstanceUID.

  Attributes:
    texts: SeriesDescription and ProtocolName, "" where they are absent.
    study, patient: StudyInstanceUID and PatientID, "" where they are absent.
    reason: why it holds no volume and no image to read (a segmentation, a localizer), "" = it may.
    sort: "volume": LEAST or more slices at different places along one normal; "image": files without a
      place, or alone, or all at one place; "unclear": anything else.
    words: of ImageType and Modality, in capitals.
  """

  uid: str
  files: list[pathlib.Path]
  texts: tuple[str, str] = ("", "")
  study: str = ""
  patient: str = ""
  reason: str = ""
  sort: str = "unclear"
  words: tuple[str, ...] = ()

  @property
  def folder(self) -> pathlib.Path:
    """Of the first file."""
    return self.files[0].parent


def gather(files: Iterable[pathlib.Path]) -> list[Series]:
  """The series of some DICOM files, each with its files sorted by name.

  A file that names no series, or cannot be read, may belong to any series of its folder: it joins
  them all, so that none is read without a slice. Where a folder has none, such files are one.
  """
  heads = {path: dicom_head.read(path, _TAGS) for path in sorted(files)}
  series: dict[str, list[pathlib.Path]] = {}
  nameless: list[pathlib.Path] = []
  for path, head in heads.items():
    uid = dicom_head.text(head, "SeriesInstanceUID")
    if uid:
      series.setdefault(uid, []).append(path)
    else:
      nameless.append(path)
  of_folder: dict[pathlib.Path, set[str]] = {}
  for uid, members in series.items():
    for path in members:
      of_folder.setdefault(path.parent, set()).add(uid)
  for path in nameless:
    for uid in of_folder.get(path.parent, {str(path.parent)}):
      series.setdefault(uid, []).append(path)
  return [_series(uid, sorted(members), heads) for uid, members in series.items()]


def _series(uid, files, heads):
  mine = [heads[f] for f in files]
  first = next((h for h in mine if dicom_head.text(h, "SeriesInstanceUID")), mine[0])
  modality, kind = dicom_head.text(first, "Modality"), dicom_head.text(first, "ImageType").upper()
  reason = ""
  if modality in _ABOUT:
    reason = f"is a DICOM {_ABOUT[modality]} ({modality}), no image"
  elif "Rows" not in first and dicom_head.text(first, "SeriesInstanceUID"):
    reason = "holds no image"
  elif "LOCALIZER" in kind:
    reason = "is a localizer"
  people = {dicom_head.text(h, "PatientID") for h in mine} - {""}
  patient = people.pop() if len(people) == 1 else ""
  texts = dicom_head.text(first, "SeriesDescription"), dicom_head.text(first, "ProtocolName")
  words, study = [w.strip(" '[]") for w in kind.split(",")], dicom_head.text(first, "StudyInstanceUID")
  return Series(uid, files, texts, study, patient, reason, _sort(mine), (*words, modality.upper()))


def _sort(heads):
  """Whether files of one series are a volume or images; the rule of `Series`."""
  placed = [p for p in map(_placed, heads) if p is not None]
  if not placed or len(heads) == 1:
    return "image"
  normal = np.cross(placed[0][1][:3], placed[0][1][3:])
  along = np.sort([position @ normal for position, _ in placed])
  apart = 1 + int((np.diff(along) > 1e-3).sum())
  one_way = all(np.allclose(directions, placed[0][1], rtol=0, atol=1e-2) for _, directions in placed)
  if apart == 1 and one_way:
    return "image"
  return "volume" if one_way and apart >= LEAST and 2 * len(placed) > len(heads) else "unclear"


def _placed(head):
  """(position [3], directions [6]) of a slice, None where its header has none."""
  try:
    position, directions = (np.array([float(v) for v in head.get(name)]) for name in _NEEDED[:2])
  except Exception:  # absent, no numbers, or what pydicom raises for damaged elements
    return None
  fine = position.shape == (3,) and directions.shape == (6,)
  return (position, directions) if fine and np.isfinite([*position, *directions]).all() else None


def read_series(files: Sequence[pathlib.Path]) -> tuple[np.ndarray, np.ndarray]:
  """(float64 [H,W,Z] in units after rescaling, affine [4,4] from voxels to mm towards R, A, S).

  H runs along the rows of the pictures (columns of pixels), W down, Z along the normal.

  Raises:
    UserError: names the folder (or the file) and why it is no volume: gaps, equal or uneven positions, a
      tilted gantry, slices that differ in size, orientation or frame of reference, missing geometry,
      several frames in a file, colours, files that cannot be read.
  """
  folder = pathlib.Path(files[0]).parent
  slices, places, first = [], [], None
  for path in files:
    frame = dicom.read(path, window=(0, 1))  # any: units() have none, and floats ask for one
    place = _place(path, frame)
    first = first or place
    _check_alike(folder, path, first, place)
    slices.append(dicom.units(frame)[..., 0].T)
    places.append(place["position"])
  assert first is not None
  order, step = _order(folder, files, np.array(places), first["normal"])
  _say_missing(folder, float(np.linalg.norm(step)), *first["said"])
  array = np.stack([slices[i] for i in order], -1)
  if not np.isfinite(array).all():
    raise UserError(f"{folder} holds NaN or infinite voxels")
  affine = np.eye(4)
  affine[:3, 0] = first["row"] * first["spacing"][1]  # spacing of rows comes first in DICOM
  affine[:3, 1] = first["column"] * first["spacing"][0]
  affine[:3, 2], affine[:3, 3] = step, places[order[0]]
  return array, np.diag([-1.0, -1, 1, 1]) @ affine  # DICOM counts towards left, posterior


def _place(path, frame):
  """Geometry of one slice; refuses what has none."""
  data = frame.info
  frames = len(frame.pixels)
  if frames > 1 or "PerFrameFunctionalGroupsSequence" in data:
    raise UserError(f"{path} has {frames} frames in one file: multi-frame DICOM is not read as a volume; "
                    "convert it to NIfTI")
  if frame.pixels.shape[-1] != 1 or "ModalityLUTSequence" in data:
    raise UserError(f"{path} has colours or a modality look-up table: no slice of a volume")
  missing = [name for name in _NEEDED if data.get(name) in (None, "") or not len(data.get(name))]
  if missing:
    raise UserError(f"{path} has no {', '.join(missing)}: nothing says where the slice lies")
  try:
    numbers = [np.array([float(v) for v in data.get(name)]) for name in _NEEDED]
  except (TypeError, ValueError):
    raise UserError(f"{path}: its {', '.join(_NEEDED)} are not all numbers") from None
  position, directions, spacing = numbers
  fine = [len(n) for n in numbers] == [3, 6, 2] and all(np.isfinite(n).all() for n in numbers)
  if not fine or spacing.min() <= 0:
    raise UserError(f"{path}: its {', '.join(_NEEDED)} place no slice")
  row, column = directions[:3], directions[3:]
  if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=1e-2):
    raise UserError(f"{path}: ImageOrientationPatient holds no two directions at right angles")
  return {"position": position, "row": row, "column": column, "normal": np.cross(row, column),
          "spacing": spacing, "size": frame.pixels.shape[1:3], "inverted": frame.inverted,
          "frame of reference": dicom_head.text(data, "FrameOfReferenceUID"),
          "series": dicom_head.text(data, "SeriesInstanceUID"),
          "study": dicom_head.text(data, "StudyInstanceUID"), "tube voltage": _rounded(data.get("KVP")),
          "position of the patient": dicom_head.text(data, "PatientPosition"),
          "scanning sequence": dicom_head.text(data, "ScanningSequence"),
          "said": [_number(data.get(name)) or 0.0 for name in ("SpacingBetweenSlices", "SliceThickness")],
          "patient": dicom_head.text(data, "PatientID"),
          "echo": dicom_head.text(data, "EchoNumbers"), "modality": dicom_head.text(data, "Modality"),
          "echo time": _rounded(data.get("EchoTime")), "repetition time": _number(data.get("RepetitionTime")),
          "time": dicom_head.text(data, "TemporalPositionIdentifier"),
          "inversion time": _rounded(data.get("InversionTime")),
          "flip angle": _rounded(data.get("FlipAngle")),
          "reconstruction kernel": dicom_head.text(data, "ConvolutionKernel"),
          "contrast agent": dicom_head.text(data, "ContrastBolusAgent"),
          "diffusion weighting": dicom_head.text(data, "DiffusionBValue"),
          "unit": dicom_head.text(data, "Units") or dicom_head.text(data, "RescaleType"),
          "sign of its pixels": dicom_head.text(data, "PixelRepresentation"),
          "part of the signal": dicom_head.part(data),
          "description": dicom_head.free_text(data, "SeriesDescription"),
          "protocol": dicom_head.free_text(data, "ProtocolName"),
          "sequence name": dicom_head.free_text(data, "SequenceName"),
          "scale (of Philips' own)": dicom_head.philips_scale(data),
          "rescaling (one has a slope or an intercept, one has none)": dicom_head.rescaled(data)}


def _number(value) -> float | None:
  try:
    return float(value)
  except (TypeError, ValueError):
    return None


def _rounded(value) -> str:
  """A number to two digits, in which slices of one echo agree; "" for what is none."""
  number = _number(value)
  return "" if number is None else f"{number:.2g}"


def _near(one: float | None, other: float | None) -> bool:
  """Whether two times are one: a scan that waits for heart or breath varies a little from slice to slice."""
  if one is None or other is None:
    return one is other
  return abs(one - other) <= _WAITS * max(abs(one), abs(other))


def _check_alike(folder, path, first, place):
  close = lambda key, atol: np.allclose(first[key], place[key], rtol=0, atol=atol)
  checks = {
      "orientation": close("row", 1e-3) and close("column", 1e-3),
      "pixel spacing": close("spacing", 1e-3),
      **{key: first[key] == place[key] for key in _ALIKE},
      "repetition time": _near(first["repetition time"], place["repetition time"]),
      "meaning of black": first["inverted"] == place["inverted"]}
  wrong = [key for key, fine in checks.items() if not fine]
  if wrong:
    raise UserError(f"{folder} is no volume: {path.name} has another {' and '.join(wrong)} than the "
                    "first slice")


def _order(folder, files, places, normal):
  """(indices along the normal, mm [3] from slice to slice); refuses what is no regular stack."""
  if len(files) < 2:
    raise UserError(f"{folder} holds one slice of a series ({files[0].name}), no volume")
  along = places @ normal
  order = np.argsort(along, kind="stable")
  apart = np.diff(along[order])
  usual = float(np.median(apart))
  show = lambda path: path.name if path.parent == folder else str(path)  # a copy in another folder
  name = lambda k: f"{show(files[order[k]])} and {show(files[order[k + 1]])}"
  same = int(np.argmin(apart))
  if apart[same] < max(1e-3, 0.01 * usual):
    raise UserError(f"{folder} is no volume: {name(same)} lie at the same position (several echoes, "
                    "times or copies in one series?)")
  wide = int(np.argmax(apart))
  if apart[wide] > 1.5 * usual:
    raise UserError(f"{folder} is no volume: slices are missing, {name(wide)} lie {apart[wide]:.4g} mm "
                    f"apart, the others {usual:.4g} mm")
  stack = places[order]
  step = (stack[-1] - stack[0]) / (len(files) - 1)
  thick = float(step @ normal)
  if np.linalg.norm(step - thick * normal) > _TILT * thick:
    raise UserError(f"{folder} is no volume: its slices are not stacked along their normal (tilted "
                    "gantry); resample it and convert it to NIfTI")
  off = np.linalg.norm(stack - (stack[0] + np.arange(len(files))[:, None] * step), axis=1)
  if off.max() > _UNEVEN * thick:
    raise UserError(f"{folder} is no volume: its slices are unevenly spaced ({apart.min():.4g} to "
                    f"{apart.max():.4g} mm)")
  return order, step


def _say_missing(folder, apart, said, thick):
  """Warns where slices lie at a multiple of the distance that their headers say: others are not there. Some
  scanners say the gap between them instead, which is less than a slice."""
  times = apart / said if said > 0 else 0.0
  if said >= 0.9 * thick and times > 1.5 and abs(times - round(times)) < 0.02 * times:
    logging.warning("%s: its slices lie %.4g mm apart, %d times the %.4g mm that their headers say (Spacing "
                    "Between Slices): are others missing?", folder, apart, round(times), said)


def along_normal(places: np.ndarray, directions) -> tuple[list[int], float]:
  """(indices of slices in the order in which `read_series` stacks them, mm between them).

  Args:
    places: [n,3] ImagePositionPatient of a regular stack. directions: [6] ImageOrientationPatient.
  """
  directions = np.array([float(v) for v in directions])
  along = places @ np.cross(directions[:3], directions[3:])
  order = np.argsort(along, kind="stable")
  return order.tolist(), float((along[order[-1]] - along[order[0]]) / max(1, len(places) - 1))
