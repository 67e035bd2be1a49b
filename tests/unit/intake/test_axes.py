"""Changes of axes, by the places of single voxels; and which voxels can be meant."""

import numpy as np
import pytest

from data_pipelines.errors import UserError
from data_pipelines.intake import geometry
from tests.stored_volumes import LPS, ORDERS, moved

SHAPE = (3, 4, 5)


def grid_of(codes):
  """A grid whose stored axes point so, a little oblique, with three spacings; and numbered voxels."""
  turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
  axes = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
  affine = np.eye(4)
  affine[:3, :3] = turn @ np.array([axes[c] for c in codes]).T @ np.diag([1, 2, 5])
  affine[:3, 3] = 7, -11, 13
  return geometry.Grid("g", SHAPE, affine)


def test_a_voxel_keeps_its_place_whatever_the_order_of_axes():
  array = np.arange(60).reshape(SHAPE)
  for k, stored in enumerate(ORDERS):
    grid = grid_of(stored)
    for codes in (ORDERS[(7 * k + 5) % len(ORDERS)], "LPS"):
      change = geometry.turned(grid, codes)
      new, after = geometry.apply(array, change), geometry.after(grid, change)
      assert after.codes == codes and after.shape == new.shape and grid.codes == stored
      np.testing.assert_array_equal(geometry.undo(new, change), array)
      places = [g.affine[:3, :3] @ where.reshape(3, -1) + g.affine[:3, 3:] for g, where in (
          (after, np.indices(new.shape)), (grid, np.array(np.unravel_index(new, SHAPE))))]
      np.testing.assert_allclose(*places, atol=1e-9)
      assert geometry.spacing_after(grid, change) == pytest.approx(after.spacing)
    assert sorted(grid.spacing) == pytest.approx([1, 2, 5]) and grid.voxel_ml == pytest.approx(0.01)


def test_pictures_look_as_radiologists_expect():
  """Right on the left and front or head up; from the side the front on the left. Slices keep their order."""
  for stored in ORDERS:
    grid = grid_of(stored)
    for through in ("LPS", "RAI", "LIA", "PIR", "AIL", "RSP"):
      change = geometry.turned(grid, through)
      found, codes = geometry.look(grid, change)
      side, vertical = codes[2] in "LR", codes[2] in "SI"
      assert codes == ("P" if side else "L") + ("P" if vertical else "I") + through[2]
      assert geometry.after(grid, found).codes == codes
  assert geometry.look(geometry.Grid("g", SHAPE, np.eye(4), known=False), None) == (None, "")


@pytest.mark.parametrize("start, same", [((0.08, 0, 0), True), ((0.15, 0, 0), False), ((0, 0, 0.03), True),
                                         ((0, 0, 0.06), False)])
def test_a_tenth_of_the_smallest_side_of_a_voxel_is_too_far(start, same):
  """Of 2 x 2 x 5 mm that is 0.2 mm, along the slices as well."""
  grids = [geometry.Grid("a", (40, 52, 9), LPS), geometry.Grid("b", (40, 52, 9), moved(LPS, start))]
  if same:
    geometry.check_same_grid(grids)
  else:
    with pytest.raises(UserError, match="b lies on another grid than a .affine: corners"):
      geometry.check_same_grid(grids)


def test_one_impossible_side_of_a_voxel_is_enough():
  affine = np.diag([1.0, 1, 200, 1])
  with pytest.raises(UserError, match="voxels of 1 x 1 x 200 mm"):
    geometry.check_voxels(geometry.Grid("g", SHAPE, affine))
  geometry.check_voxels(geometry.Grid("g", SHAPE, affine, known=False))  # nobody said that these are mm
  geometry.check_voxels(grid_of("LPS"))
