"""Where slices lie on the canvas, by hand: middles, millimetres, and the way back."""

import numpy as np
import pytest

from data_pipelines.brains import normalise, placement
from data_pipelines.errors import UserError


def box(rows, columns, shape=(20, 40)):
  anatomy = np.zeros(shape, bool)
  anatomy[slice(*rows), slice(*columns)] = True
  return anatomy


def test_the_middle_of_the_anatomy_is_that_of_the_canvas_at_one_size_of_pixels():
  """16 columns for 32 mm: 2 mm a pixel, which is one row of 2 mm, and two columns of 1 mm."""
  place = placement.of_anatomy(box((4, 10), (10, 30)), (2.0, 1.0), (8, 16), 32.0)
  np.testing.assert_allclose(place.source[0], np.arange(3, 11))
  np.testing.assert_allclose(place.source[1], np.arange(4.5, 35, 2))
  assert place.pixel_mm((2.0, 1.0)) == pytest.approx((2.0, 2.0))
  ramp = np.add.outer(100 * np.arange(20.0), np.arange(40.0))
  np.testing.assert_allclose(place.forward(ramp), np.add.outer(100 * place.source[0], place.source[1]))
  found = place.back(np.add.outer(100.0 * np.arange(8), np.arange(16.0)) + 1)
  expected = np.zeros((20, 40))
  expected[3:11, 5:35] = np.add.outer(100 * np.arange(8), (np.arange(5, 35) - 4.5) / 2) + 1
  np.testing.assert_allclose(found[:, 5:35], expected[:, 5:35])
  assert not found[:, :3].any() and not found[:, 37:].any()


@pytest.mark.parametrize("rows, columns, said", [
    ((4, 12), (4, 36), ""), ((4, 13), (4, 36), "18 mm high"), ((4, 12), (4, 37), "33 mm wide"),
    ((4, 4), (4, 8), "all zero")])
def test_anatomy_may_fill_the_canvas_and_no_more(rows, columns, said):
  make = lambda: placement.of_anatomy(box(rows, columns), (2.0, 1.0), (8, 16), 32.0)
  if said:
    with pytest.raises(UserError, match=said):
      make()
  else:
    make()


def test_pixels_of_a_whole_slice():
  assert placement.of_scan((20, 40), (10, 10)).pixel_mm((2.0, 3.0)) == (4.0, 12.0)


# ---------------------------------------------------------------------------------------- what is anatomy
def volume(negative=0):
  """100 voxels of anatomy in the slices 2 and 3, some of them negative."""
  found = np.zeros((12, 14, 6))
  found[1:6, 2:12, 2:4] = 10
  found[1, 2:2 + negative, 2] = -1
  return found


@pytest.mark.parametrize("negative, fine", [(5, True), (6, False)])
def test_a_twentieth_of_the_anatomy_may_ring_below_0(negative, fine):
  if fine:
    one = volume(negative - 1)
    one[0, 0, 0] = -1  # at one corner of eight: no background
    found = normalise.prepare([one], None, (12, 14))
    assert found.image.min() == -0.1 and found.slices.tolist() == [2, 3] and (found.image == 0).mean() > 0.5
  else:
    with pytest.raises(normalise.BadScan, match="negative values in 6% of its anatomy"):
      normalise.prepare([volume(negative)], None, (12, 14))


def test_anatomy_is_what_any_modality_shows():
  """The second modality sees a faint slice more and a wider head, whose middle is that of the picture."""
  wider = volume()
  wider[8, 6, 4] = 0.01
  kept = normalise.prepare([volume(), wider], None, (10, 12), (1.0, 2.0, 3.0), "anatomy", 30.0)
  assert kept.slices.tolist() == [2, 3, 4]
  np.testing.assert_allclose(kept.place.source[0][[0, -1]], 4.5 + np.array([-11.25, 11.25]))
  np.testing.assert_allclose(kept.place.source[1][[0, -1]], 6.5 + np.array([-6.875, 6.875]))


def test_a_label_that_is_no_number_is_refused():
  seg = np.zeros((12, 14, 6))
  seg[3, 4, 5] = np.nan  # in a slice that is not kept
  with pytest.raises(normalise.BadScan, match="seg holds NaN"):
    normalise.prepare([volume()], seg, (12, 14))
