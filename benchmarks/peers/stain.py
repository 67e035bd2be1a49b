"""The published stain normalisation, step by step as its specification has it; for benchmarks alone.

ninatu/anomaly_detection, camelyon16_preprocessing: the stain matrix by online dictionary learning (Mairal et
al. 2009, there SPAMS, which has no wheel for Python 3.11) for one second of wall time over the tissue, then
the concentrations of all pixels. Arrays of the whole image in float64.
"""

from __future__ import annotations

import time

import cv2
import numpy as np

SECONDS = 1.0
_BATCH = 512


def stain_matrix(image: np.ndarray, seconds: float = SECONDS) -> np.ndarray:
  """float64 [2,3] of a standardised image uint8 [H,W,3]."""
  lightness = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[..., 0] / 255
  x = density(image)[(lightness < 0.8).ravel()]
  rng = np.random.default_rng(0)
  d = x[rng.integers(0, len(x), 2)].T + 1e-3
  d /= np.linalg.norm(d, axis=0)
  gram, cross, end = np.zeros((2, 2)), np.zeros((3, 2)), time.perf_counter() + seconds
  while time.perf_counter() < end:
    batch = x[rng.integers(0, len(x), _BATCH)]
    a = codes(batch, d, 0.1)
    gram, cross = gram + a.T @ a / _BATCH, cross + batch.T @ a / _BATCH
    for j in (0, 1):
      if gram[j, j] > 0:
        u = np.maximum(d[:, j] + (cross[:, j] - d @ gram[:, j]) / gram[j, j], 0)
        d[:, j] = u / max(1, np.linalg.norm(u))
  d = d.T[np.argsort(-d[0])]
  return d / np.linalg.norm(d, axis=1, keepdims=True)


def codes(x: np.ndarray, d: np.ndarray, sparsity: float) -> np.ndarray:
  """float64 [n,2]: non-negative lasso of x [n,3] on d [3,2], in closed form."""
  gram, b = d.T @ d, x @ d - sparsity
  free = np.linalg.solve(gram, b.T).T
  one = np.maximum(b, 0) / np.diag(gram)
  first = (one ** 2 * np.diag(gram))[:, 0] >= (one ** 2 * np.diag(gram))[:, 1]
  single = np.where(first[:, None], one * [1, 0], one * [0, 1])
  return np.where((free >= 0).all(1)[:, None], free, single)


def density(image: np.ndarray) -> np.ndarray:
  """float64 [pixels,3]."""
  return -np.log(np.where(image == 0, 1, image) / 255).reshape(-1, 3)


def standardize(image: np.ndarray) -> np.ndarray:
  """Brightness."""
  return np.clip(image * 255.0 / np.percentile(image, 90), 0, 255).astype(np.uint8)


def normalize(image: np.ndarray, target: np.ndarray, seconds: float = SECONDS) -> np.ndarray:
  """uint8 [H,W,3] in the stains of `target` [2,3]."""
  image = standardize(image)
  c = codes(density(image), stain_matrix(image, seconds).T, 0.01)
  return (255 * np.exp(-c @ target)).reshape(image.shape).astype(np.uint8)
