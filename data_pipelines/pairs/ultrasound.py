"""Synthetic ultrasound-like frames: layered tissue, cysts, shadows and speckle in a sector or box.

For demonstrations and tests without files; they look like ultrasound and say nothing about patients.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def frame(rng: np.random.Generator, size=(128, 128)) -> np.ndarray:
  """One grey frame, float32 [H,W] in [0,1] with values k/255, black outside the scanned region."""
  height, width = int(size[0]), int(size[1])
  rows, cols = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None]
  echo = _layers(rng, rows, cols)
  for _ in range(rng.integers(1, 4)):
    echo = _lesion(rng, echo, rows, cols)
  # Fully developed speckle is Rayleigh; its grain is wider across the beam than along it.
  noise = [ndimage.gaussian_filter(rng.standard_normal((height, width)), (0.9, 1.6)) for _ in "ab"]
  speckle = np.hypot(*noise)
  speckle = (speckle / speckle.mean()) ** 0.7  # spatial compounding evens it out
  depth = np.exp(-rng.uniform(0.2, 1.3) * rows)
  image = np.clip(echo * depth, 1e-4, None) * speckle
  image = np.clip(0.42 * np.log10(image / 0.012), 0, 1) * rng.uniform(0.75, 1.05)
  image = np.where(_scanned(rng, rows, cols), np.clip(image, 1.1 / 255, 1), 0)
  return (np.round(image * 255) / 255).astype(np.float32)


def _layers(rng, rows, cols):
  """Echo strength of wavy, roughly horizontal tissue layers with bright fibres between them."""
  wave = sum(rng.uniform(0.005, 0.03) * np.sin(2 * np.pi * (k * cols + rng.random()))
             for k in (1, 2, 3))
  depth = rows + wave
  borders = np.sort(rng.uniform(0.08, 0.95, rng.integers(3, 7)))
  strength = rng.uniform(0.05, 0.45, len(borders) + 1)
  echo = strength[np.searchsorted(borders, depth.ravel()).reshape(depth.shape)]
  for border in borders:
    echo = echo + rng.uniform(0.2, 0.8) * np.exp(-((depth - border) / rng.uniform(0.006, 0.02)) ** 2)
  fibres = ndimage.gaussian_filter(rng.standard_normal(rows.shape), (1.0, 9.0))
  return echo * np.exp(1.5 * fibres / max(fibres.std(), 1e-6) * rng.uniform(0.1, 0.4))


def _lesion(rng, echo, rows, cols):
  """A dark blob, with a shadow below it or brightening, as cysts and solid lesions show."""
  centre, radius = rng.uniform((0.25, 0.15), (0.75, 0.85)), rng.uniform(0.05, 0.16)
  flat = rng.uniform(0.6, 1.0)
  distance = np.hypot((rows - centre[0]) / flat, cols - centre[1]) / radius
  distance += 0.08 * np.sin(5 * np.arctan2(rows - centre[0], cols - centre[1]) + rng.uniform(0, 6))
  inside = 1 / (1 + np.exp((distance - 1) * 18))
  below = (rows > centre[0]) * np.exp(-((cols - centre[1]) / (0.8 * radius)) ** 4) * (1 - inside)
  echo = echo * (1 - inside * rng.uniform(0.75, 0.97))
  return echo * (1 + below * rng.uniform(-0.7, 0.8))


def _scanned(rng, rows, cols):
  """Region of the beam: the whole frame, a trapezoid or a sector."""
  kind = rng.choice(["full", "full", "trapezoid", "sector"])
  if kind == "full":
    return np.ones(rows.shape, bool)
  if kind == "trapezoid":
    return np.abs(cols - 0.5) < 0.3 + 0.25 * rows
  radius = np.hypot(rows + 0.25, cols - 0.5)
  return (np.abs(np.arctan2(cols - 0.5, rows + 0.25)) < 0.65) & (radius > 0.3) & (radius < 1.2)
