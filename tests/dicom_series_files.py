"""DICOM series on disk, made of volumes as a scanner would store them."""

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

FRAME = generate_uid()


def write(folder, array, affine, *, study="1.2.3", edit=None, slope=1.0, intercept=0.0, **fields):
  """Single-frame files, names in no order of places; `edit(data, k)` changes slice k.

  Args:
    array: [H,W,Z], whole numbers. affine: [4,4] of NIfTI, voxels to mm.
  """
  folder.mkdir(parents=True, exist_ok=True)
  lps = np.diag([-1.0, -1, 1, 1]) @ affine
  spacing = np.linalg.norm(lps[:3, :3], axis=0)
  row, column = (lps[:3, i] / spacing[i] for i in (0, 1))
  series, files = generate_uid(), []
  for k in range(array.shape[2]):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, study, FRAME
    data.Modality, data.PatientID = "MR", "P"
    data.PixelSpacing = [float(spacing[1]), float(spacing[0])]
    data.ImageOrientationPatient = [round(float(v), 6) for v in (*row, *column)]
    data.ImagePositionPatient = [round(float(v), 6) for v in (lps @ [0, 0, k, 1])[:3]]
    data.RescaleSlope, data.RescaleIntercept = slope, intercept
    pixels = np.round((array[:, :, k].T - intercept) / slope).astype("<u2")
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.PixelData = pixels.tobytes()
    for name, value in fields.items():
      setattr(data, name, value)
    if edit:
      edit(data, k)
    files.append(folder / f"IM{(7 * k + 3) % 101:04d}.dcm")
    data.save_as(files[-1], enforce_file_format=True)
  return files
