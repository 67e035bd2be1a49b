"""What of a DICOM header travels into a result.

derived   (default) everything; an image whose pixels were changed is another object and gets an
          instance UID of its own, the words DERIVED\\SECONDARY and a reference to its source
          (PS3.3 C.7.6.1.1.2, C.12.4.1), so that an archive cannot take it for the original
same      every element and UID as in the input
none      only what describes the picture: no names, dates, places, texts or private elements, UIDs
          replaced by ones that the input's cannot be found from
"""

from __future__ import annotations

import copy
import secrets
from typing import Any

from data_pipelines.errors import UserError

CHOICES = ("derived", "same", "none")
_RESULT = "Annotations removed by a neural network; not for diagnosis"
# Beside group 0028 (the pixels): what says where and how the picture was taken, and no person.
_KEPT = ("SOPClassUID", "Modality", "ImageType", "ImagePositionPatient", "ImageOrientationPatient",
         "SliceThickness", "SpacingBetweenSlices", "SliceLocation", "InstanceNumber",
         "PatientOrientation", "Laterality", "ImageLaterality", "ViewPosition", "BodyPartExamined",
         "PresentationLUTShape", "FrameTime", "FrameIncrementPointer", "SpecificCharacterSet",
         "NumberOfFrames", "ImagerPixelSpacing", "BurnedInAnnotation", "ConversionType",
         "SequenceOfUltrasoundRegions", "VOILUTSequence", "ModalityLUTSequence")
_KEPT_ITEMS = ("LUTDescriptor", "LUTData", "RegionSpatialFormat", "RegionDataType", "RegionFlags",
               "RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1",
               "RegionLocationMaxY1", "PhysicalUnitsXDirection", "PhysicalUnitsYDirection",
               "PhysicalDeltaX", "PhysicalDeltaY", "ReferencePixelX0", "ReferencePixelY0")
_NEW_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
_TEXTS = ("LO", "LT", "SH", "ST", "UC", "UT", "PN", "UN", "SQ")  # explanations in group 0028
_RUN = secrets.token_hex(16)  # within one run, files of a series stay files of one series


def result_of(data, identifiers: str, changed: bool) -> Any:
  """A copy of pydicom's data set for a result.

  Args:
    identifiers: one of CHOICES. changed: whether any pixel differs from the input's.
  """
  if identifiers not in CHOICES:
    raise UserError(f"config.predict.identifiers={identifiers!r}: use {', '.join(CHOICES)}")
  result = copy.deepcopy(data)
  if identifiers == "none":
    return _anonymous(result)
  if identifiers == "derived" and changed:
    _derive(result, data)
  return result


def _derive(result, source):
  from pydicom.dataset import Dataset
  from pydicom.uid import generate_uid
  reference = Dataset()
  reference.ReferencedSOPClassUID = source.get("SOPClassUID", "")
  reference.ReferencedSOPInstanceUID = source.get("SOPInstanceUID", "")
  result.SourceImageSequence = [reference]
  result.SOPInstanceUID = generate_uid()
  result.file_meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
  kind = [str(v) for v in source.get("ImageType", [])] if "ImageType" in source else []
  result.ImageType = ["DERIVED", "SECONDARY", *kind[2:]]
  result.DerivationDescription = _RESULT


def _anonymous(result):
  from pydicom.uid import generate_uid
  for element in list(result):
    if element.tag.group == 0x0028 and element.VR not in _TEXTS:
      continue
    if element.keyword not in (*_KEPT, *_NEW_UIDS, "PixelData"):
      del result[element.tag]
  for name in ("SequenceOfUltrasoundRegions", "VOILUTSequence", "ModalityLUTSequence"):
    for item in result.get(name) or ():
      for element in list(item):
        if element.keyword not in _KEPT_ITEMS:
          del item[element.tag]
  for name in _NEW_UIDS:
    if name in result:
      setattr(result, name, generate_uid(entropy_srcs=[_RUN, str(result[name].value)]))
  meta = result.file_meta
  meta.MediaStorageSOPInstanceUID = result.get("SOPInstanceUID") or generate_uid()
  for element in list(meta):
    if element.keyword in ("SourceApplicationEntityTitle", "SendingApplicationEntityTitle",
                           "ReceivingApplicationEntityTitle", "PrivateInformation",
                           "PrivateInformationCreatorUID"):
      del meta[element.tag]
  result.preamble = bytes(128)
  result.PatientIdentityRemoved, result.DeidentificationMethod = "YES", "Only picture elements kept"
  return result
