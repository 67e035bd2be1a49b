"""Real brains stored in all 48 orders of axes, cut and padded: one map each, to 1e-3 of its range."""

import nibabel
import numpy as np
import pytest

from tests.golden_cases import shared_data
from tests.stored_volumes import NAMES, ORDERS, moved, predicted, save, stored

pytestmark = pytest.mark.slow
FIELD = 240.0  # mm; larger than any head
SCANS = ("brain_ms/mscs_07", "brain_lgg/TCGA_CS_4941")
MOST = 8  # slices from the middle of a scan: more take minutes and show the same


@pytest.fixture(scope="module", params=SCANS)
def brain(request, tmp_path_factory):
  """({modality: voxels}, affine, map of the scan as it is stored)."""
  data, scan = request.param.split("/")
  folder = shared_data(data) / scan
  images = [nibabel.load(folder / f"{scan}_{m}.nii.gz") for m in NAMES]
  z = images[0].shape[2]
  kept = slice(max(0, (z - MOST) // 2), (z + MOST) // 2)
  volumes = [np.asarray(i.dataobj, np.float32)[:, :, kept] for i in images]
  found = _map(tmp_path_factory.mktemp("brain"), volumes, images[0].affine)
  assert np.ptp(found) > 0.1
  return volumes, images[0].affine, found


def _map(folder, volumes, affine, codes=(1, 1)):
  for name, volume in zip(NAMES, volumes, strict=True):
    save(folder / "in" / f"p_{name}.nii", volume, affine, codes)
  return predicted(folder / "in", folder / "out", placement="anatomy", field_mm=FIELD)[1]


# Each order on one of the scans: of the eight directions of each order of axes four on either.
@pytest.mark.parametrize("brain, codes", [(SCANS[i.bit_count() % 2], c) for i, c in enumerate(ORDERS)],
                         indirect=["brain"])
def test_every_order_of_axes(brain, tmp_path, codes):
  volumes, affine, want = brain
  turned, places = zip(*(stored(v, codes, affine) for v in volumes))
  forms = ((1, 0), (0, 1), (1, 1))[ORDERS.index(codes) % 3]  # sform only, qform only, both
  found = _map(tmp_path, turned, places[0], forms)
  assert np.abs(found - stored(want, codes, affine)[0]).max() < 1e-3 * np.ptp(want)


def _box(volumes):
  """[(first, last + 1)] of the anatomy along each axis."""
  there = np.logical_or.reduce([v > 0 for v in volumes])
  along = [np.flatnonzero(there.any(tuple(a for a in range(3) if a != axis))) for axis in range(3)]
  return [(int(a[0]), int(a[-1]) + 1) for a in along]


@pytest.mark.parametrize("crop", ["to the anatomy", "on one side", "padded on the other"])
def test_crops(brain, tmp_path, crop):
  volumes, affine, want = brain
  box = _box(volumes)
  if crop == "on one side":
    box = [(box[0][0], volumes[0].shape[0]), (0, box[1][1]), (0, volumes[0].shape[2])]
  pad = [(0, 0)] * 3
  if crop == "padded on the other":
    box, pad = [(0, n) for n in volumes[0].shape], [(0, 37), (21, 0), (2, 3)]
  cut = tuple(slice(*b) for b in box)
  changed = [np.pad(v[cut], pad) for v in volumes]
  before = [p[0] for p in pad]
  start = [b[0] - p for b, p in zip(box, before)]
  found = _map(tmp_path, changed, moved(affine, start))
  inside = found[tuple(slice(p, p + b[1] - b[0]) for b, p in zip(box, before))]
  assert np.abs(inside - want[cut]).max() < 1e-3 * np.ptp(want)
