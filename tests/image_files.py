"""Image files as cameras, scanners and laboratories write them, byte by byte.

`tiff` writes what Pillow cannot: any depth, sample format, byte order, tiles, BigTIFF, planes.
`dicom` writes a small DICOM file.
"""

import pathlib
import struct
import zlib

import numpy as np

_TYPES = {"B": 1, "s": 2, "H": 3, "I": 4, "II": 5, "Q": 16}


def tiff(path, array, *, order="<", bits=None, photometric=None, big=False, tile=0, planes=False,
         deflate=False, extra=(), pages=None, predictor=1, alpha=None):
  """Writes [H,W] or [H,W,C] of any numeric type as TIFF.

  Args:
    order: "<" or ">". bits: of a value, where packed (12). photometric: 0 white is zero, 1, 2.
    big: BigTIFF. tile: side of tiles, 0 = one strip. planes: channels one after the other.
    extra: (tag, kind, values) added to every page. pages: arrays; `array` is ignored then.
    alpha: value of ExtraSamples.
  """
  out = bytearray(struct.pack(order + ("2sHHHQ" if big else "2sHI"), *(
      (b"II" if order == "<" else b"MM", 43, 8, 0, 0) if big else
      (b"II" if order == "<" else b"MM", 42, 0))))
  link = 8 if big else 4
  for page in pages if pages is not None else [array]:
    tags, blocks = _page(page, order, bits, photometric, tile, planes, deflate, predictor, alpha)
    places = []
    for block in blocks:
      places.append(len(out))
      out += block + b"\0" * (len(block) % 2)
    kind = "Q" if big else "I"
    tags += [(324 if tile else 273, kind, places),
             (325 if tile else 279, kind, [len(b) for b in blocks]), *extra]
    link = _directory(out, sorted(tags), order, big, link)
  pathlib.Path(path).write_bytes(bytes(out))
  return pathlib.Path(path)


def _page(page, order, bits, photometric, tile, planes, deflate, predictor, alpha):
  page = np.asarray(page)
  height, width = page.shape[:2]
  cube = page.reshape(height, width, -1)
  channels = cube.shape[-1]
  form = {"u": 1, "i": 2, "f": 3}[page.dtype.kind]
  parts = [cube[..., c:c + 1] for c in range(channels)] if planes else [cube]
  blocks = []
  for part in parts:
    if tile:
      part = np.pad(part, ((0, -height % tile), (0, -width % tile), (0, 0)))
      pieces = [part[r:r + tile, c:c + tile] for r in range(0, height, tile)
                for c in range(0, width, tile)]
    else:
      pieces = [part]
    blocks += [_packed(p, order, bits) for p in pieces]
  if deflate:
    blocks = [zlib.compress(b) for b in blocks]
  if photometric is None:
    photometric = 2 if channels - (alpha is not None) == 3 else 1
  tags = [(256, "I", [width]), (257, "I", [height]),
          (258, "H", [bits or 8 * page.dtype.itemsize] * channels), (259, "H", [8 if deflate else 1]),
          (262, "H", [photometric]), (277, "H", [channels]), (284, "H", [2 if planes else 1]),
          (339, "H", [form] * channels)]
  tags += [(322, "I", [tile]), (323, "I", [tile])] if tile else [(278, "I", [height])]
  tags += [(338, "H", [alpha])] if alpha is not None else []
  return tags, blocks


def _packed(array, order, bits):
  if bits in (None, 8 * array.dtype.itemsize):
    return array.astype(array.dtype.newbyteorder(order)).tobytes()
  rows = []
  for row in array.reshape(array.shape[0], -1):  # most significant bit first, rows padded to bytes
    grid = (row[:, None].astype(np.int64) >> np.arange(bits - 1, -1, -1)) & 1
    rows.append(np.packbits(grid.astype(np.uint8)))
  return np.concatenate(rows).tobytes()


def _directory(out, tags, order, big, link):
  """Appends a directory, links it from `link`; returns where the next link goes."""
  start = len(out)
  room, entry = (8, 20) if big else (4, 12)
  after = start + (8 if big else 2) + entry * len(tags) + room
  head, data = b"", b""
  for number, kind, values in tags:
    if kind == "s":
      content, count = values + b"\0", len(values) + 1
    elif kind == "II":
      content = b"".join(struct.pack(order + "II", *v) for v in values)
      count = len(values)
    else:
      content, count = struct.pack(f"{order}{len(values)}{kind}", *values), len(values)
    head += struct.pack(order + ("HHQ" if big else "HHI"), number, _TYPES[kind], count)
    if len(content) <= room:
      head += content.ljust(room, b"\0")
    else:
      head += struct.pack(order + ("Q" if big else "I"), after + len(data))
      data += content + b"\0" * (len(content) % 2)
  out += struct.pack(order + ("Q" if big else "H"), len(tags)) + head + bytes(room) + data
  struct.pack_into(order + ("Q" if big else "I"), out, link, start)
  return after - room


def dicom(path, array, photometric="MONOCHROME2", frames_count=0, stored=0, syntax=None, **fields):
  """Writes a small DICOM file; array [H,W], [H,W,3] or [N,H,W]. `stored`: Bits Stored."""
  import pydicom
  from pydicom.dataset import FileDataset, FileMetaDataset
  meta = FileMetaDataset()
  meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.6.1"
  meta.MediaStorageSOPInstanceUID = "1.2.3.4"
  meta.TransferSyntaxUID = syntax or pydicom.uid.ExplicitVRLittleEndian
  data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
  data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3.4"
  data.PatientName, data.PatientID = "Doe^Jane", "42"
  data.Rows, data.Columns = array.shape[1:3] if frames_count else array.shape[:2]
  data.SamplesPerPixel = 3 if array.shape[-1] == 3 and array.ndim == 3 and not frames_count else 1
  data.PhotometricInterpretation = photometric
  bits = 8 * array.itemsize
  data.BitsAllocated, data.BitsStored = bits, stored or bits
  data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(array.dtype.kind == "i")
  if data.SamplesPerPixel == 3:
    data.PlanarConfiguration = 0
  if frames_count:
    data.NumberOfFrames = frames_count
  big = syntax == pydicom.uid.ExplicitVRBigEndian
  data.PixelData = array.astype(array.dtype.newbyteorder(">" if big else "<")).tobytes()
  data.PixelData += b"\0" * (len(data.PixelData) % 2)
  data["PixelData"].VR = "OB" if bits == 8 else "OW"
  for key, value in fields.items():
    setattr(data, key, value)
  data.set_original_encoding(False, not big)
  data.save_as(path, enforce_file_format=True)
  return pathlib.Path(path)
