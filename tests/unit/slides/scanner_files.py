"""Slides as scanners write them, as far as their public descriptions say: SVS, NDPI, Philips TIFF.

Synthetic: what real scanners put in beyond that (calibration, private fields, odd tiles) is not in them.
"""

import struct

import numpy as np
import tifffile

from data_pipelines.slides import writer

JPEG, J2K_YCC, J2K_RGB = "jpeg", 33003, 33005  # compressions of SVS; 330xx are Aperio's JPEG 2000
_APERIO = "Aperio Image Library v11.2.1\r\n{w}x{h} [0,0 {w}x{h}] (240x240) {more} Q=90"


def levels(image, downsamples=(1, 4, 16)):
  """Means of the finer pixels."""
  found, done = [image], 1
  for downsample in downsamples[1:]:
    level = found[-1]
    while done < downsample:
      level = writer.halved(level, np.empty((*(-(-n // 2) for n in level.shape[:2]), 3), np.uint8))
      done *= 2
    found.append(level)
  return found


def svs(path, image, compression=JPEG, mpp=0.499, power=20):
  """Aperio: tiled levels, a thumbnail in strips behind the first, label and macro at the end."""
  height, width = image.shape[:2]
  options = {"photometric": "rgb", "metadata": None, "software": None}
  if compression == J2K_YCC:
    options["photometric"] = "ycbcr"
  with tifffile.TiffWriter(path) as file:
    for number, level in enumerate(levels(image)):
      reduced = f"-> {level.shape[1]}x{level.shape[0]}" if number else ""
      text = _APERIO.format(w=width, h=height, more=reduced)
      text += f"|AppMag = {power}|MPP = {mpp:.4f}" if not number else ""
      file.write(_ycc(level) if compression == J2K_YCC else level, tile=(240, 240), compression=compression,
                 compressionargs={"level": 90} if compression == JPEG else None, description=text, **options)
      if not number:
        small = levels(image, (1, 8))[-1]
        file.write(small, compression="jpeg", rowsperstrip=16, photometric="rgb", metadata=None,
                   software=None, description=f"Aperio Image Library v11.2.1\r\n{width}x{height} -> "
                                              f"{small.shape[1]}x{small.shape[0]} - ")
    for kind, name, coding in ((1, "label", "lzw"), (9, "macro", "jpeg")):
      file.write(small, compression=coding, photometric="rgb", subfiletype=kind, metadata=None, software=None,
                 description=f"Aperio Image Library v11.2.1\r\n{name} {small.shape[1]}x{small.shape[0]}")
  return path


def _ycc(image):
  """BT.601 of the full range, as JPEG has it."""
  to = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
  return np.clip(np.rint(image @ to.T + [0, 128, 128]), 0, 255).astype(np.uint8)


def philips(path, image, mpp=0.25):
  """Philips: one XML of the whole in the first directory; every level filled up to whole tiles."""
  side = 512
  with tifffile.TiffWriter(path) as file:
    for number, level in enumerate(levels(image)):
      full = np.pad(level, [(0, -n % side) for n in level.shape[:2]] + [(0, 0)], constant_values=255)
      file.write(full, tile=(side, side), photometric="rgb", compression="jpeg", metadata=None,
                 software="Philips DP v1.0", compressionargs={"level": 90}, subfiletype=int(number > 0),
                 description=_philips_xml(mpp) if not number else f"level={number} mag={40 / 4 ** number}")
  return path


def _philips_xml(mpp, count=3):
  spacing = lambda n: _field("DICOM_PIXEL_SPACING", "IDoubleArray", " ".join(
      [f"&quot;{mpp / 1000 * 4 ** n:.9f}&quot;"] * 2))
  parts = "".join(f'<DataObject ObjectType="PixelDataRepresentation">{spacing(n)}'
                  f'{_field("PIIM_PIXEL_DATA_REPRESENTATION_NUMBER", "IUInt16", n)}</DataObject>'
                  for n in range(count))
  image = (_field("PIM_DP_IMAGE_TYPE", "IString", "WSI") + spacing(0)
           + _field("PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE", "IDataObjectArray", f"<Array>{parts}</Array>"))
  scanned = _field("PIM_DP_SCANNED_IMAGES", "IDataObjectArray",
                   f'<Array><DataObject ObjectType="DPScannedImage">{image}</DataObject></Array>')
  return f'<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">{scanned}</DataObject>'


def _field(name, kind, value):
  return f'<Attribute Name="{name}" Group="0x0" Element="0x0" PMSVR="{kind}">{value}</Attribute>'


def ndpi(path, image, mpp=0.25, power=40.0):
  """Hamamatsu: a JPEG a level in one strip; offsets of 64 bits in what looks like a classic TIFF.

  The place of the next directory takes eight bytes, and behind it come the upper halves of all values.
  """
  import imagecodecs
  with open(path, "wb") as file:
    file.write(struct.pack("<2sHQ", b"II", 42, 0))
    link = 4
    for number, level in enumerate(levels(image)):
      jpeg = imagecodecs.jpeg8_encode(level, level=90)
      place = file.tell()
      file.write(jpeg)
      numbers = _extra(file, struct.pack("<3H", 8, 8, 8)), _extra(file, b"Hamamatsu\0"), _extra(
          file, struct.pack("<2I", round(1e4 / mpp / 4 ** number), 1))
      lens = struct.unpack("<I", struct.pack("<f", power / 4 ** number))[0]
      entries = [(256, 4, 1, level.shape[1]), (257, 4, 1, level.shape[0]), (258, 3, 3, numbers[0]),
                 (259, 3, 1, 7), (262, 3, 1, 6), (271, 2, 10, numbers[1]), (273, 4, 1, place),
                 (277, 3, 1, 3), (278, 4, 1, level.shape[0]), (279, 4, 1, len(jpeg)),
                 (282, 5, 1, numbers[2]), (283, 5, 1, numbers[2]), (296, 3, 1, 3), (65420, 4, 1, 1),
                 (65421, 11, 1, lens), (65422, 9, 1, 0), (65423, 9, 1, 0), (65424, 9, 1, 0)]
      start = file.tell()
      file.write(struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries))
      following = file.tell()
      file.write(struct.pack("<Q", 0) + bytes(4 * len(entries)))
      file.seek(link)
      file.write(struct.pack("<Q", start))
      file.seek(0, 2)
      link = following
  return path


def _extra(file, content):
  place = file.tell()
  file.write(content)
  return place
