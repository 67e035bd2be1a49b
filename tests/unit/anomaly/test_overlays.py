"""Overlays of predict: each side where it is, pixels as high as wide, a ruler in mm."""

import nibabel
import numpy as np
import pytest

from data_pipelines.brains.volumes import Volumes
from data_pipelines.intake import geometry
from medae_jax.reporting import panels, rulers
from medae_jax.tasks.anomaly.written import overlays

LOOK = overlays.Look((0.0, 1.0), 1.0, 0.5)


def _read(codes, mm=(1.0, 1.0, 1.0)):
  """A scan stored with axes to `codes`, bright at the patient's left; in LPS 40 x 30 x 4 voxels of `mm`."""
  image = np.full((40, 30, 4), 0.2)
  image[36:, :, :] = 0.9  # L
  affine = np.diag([-mm[0], -mm[1], mm[2], 1.0])  # LPS
  change = nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("LPS"),
                                               nibabel.orientations.axcodes2ornt(codes))
  stored = nibabel.orientations.apply_orientation(image, change)
  there = affine @ nibabel.orientations.inv_ornt_aff(change, image.shape)
  grid = geometry.Grid("scan.nii.gz", stored.shape, there)
  assert grid.codes == codes
  return Volumes([stored], None, grid.spacing, grid, None, None), stored


@pytest.fixture
def drawn(monkeypatch):
  """What is handed to the table of pictures, and what was written on them."""
  found = {"letters": [], "mm": []}
  monkeypatch.setattr(panels, "grid", lambda cells, heads, lines, *a, **k: found.update(
      cells=cells, heads=heads, lines=lines) or np.zeros((1, 1, 3), np.uint8))
  monkeypatch.setattr(rulers, "sides", lambda picture, *sides: found["letters"].append(sides) or picture)
  monkeypatch.setattr(rulers, "ruler", lambda picture, mm: found["mm"].append(mm) or picture)
  return found


@pytest.mark.parametrize("codes", ["LPS", "RAS", "LAS", "RPI", "PLS"])
def test_the_patients_left_is_on_the_right_however_it_is_stored(drawn, codes):
  read, image = _read(codes)
  overlays.of_volume("p", "flair", read, image, np.zeros_like(image), None, 2, 2, LOOK)
  grey = drawn["cells"][0][0]
  assert drawn["letters"] == [("R", "L")] and grey[:, -8:].mean() > 2 * grey[:, :8].mean()
  assert drawn["lines"][0] == "flair; patient's right is on the left of the picture"
  assert "slice 3 of 4 (highest)" in drawn["heads"]


def test_voxels_that_are_higher_than_wide_are_drawn_so(drawn):
  read, image = _read("LPS", (1.0, 2.0, 5.0))
  overlays.of_volume("p", "flair", read, image, np.zeros_like(image), image > 0.5, 0, 1, LOOK)
  assert drawn["cells"][0][0].shape == (180, 120, 3) and drawn["cells"][1][0].shape == (180, 120, 3)
  assert drawn["mm"] == [pytest.approx(1 / 3)]
  assert drawn["lines"][1].endswith("outline: above the threshold")


def test_of_the_side_it_is_said_what_is_left(drawn):
  read, image = _read("PSL")  # slices from the side: the front is on the left
  overlays.of_volume("p", "t1", read, image, np.zeros_like(image), None, 0, 1, LOOK)
  assert drawn["letters"] == [("A", "P")] and "the patient's front" in drawn["lines"][0]


def test_a_scan_without_a_header_has_no_sides_and_no_ruler(drawn):
  image = np.random.default_rng(0).uniform(0.1, 1, (8, 6, 3))
  grid = geometry.Grid("s", image.shape, np.eye(4), known=False)
  read = Volumes([image], None, (1.0, 1.0, 1.0), grid, None, None)
  overlays.of_volume("p", "t1", read, image, np.zeros_like(image), None, 1, 1, LOOK)
  assert not drawn["letters"] and not drawn["mm"] and "nobody knows which side" in drawn["lines"][0]


def test_the_picture_of_one_image_has_its_threshold_outlined(drawn):
  image, found = np.full((60, 50), 0.4), np.zeros((60, 50), bool)
  found[20:40, 10:30] = True
  overlays.of_image("x", "score 0.3", image, np.zeros((60, 50)), found, LOOK)
  (grey, over), = drawn["cells"]
  assert grey.shape == over.shape == (240, 200, 3)
  marked = (over == np.array(panels.TRUTH)).all(-1)
  assert marked[80, 40:120].all() and not marked[90:150, 50:110].any()
  overlays.of_image("x", "score 0.3", image, np.zeros((60, 50)), None, LOOK)
  assert not (drawn["cells"][0][1] == np.array(panels.TRUTH)).all(-1).any()
