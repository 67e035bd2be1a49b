"""Filling an area from its surroundings: beside a network that finds marks, or with the true mask."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from medae_jax.core.errors import UserError

_NEIGHBOURS = ((0, 1), (0, -1), (1, 0), (-1, 0))


def harmonic(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Solves Laplace's equation inside the mask with the rim as boundary values.

  Args:
    image: float [H,W,C]; mask: bool [H,W], the area to fill.

  Returns:
    float32 [H,W,C], equal to `image` outside the mask. An image that is masked everywhere is
    returned as it is.
  """
  image = np.asarray(image, np.float32)
  rows, cols = np.nonzero(mask)
  if not len(rows) or len(rows) == mask.size:
    return image.copy()
  number = np.full(mask.shape, -1)
  number[rows, cols] = np.arange(len(rows))
  diagonal, right = np.zeros(len(rows)), np.zeros((len(rows), image.shape[-1]))
  entries = []
  for dr, dc in _NEIGHBOURS:
    r, c = rows + dr, cols + dc
    inside = (r >= 0) & (r < mask.shape[0]) & (c >= 0) & (c < mask.shape[1])
    diagonal += inside  # at the image's border the missing neighbour counts as equal
    here, r, c = np.flatnonzero(inside), r[inside], c[inside]
    unknown = number[r, c] >= 0
    entries.append(np.stack([here[unknown], number[r[unknown], c[unknown]]]))
    np.add.at(right, here[~unknown], image[r[~unknown], c[~unknown]])
  at = np.concatenate(entries, 1)
  matrix = scipy.sparse.csc_matrix((-np.ones(at.shape[1]), at), shape=(len(rows),) * 2)
  # + a whisper on the diagonal: an island of the mask that fills the frame has no boundary value
  matrix = matrix + scipy.sparse.diags(diagonal + 1e-9, format="csc")
  out = image.copy()
  solve = scipy.sparse.linalg.factorized(matrix)
  out[rows, cols] = np.stack([solve(right[:, k]) for k in range(image.shape[-1])], -1)
  return out


def restored(fill: str, image: np.ndarray, recon: np.ndarray, marks: np.ndarray) -> np.ndarray:
  """What reaches the user: the image, replaced where marks were detected.

  Args:
    fill: config.method.score.fill; "network" puts `recon` there, "harmonic" the surroundings.
    image, recon: float [H,W,C] in [0,1]; marks: bool [H,W], detected.

  Returns:
    float [H,W,C], equal to `image` outside the marks.
  """
  return harmonic(image, marks) if fill == "harmonic" else np.where(marks[..., None], recon, image)


def opencv_available() -> bool:
  """True where the optional package OpenCV is installed."""
  try:
    import cv2
  except ImportError:
    return False
  return hasattr(cv2, "inpaint")


def opencv(image: np.ndarray, mask: np.ndarray, kind: str, radius: float = 3.0) -> np.ndarray:
  """OpenCV's inpainting of 8-bit values: kind "telea" or "ns"; arguments as `harmonic`.

  Raises:
    UserError: OpenCV is not installed.
  """
  try:
    import cv2
  except ImportError:
    raise UserError("OpenCV is not installed: pip install opencv-python-headless, or set "
                     "config.eval.inpaint=harmonic") from None
  flag = {"telea": cv2.INPAINT_TELEA, "ns": cv2.INPAINT_NS}[kind]
  pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
  filled = cv2.inpaint(pixels, mask.astype(np.uint8), radius, flag).reshape(image.shape)
  return np.where(mask[..., None], filled.astype(np.float32) / 255, image).astype(np.float32)
