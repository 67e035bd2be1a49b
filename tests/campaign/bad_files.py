"""Files as they should not be: one function a kind, each writes one file."""
# ruff: noqa: E501

from __future__ import annotations

import gzip
import os
import struct
import zlib

import nibabel
import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)


def _bytes(path, data):
  path.write_bytes(data)


def _png(size=(24, 24), **options):
  import io
  out = io.BytesIO()
  Image.fromarray(RNG.integers(0, 255, size, np.uint8)).save(out, "PNG", **options)
  return bytearray(out.getvalue())


def _flip(data, at):
  data[at] ^= 0x41
  return bytes(data)


def _huge_png(path):
  body = struct.pack(">IIBBBBB", 100000, 100000, 8, 0, 0, 0, 0)
  chunk = lambda name, b: struct.pack(">I", len(b)) + name + b + struct.pack(">I", zlib.crc32(name + b))
  _bytes(path, b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", body) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b""))


def _huge_bmp(path):
  _bytes(path, b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 100000, 100000, 1, 24, 0, 0, 0, 0, 0, 0))


def _volume(dtype=np.float32, shape=(12, 12, 5)):
  image = nibabel.Nifti1Image(RNG.uniform(1, 9, shape).astype(dtype), np.eye(4))
  return bytearray(gzip.compress(image.to_bytes(), mtime=0))


def _rgb(path):
  nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 3), [(c, "u1") for c in "RGB"]), np.eye(4)), path)


def _nifti(array, **options):
  return lambda p: nibabel.save(nibabel.Nifti1Image(array, np.eye(4), **options), p)


def _claim(path):
  data = bytearray(gzip.decompress(bytes(_volume())))
  struct.pack_into("<4h", data, 40, 3, 30000, 30000, 30000)
  _bytes(path, gzip.compress(bytes(data)))


def _pages(path):
  frames = [Image.fromarray(RNG.integers(0, 255, (20, 20), np.uint8)) for _ in range(4)]
  frames[0].save(path, save_all=True, append_images=frames[1:])


def _bilevel_giant(path):
  Image.new("1", (20000, 10000)).save(path)


def _dicom(change):
  def write(path):
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    d = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    d.Rows = d.Columns = 16
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.BitsAllocated = d.BitsStored = 8
    d.HighBit, d.PixelRepresentation = 7, 0
    d.PixelData = RNG.integers(0, 255, (16, 16), np.uint8).tobytes()
    change(d)
    d.save_as(path, enforce_file_format=True)
  return write


def _set(**values):
  return lambda d: [setattr(d, k, v) for k, v in values.items()]


def _loop(path):
  os.symlink(path.name, path)


IMAGES = {
    "empty.png": lambda p: _bytes(p, b""), "text.png": lambda p: p.write_text("hello"),
    "cut.png": lambda p: _bytes(p, _png()[:90]), "head.png": lambda p: _bytes(p, _png()[:20]),
    "flipped.png": lambda p: _bytes(p, _flip(_png(), 60)), "crc.png": lambda p: _bytes(p, _flip(_png(), 30)),
    "claims.png": _huge_png, "claims.bmp": _huge_bmp, "plate.png": _bilevel_giant, "zeros.jpg": lambda p: _bytes(p, bytes(5000)),
    "cut.jpg": lambda p: (Image.fromarray(np.zeros((40, 40), np.uint8)).save(p), _bytes(p, p.read_bytes()[:200])),
    "pages.tif": _pages, "pages.gif.tif": _pages, "cut.tif": lambda p: (_pages(p), _bytes(p, p.read_bytes()[:100])),
    "nan.tif": lambda p: Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(p),
    "bright.tif": lambda p: Image.fromarray(np.full((9, 9), 300, np.float32)).save(p),
    "twelve.png": lambda p: Image.fromarray(np.full((9, 9), 4000, np.uint16)).save(p),
    "nothing.png": lambda p: os.symlink("/nowhere/at/all.png", p), "loop.png": _loop,
    "pipe.png": os.mkfifo,
    "cut.jp2": lambda p: _bytes(p, b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(20)), "no.bmp": lambda p: _bytes(p, b"BM"),
    "no.dcm": lambda p: _bytes(p, b"no"), "preamble.dcm": lambda p: _bytes(p, bytes(128) + b"DICM"),
    "nopixels.dcm": _dicom(lambda d: d.__delattr__("PixelData")), "short.dcm": _dicom(_set(PixelData=b"ab")),
    "rows.dcm": _dicom(_set(Rows=60000, Columns=60000)), "bits.dcm": _dicom(_set(BitsAllocated=7)),
    "samples.dcm": _dicom(_set(SamplesPerPixel=5)), "colour.dcm": _dicom(_set(PhotometricInterpretation="YBR_WRONG")),
    "norows.dcm": _dicom(lambda d: d.__delattr__("Rows")), "slope.dcm": _dicom(_set(RescaleSlope="0", RescaleIntercept="1")),
    "window.dcm": _dicom(_set(WindowCenter="0", WindowWidth="-5")), "frames.dcm": _dicom(_set(NumberOfFrames="9")),
}
VOLUMES = {
    "empty": lambda p: _bytes(p, b""), "text": lambda p: p.write_text("hello"),
    "cut": lambda p: _bytes(p, _volume()[:400]), "last": lambda p: _bytes(p, _volume()[:-3]),
    "flipped": lambda p: _bytes(p, _flip(_volume(), 900)), "crc": lambda p: _bytes(p, _flip(_volume(), -6)),
    "claims": _claim, "rgb": _rgb, "complex": _nifti(np.ones((4, 4, 3), np.complex64)),
    "four": _nifti(np.ones((4, 4, 3, 2), np.float32)), "two": _nifti(np.ones((4, 4), np.float32)),
    "zero": _nifti(np.zeros((8, 8, 4), np.float32)), "nan": _nifti(np.full((8, 8, 4), np.nan, np.float32)),
    "infinite": _nifti(np.full((8, 8, 4), np.inf, np.float32)),
    "negative": _nifti(RNG.normal(size=(8, 8, 4)).astype(np.float32)),
    "plain": lambda p: _bytes(p, gzip.decompress(bytes(_volume()))),
    "nothing": lambda p: os.symlink("/nowhere/at/all.nii.gz", p), "loop": _loop, "pipe": os.mkfifo,
    "folder": lambda p: p.mkdir(),
    "random": lambda p: _bytes(p, gzip.compress(RNG.bytes(3000))),
}
