"""Synthetic skin lesions, for demonstrations and tests: they say nothing about patients.

Skin of a random tone with uneven light, a darker irregular patch whose inside is mottled, and what
misleads a segmenter: freckles, hairs, dark corners. Everything is a function of (seed, split, i).
"""

from __future__ import annotations

import zlib

import numpy as np
import scipy.ndimage

HEIGHT, WIDTH = 72, 96  # not square, like photographs


def draw(seed: int, split: str, i: int) -> tuple[np.ndarray, np.ndarray]:
  """(image uint8 [72,96,3], mask bool [72,96]) of lesion i of a split."""
  rng = np.random.default_rng([int(seed), zlib.crc32(split.encode()), int(i)])
  y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
  skin = np.array([225, 175, 150]) + rng.normal(0, [12, 18, 20])
  mask, soft = _lesion(rng, y, x)
  colour = skin * rng.uniform(0.35, 0.75) * np.array([1.0, 0.85, 0.75])
  mottle = 1 + rng.uniform(0.1, 0.35) * _smooth(rng, 2.0)
  light = 1 + 0.12 * _smooth(rng, 25.0)
  image = skin * light[..., None]
  image = image * (1 - soft[..., None]) + (colour * mottle[..., None]) * soft[..., None]
  for _ in range(rng.integers(0, 6)):  # freckles: darker, small, and no lesion
    cy, cx, r = rng.uniform(0, HEIGHT), rng.uniform(0, WIDTH), rng.uniform(1.0, 2.5)
    spot = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * r**2))
    image *= 1 - 0.4 * spot[..., None]
  for _ in range(rng.integers(0, 5)):
    image = _hair(rng, image, y, x)
  if rng.random() < 0.3:  # dark corners of a dermatoscope
    far = np.hypot((y - HEIGHT / 2) / (HEIGHT / 2), (x - WIDTH / 2) / (WIDTH / 2))
    image *= (1 - 0.9 / (1 + np.exp(-(far - 1.15) * 25)))[..., None]
  image += rng.normal(0, 4, image.shape)
  return np.clip(np.round(image), 0, 255).astype(np.uint8), mask


def _lesion(rng, y, x):
  """A star-shaped patch with a wavy border: bool mask and soft opacity in [0,1]."""
  radius = rng.uniform(9, 26)
  cy = rng.uniform(0.35, 0.65) * HEIGHT
  cx = rng.uniform(0.35, 0.65) * WIDTH
  angle, stretch = rng.uniform(0, np.pi), rng.uniform(0.7, 1.0)
  dy, dx = y - cy, x - cx
  u = dy * np.cos(angle) + dx * np.sin(angle)
  v = (-dy * np.sin(angle) + dx * np.cos(angle)) / stretch
  theta = np.arctan2(u, v)
  border = np.ones_like(theta)
  for k in range(2, 7):
    border += rng.normal(0, 0.16 / k) * np.cos(k * theta + rng.uniform(0, 2 * np.pi))
  inside = radius * border - np.hypot(u, v)  # signed distance, roughly
  return inside > 0, 1 / (1 + np.exp(-inside / rng.uniform(0.6, 2.0)))


def _hair(rng, image, y, x):
  """One dark curved line."""
  angle, offset = rng.uniform(0, np.pi), rng.uniform(-30, 30)
  along = (y - HEIGHT / 2) * np.sin(angle) + (x - WIDTH / 2) * np.cos(angle)
  across = (x - WIDTH / 2) * np.sin(angle) - (y - HEIGHT / 2) * np.cos(angle)
  distance = np.abs(across - offset - rng.uniform(-0.004, 0.004) * along**2)
  return image * (1 - 0.7 * np.exp(-(distance / 0.6) ** 2))[..., None]


def _smooth(rng, sigma):
  """Gaussian field of unit standard deviation."""
  field = scipy.ndimage.gaussian_filter(rng.standard_normal((HEIGHT, WIDTH)), sigma, mode="wrap")
  return field / max(field.std(), 1e-9)
