"""Where voxels lie: grids and their agreement, one orientation for all scans, and the way back.

The only place that compares or uses affines. A grid comes from a file's header (formats/), is
compared with those of the scan's other files, and turns the voxels into the orientation in which
the network sees every scan (config.data.orientation), so that the same anatomy gives the same map in
whichever of the 48 orders and directions of axes it is stored. Results are turned back.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import itertools
import logging

import numpy as np

from data_pipelines.errors import UserError

# Largest distance, in voxels, between the corners of two grids that count as one: headers are
# rounded to float32 and written by many programs; a tenth of a voxel cannot be seen.
TOLERANCE = 0.1
# Voxels of a head, an animal or a specimen in mm; beyond lie headers that count in other units than they say.
_VOXEL_MM = (0.005, 50.0)
_TURNED, _SIZED = 1.0, 0.01  # degrees and share of a voxel's size by which two forms may differ: rounding
_OTHER_SIDE = 45.0  # degrees from which an axis points to another side
_SHEARED = 2.0  # degrees off a right angle from which axes are said to be sheared


@dataclasses.dataclass(frozen=True)
class Grid:
  """The place of a volume.

  Attributes:
    name: of the file, for messages.
    shape: voxels along the three stored axes.
    affine: [4,4], voxel number -> mm towards right, anterior, superior.
    known: False where the header says nothing of the place; then axes are taken as they should be.
  """

  name: str
  shape: tuple[int, ...]
  affine: np.ndarray
  known: bool = True

  @property
  def spacing(self) -> tuple[float, ...]:
    """mm between neighbours along the stored axes."""
    return tuple(float(v) for v in np.sqrt((self.affine[:3, :3] ** 2).sum(0)))

  @property
  def voxel_ml(self) -> float:
    """Volume of a voxel in millilitres."""
    return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000)

  @property
  def codes(self) -> str:
    """Where the stored axes point to, nearest direction each: "LPS" as in BraTS."""
    import nibabel
    return "".join(c or "?" for c in nibabel.aff2axcodes(self.affine))


def check_same_grid(grids: Sequence[Grid]) -> None:
  """Refuses files whose voxels do not lie in the same places.

  A header that is silent beside one that speaks is said in the log: its voxels are taken as stored.

  Raises:
    UserError: names both files, and what differs: shape, orientation, voxel size or place.
  """
  first = grids[0]
  if told := next((g for g in grids if g.known), None):
    for silent in (g for g in grids if not g.known):
      logging.warning("%s says nothing of its place (neither sform nor qform): its voxels are taken to lie "
                      "as those of %s do, as stored", silent.name, told.name)
  for other in grids[1:]:
    difference = _difference(first, other)
    if difference:
      raise UserError(f"{other.name} lies on another grid than {first.name} ({difference}): resample "
                      "them to one grid (co-register)")


def _difference(a, b):
  if a.shape != b.shape:
    return f"shape {by(b.shape)} against {by(a.shape)}"
  if not (a.known and b.known):  # nothing to compare: one header is silent
    return ""
  corners = np.array([(*c, 1) for c in itertools.product(*((0, n - 1) for n in a.shape))])
  apart = np.sqrt(((corners @ (a.affine - b.affine).T)[:, :3] ** 2).sum(1)).max()
  if apart <= TOLERANCE * min(*a.spacing, *b.spacing):
    return ""
  if a.codes != b.codes:
    return f"axes {b.codes} against {a.codes}"
  if not np.allclose(a.spacing, b.spacing, rtol=1e-3):
    return f"voxels of {by(b.spacing)} mm against {by(a.spacing)} mm"
  return f"affine: corners are up to {apart:.3g} mm apart"


def by(numbers: Sequence[float]) -> str:
  """ "1 x 1 x 5" of sizes along axes."""
  return " x ".join(f"{n:.5g}" for n in numbers)


def compare_forms(path, sform, qform):
  """Says where two forms turn or size the voxels otherwise, beyond rounding; another origin changes nothing.

  Raises:
    UserError: they point an axis to other sides.
  """
  one, other = (g.affine[:3, :3] / np.array(g.spacing) for g in (sform, qform))
  angle = float(np.degrees(np.arccos(np.clip((one * other).sum(0), -1, 1))).max())
  if sform.codes != qform.codes and angle > _OTHER_SIDE:  # 44 and 46 degrees have other letters and are one
    raise UserError(f"{path}: its sform says that its axes run {sform.codes}, its qform {qform.codes}: which "
                    "side is left is not known; write it again with the right one alone (nibabel: set_sform)")
  if angle > _TURNED or not np.allclose(sform.spacing, qform.spacing, rtol=_SIZED):
    said = [f"{by(g.spacing)} mm" for g in (sform, qform)]
    logging.warning("%s: its sform and its qform are %.3g degrees apart and say voxels of %s and %s: the "
                    "sform is taken; where the qform is right, write it again with that alone", path, angle,
                    *said)


def check_voxels(grid: Grid) -> None:
  """Refuses voxels of an impossible size; says where they are sheared (a tilted gantry, a registration).

  Raises:
    UserError: the file says mm and counts in micrometres or metres, or the other way round.
  """
  if grid.known and not all(_VOXEL_MM[0] <= s <= _VOXEL_MM[1] for s in grid.spacing):
    raise UserError(f"{grid.name} has voxels of {by(grid.spacing)} mm by its header: its affine is in "
                    "another unit than it says, or damaged; write it again in mm")
  linear = grid.affine[:3, :3] / np.array(grid.spacing)
  away = 90 - np.degrees(np.arccos(np.abs((linear.T @ linear)[np.triu_indices(3, 1)]).clip(0, 1)).min())
  if grid.known and away > _SHEARED:
    logging.warning("%s: two axes of it are %.3g degrees off a right angle, and are read as if they were at "
                    "one: shapes are sheared; resample it to a grid at right angles", grid.name, away)


def turned(grid: Grid, codes: str) -> np.ndarray | None:
  """The change of axes that makes them point to `codes`; None = leave them ("" or nothing known).

  Raises:
    UserError: codes are not three different axes.
  """
  if not codes:
    return None
  import nibabel
  try:
    wanted = nibabel.orientations.axcodes2ornt(tuple(codes))
  except (ValueError, KeyError) as error:
    raise UserError(f"orientation {codes!r}: give three letters such as LPS or RAS") from error
  if np.isnan(wanted).any() or len(set(wanted[:, 0])) != 3:
    raise UserError(f"orientation {codes!r}: give three letters such as LPS or RAS")
  if not grid.known:
    logging.warning("%s says nothing of its orientation (neither sform nor qform): its axes are taken "
                    "for %s, as stored", grid.name, codes)
    return None
  return nibabel.orientations.ornt_transform(nibabel.io_orientation(grid.affine), wanted)


def apply(array: np.ndarray, change: np.ndarray | None) -> np.ndarray:
  """[X,Y,Z,...] with its axes changed as `turned` says."""
  if change is None:
    return array
  import nibabel
  return nibabel.orientations.apply_orientation(array, change)


def undo(array: np.ndarray, change: np.ndarray | None) -> np.ndarray:
  """[X,Y,Z,...] with its axes as they were before `apply`."""
  if change is None:
    return array
  import nibabel
  back = np.zeros((3, 2))
  back[change[:, 0].astype(int), 0] = np.arange(3)
  back[change[:, 0].astype(int), 1] = change[:, 1]
  return nibabel.orientations.apply_orientation(array, back)


def after(grid: Grid, change: np.ndarray | None) -> Grid:
  """The grid of an array after `apply`: other axes, the same places."""
  if change is None:
    return grid
  import nibabel
  shape = tuple(grid.shape[int(np.flatnonzero(change[:, 0] == axis)[0])] for axis in range(3))
  back = nibabel.orientations.inv_ornt_aff(change, grid.shape)
  return dataclasses.replace(grid, shape=shape, affine=grid.affine @ back)


# An axis towards one of them begins at the other.
OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}
# Columns, rows and slices of a picture, by where the slices go: patient's right on the left, front or head
# up; from the side the front is on the left.
_LOOK = {"S": "LPS", "I": "LPI", "A": "LIA", "P": "LIP", "L": "PIL", "R": "PIR"}


def look(grid: Grid, change: np.ndarray | None) -> tuple[np.ndarray | None, str]:
  """(change of the stored axes, their codes) for the eye: the slices along the third axis after `change`, in
  the same order; (None, "") where nothing is known."""
  if not grid.known:
    return None, ""
  codes = _LOOK[after(grid, change).codes[2]]
  return turned(grid, codes), codes


def spacing_after(grid: Grid, change: np.ndarray | None) -> tuple[float, ...]:
  """mm between neighbours along the axes after `apply`."""
  if change is None:
    return grid.spacing
  found = np.empty(3)
  found[change[:, 0].astype(int)] = grid.spacing
  return tuple(found.tolist())
