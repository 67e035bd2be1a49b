"""Which voxels of a label volume are lesion; labels that cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data_pipelines.brains import sequences
from data_pipelines.brains.normalise import BadScan
from data_pipelines.errors import UserError
from data_pipelines.intake import find as finder, foreign

BRATS = (0, 1, 2, 3, 4)  # every value above 0 is a part of the lesion, in all years' numbering
BINARY = (0, 255)        # a mask as image programs write it
_ROUNDED = 1e-3          # what a scale factor of the header leaves of a whole number
_NAMED = 6               # values in an error line


def check_foreign(folder, left_out: Iterable[finder.LeftOut]) -> None:
  """Refuses labels in a format that is not read, or still in a cloud, in a folder of which none was taken for
  one: lesions would pass as healthy.

  Raises:
    UserError: with the first of them.
  """
  plain = lambda path: foreign.without_ending(path.name) if foreign.is_volume(path.name) else (
      foreign.not_here(path.name)[0])
  odd = [item for item in left_out if (name := plain(item.path)) and sequences.like_label(
      item.path.with_name(name))]
  if odd:
    raise UserError(f"{folder} holds no label that is read, and {len(odd)} files named as labels, the first: "
                    f"{odd[0].path.relative_to(folder)} {odd[0].reason}; where all scans are normal, take it "
                    "away")


def lesions(seg: np.ndarray, values: Sequence[int] = ()) -> np.ndarray:
  """uint8 [H,W,Z], 1 = lesion, of a label volume of any dtype.

  Args:
    values: config.data.lesion_values: the values that are lesion, all others are not. () = whatever is
      above 0, where the volume's values are those of BRATS or of BINARY, and 0 at one corner at least.

  Raises:
    BadScan: values that are no whole numbers (probabilities, an interpolated mask); without `values`,
      such as are no lesion for sure.
  """
  found = np.unique(np.asarray(seg)[seg != 0]).astype(np.float64)
  if not np.isfinite(found).all():
    raise BadScan("seg holds NaN or infinite voxels")
  whole = np.rint(found)
  broken = found[np.abs(found - whole) > _ROUNDED]
  if broken.size:
    raise BadScan(f"seg holds values that are no whole numbers ({_shown(broken)}), as probabilities and "
                  "interpolated masks have: give a mask of whole numbers, 0 outside the lesion")
  marked = np.rint(seg) != 0  # after the check: what resampling leaves of 0, 1e-5, is none
  whole = whole[whole != 0]
  if len(values):
    return (np.isin(np.rint(seg), list(values)) & marked).astype(np.uint8)
  odd = [v for v in whole if v not in BRATS]
  if odd and not set(whole) <= set(BINARY):
    every = tuple(map(int, whole[:_NAMED]))
    raise BadScan(f"seg holds the values {_shown(whole)}; known are 0 to 4 as in BraTS, and 0 and 255: say "
                  f"which are lesion, all of them: --config.data.lesion_values='{every}'")
  if marked.ndim == 3 and marked[np.ix_(*[(0, -1)] * 3)].all():  # a mask turned round, or 1 = background
    raise BadScan(f"seg holds {_shown(whole)} at all eight corners, where a lesion never is: is it inverted, "
                  "or is background not 0? Say which values are lesion by --config.data.lesion_values")
  return marked.astype(np.uint8)


def counts(seg: np.ndarray) -> dict[str, int]:
  """{value: voxels} of a label that `lesions` takes, without 0."""
  found, voxels = np.unique(np.rint(seg[seg != 0]).astype(np.int64), return_counts=True)
  return {str(v): int(n) for v, n in zip(found, voxels) if v}


def described(scans: Sequence[Mapping[str, int]], values: Sequence[int] = ()) -> str:
  """Which values of a set's labels were taken for lesion, with their scans and voxels.

  Args:
    scans: `counts` of each label. values: config.data.lesion_values.
  """
  every = sorted({int(v) for scan in scans for v in scan})
  def each(chosen):
    of = {v: [scan[str(v)] for scan in scans if str(v) in scan] for v in chosen}
    return ", ".join(f"{v} (in {len(n)} scans, {sum(n)} voxels)" for v, n in of.items()) or "none"
  taken, left = ([v for v in every if (not values or v in values) == wanted] for wanted in (True, False))
  return f"values taken for lesion: {each(taken)}" + (f"; not: {each(left)}" if left else "")


def _shown(values):
  more = f" and {len(values) - _NAMED} more" if len(values) > _NAMED else ""
  return ", ".join(f"{v:.4g}" for v in values[:_NAMED]) + more
