"""How much two masks have in common."""

from __future__ import annotations

import numpy as np


def dice(a: np.ndarray, b: np.ndarray) -> float:
  """2 |a and b| / (|a| + |b|) of boolean masks of one shape; 1 where both are empty."""
  total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
  return 2.0 * int(np.count_nonzero(a & b)) / total if total else 1.0
