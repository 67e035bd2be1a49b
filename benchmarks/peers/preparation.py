"""Preparation of a BraTS scan as the published code (Kascenas 2022) does it: float64, an npz a slice."""

import pathlib

import nibabel
import numpy as np

MODALITIES = ("flair", "t1", "t1ce", "t2")


def resize_matrix(n_in, n_out):
  """Bilinear, half-pixel centres, no anti-aliasing: [n_out, n_in]."""
  source = np.maximum((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0)
  low = source.astype(int)
  matrix = np.zeros((n_out, n_in))
  matrix[np.arange(n_out), low] = 1 - (source - low)
  matrix[np.arange(n_out), np.minimum(low + 1, n_in - 1)] += source - low
  return matrix


def prepare(folder, output, size=128):
  """Writes one slice_<z>.npz a kept slice of the scan in `folder`; returns how many."""
  folder, output = pathlib.Path(folder), pathlib.Path(output)
  read = lambda kind: nibabel.load(folder / f"{folder.name}_{kind}.nii.gz").get_fdata()
  volumes = np.stack([read(kind) for kind in MODALITIES])
  label = (read("seg") > 0.5).astype(np.float64)
  for volume in volumes:
    volume /= np.quantile(volume[volume > 0], 0.99)
  on = np.flatnonzero(volumes.mean(0).sum((0, 1)) > 0.5)
  rows, columns = (resize_matrix(n, size) for n in label.shape[:2])
  output.mkdir(parents=True, exist_ok=True)
  for z in range(on[0], on[-1] + 1):
    image, mask = (rows @ np.ascontiguousarray(a[..., z]) @ columns.T for a in (volumes, label))
    np.savez_compressed(output / f"slice_{z}.npz", x=image[None],
                        y=mask[None, None].astype(np.float32))
  return on[-1] + 1 - on[0]
