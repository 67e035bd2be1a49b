"""Brains on disk as scanners and programs store them, and a predictor whose map tells directions apart."""

import gzip
import itertools
import struct

import nibabel
import numpy as np

from configs import dae_nifti
from data_pipelines.brains import inputs
from medae_jax.tasks.anomaly.predictor import Predictor

LPS = np.array([[-2.0, 0, 0, 47], [0, -2, 0, 61], [0, 0, 5, -20], [0, 0, 0, 1]])
ORDERS = ["".join(c) for axes in itertools.permutations(("LR", "PA", "SI"))
          for c in itertools.product(*axes)]
NAMES = ("flair", "t1")


def egg(shape=(40, 52, 9)):
  """Two modalities [H,W,Z], 0 outside an egg, brighter on one side, with one bright spot."""
  x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
  inside = (x / 0.7)**2 + (y / 0.8)**2 + (z / 0.9)**2 < 1
  base = np.random.default_rng(0).uniform(400, 500, shape) + 80 * x + 40 * y
  base[(x - 0.3)**2 + (y + 0.2)**2 + z**2 < 0.04] = 900
  return [np.where(inside, np.round(base * k), 0) for k in (1, 0.8)]


def stored(array, codes, affine=LPS):
  """(array, affine) of the same anatomy with its axes towards `codes`."""
  change = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine),
                                               nibabel.orientations.axcodes2ornt(tuple(codes)))
  image = nibabel.Nifti1Image(array, affine).as_reoriented(change)
  return np.asarray(image.dataobj), image.affine


def save(path, array, affine=LPS, codes=(1, 1), dtype=np.float32, kind=nibabel.Nifti1Image, qform=None,
         units="mm"):
  path.parent.mkdir(parents=True, exist_ok=True)
  image = kind(np.asarray(array).astype(dtype), affine)
  image.set_sform(affine if codes[0] else None, codes[0])
  image.set_qform((affine if qform is None else qform) if codes[1] else None, codes[1])
  image.header.set_xyzt_units(units, "sec")
  nibabel.save(image, path)
  return path


def patch(path, offset, form, *values):
  data = bytearray(gzip.decompress(path.read_bytes()))
  struct.pack_into("<" + form, data, offset, *values)
  path.write_bytes(gzip.compress(bytes(data), mtime=0))


def predictor(placement="anatomy", field_mm=120.0):
  """A model whose map depends on directions: the first channel, rolled and shaded."""
  config = dae_nifti.get_config("smoke").copy_and_resolve_references()
  with config.unlocked():
    config.data.modalities, config.data.image_size = NAMES, (48, 60)
    config.data.placement, config.data.field_mm = placement, field_mm
    config.predict.overlay_slices = 0
    config.eval.components = 0
  slope = np.linspace(0.5, 1, 48)[:, None] * np.linspace(1, 0.7, 60)

  def score(batch):
    image = batch["image"][..., :1]
    return {"map": np.roll(image, 2, 1) * slope[None, :, :, None], "score": image.max((1, 2, 3))}
  return Predictor(config, {"threshold": 0.5}, score)


def predicted(folder, out, name="p", kinds=("nifti",), **options):
  """(row, map, mask on the input's grid) of the scan p_flair, p_t1 in a folder."""
  out.mkdir(exist_ok=True)
  scan, = inputs.find_all(folder, NAMES, kinds)[0]
  row = predictor(**options).predict_one(scan, out)
  read = lambda kind: np.asarray(nibabel.load(out / f"{name}_{kind}.nii.gz").dataobj)
  return row, read("anomaly"), read("mask")


def write(folder, volumes, **options):
  for name, v in zip(NAMES, volumes, strict=True):
    save(folder / f"p_{name}.nii.gz", v, **options)
  return folder


def moved(affine, start):
  result = np.array(affine)
  result[:3, 3] += affine[:3, :3] @ start
  return result
