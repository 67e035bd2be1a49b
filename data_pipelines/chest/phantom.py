"""Synthetic frontal chest radiographs: body, lungs, heart, ribs, vessels, findings. Not real patients.

Everything is defined in continuous coordinates (u from the image's left to its right, v from its top to
its bottom, both in [-1, 1]), so that a radiograph looks the same at any resolution; the heart points to
the image's right, as in a frontal view. Brightness is how much tissue a ray crosses: soft tissue, less
where air fills the lung, more behind heart, ribs and clavicles. Every radiograph has its own size of
lungs and heart, tilt, exposure, vessels and noise; some carry a bright marker letter's block, which is no
finding. A finding takes air out of the lung (or enlarges the heart), so that its brightness stays within
what other parts of the image have.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import ndimage

FINDINGS = ("opacity", "nodule", "effusion", "cardiomegaly")
_SIDES = (-1, 1)  # the image's left and right
_FINER = 2        # drawn so many times finer, then averaged: edges of less than a pixel


def radiograph(rng: np.random.Generator, size: int, finding: str = "") -> dict[str, np.ndarray]:
  """One synthetic radiograph.

  Args:
    rng: source of every random choice; the anatomy does not depend on `size` and `finding`.
    size: side in pixels.
    finding: one of FINDINGS, or "" for a normal one.

  Returns:
    "image" float32 [S,S] in [0, 1], "mask" bool [S,S]: the finding, "lungs" bool [S,S]: both lung fields
    as they would be without it.
  """
  body_rng, finding_rng, vessel_rng, noise_rng = rng.spawn(4)
  body = _Body(body_rng, size * _FINER)
  heart, mask = body.heart(1.0), np.zeros(body.u.shape)
  lungs = sum(body.lung(side) for side in _SIDES)
  air = lungs * (1 - heart)
  if finding == "cardiomegaly":
    larger = body.heart(finding_rng.uniform(1.3, 1.55))
    mask, air = (larger > 0.5) & (heart <= 0.5) & (lungs > 0.5), lungs * (1 - larger)
  elif finding:
    lost = {"opacity": _opacity, "nodule": _nodule, "effusion": _effusion}[finding](finding_rng, body, air)
    mask, air = (lost > 0.3) & (lungs > 0.5), air * (1 - lost)
  image = body.expose(air, _vessels(vessel_rng, body, air))
  image = _average(image) + noise_rng.uniform(0.008, 0.02) * noise_rng.standard_normal((size, size))
  return {"image": np.clip(image, 0, 1).astype(np.float32), "mask": _average(mask) > 0.5,
          "lungs": _average(lungs) > 0.5}


def _average(values):
  """Means of blocks of _FINER x _FINER."""
  n = values.shape[0] // _FINER
  return np.asarray(values, np.float64).reshape(n, _FINER, n, _FINER).mean((1, 3))


def _inside(distance, width=0.015):
  """Soft step: 1 where `distance` to a border is positive."""
  return 1 / (1 + np.exp(-np.clip(distance / width, -40, 40)))


@dataclasses.dataclass
class _Field:
  """Smooth random numbers on a grid of [-1, 1]^2, deviation 1; the same at every resolution."""
  values: np.ndarray

  @classmethod
  def draw(cls, rng, n):
    return cls(rng.standard_normal((n, n)))

  def at(self, u, v):
    n = len(self.values)
    where = [(np.clip(v, -1, 1) + 1) / 2 * (n - 1), (np.clip(u, -1, 1) + 1) / 2 * (n - 1)]
    return ndimage.map_coordinates(self.values, where, order=3, mode="nearest")


class _Body:
  """The anatomy of one radiograph on a grid of n x n points."""

  def __init__(self, rng, n):
    at = (np.arange(n) + 0.5) / n * 2 - 1
    u, v = np.meshgrid(at, at)
    angle, zoom = np.deg2rad(rng.normal(0, 2)), rng.uniform(0.94, 1.08)
    du, dv = rng.normal(0, 0.03, 2)
    self.u = (np.cos(angle) * (u - du) + np.sin(angle) * (v - dv)) * zoom
    self.v = (np.cos(angle) * (v - dv) - np.sin(angle) * (u - du)) * zoom
    self.frame = (u, v)
    self.width = rng.uniform(0.70, 0.82)      # of a lung field from the midline
    self.base = {s: rng.uniform(0.48, 0.58) + 0.05 * (s > 0) for s in _SIDES}  # of the diaphragm
    self._heart = rng.uniform((0.09, 0.26, 0.28, 0.21), (0.17, 0.34, 0.36, 0.27))  # u, v, radii
    self._spacing, self._slope = rng.uniform(0.165, 0.19), rng.uniform(0.26, 0.36)
    self._top = rng.uniform(-0.92, -0.86)
    self._level, self._gain, self._gamma = rng.uniform((0.50, 0.85, 0.85), (0.60, 1.05, 1.2))
    self._cloud, self._mottle = _Field.draw(rng, 5), _Field.draw(rng, 24)
    self._marker = (rng.uniform(-0.9, -0.75), rng.uniform(-0.9, -0.7), rng.choice(_SIDES)) if (
        rng.random() < 0.5) else None

  def wall(self):
    """How far from the midline the inside of the ribs is, at every v."""
    return self.width * (1 - np.clip((0.5 - self.v) / 1.36, 0, 1.2) ** 2.2)

  def lung(self, side):
    """Softly 1 inside one lung field, [n,n]."""
    x = side * self.u
    floor = self.base[side] + 0.9 * (x - 0.38) ** 2
    return _inside(np.minimum(np.minimum(self.wall() - x, x - 0.11), floor - self.v))

  def heart(self, factor):
    """Softly 1 inside the heart and the aortic arch; `factor` of the heart's usual size."""
    u, v, a, b = self._heart
    a, b = a * factor, b * (1 + (factor - 1) / 2)

    def ellipse(cu, cv, ra, rb):  # its long axis points down to the apex
      x, y = self.u - cu, self.v - cv
      along, across = 0.87 * x + 0.5 * y, 0.87 * y - 0.5 * x
      return (1 - np.hypot(along / ra, across / rb)) * min(ra, rb)
    return np.maximum(_inside(ellipse(u * (1 + (factor - 1) / 2), v, a, b), 0.02),
                      _inside(ellipse(0.10, -0.32, 0.09, 0.11), 0.02))

  def bones(self):
    """Ribs (behind: bright; before: faint), clavicles and spine: tissue on top of the rest, [n,n]."""
    total, wall = np.zeros(self.u.shape), self.wall() + 0.05
    for side in _SIDES:
      x = side * self.u
      across = np.clip(x / self.width, 0, 1.3)
      cage = _inside(wall - x) * _inside(x - 0.05)
      for k in range(10):
        middle = self._top + self._spacing * k - 0.12 * across + self._slope * across ** 2
        total += 0.12 * cage * _rib(self.v - middle, 0.036)
      for k in range(7):
        middle = self._top + 0.28 + self._spacing * k + self._slope * np.clip(1 - across, 0, 1) ** 1.5
        total += 0.04 * cage * _inside(x - 0.34, 0.04) * _rib(self.v - middle, 0.034)
      clavicle = self.v - (-0.70 - 0.16 * across + 0.08 * np.sin(4 * across))
      total += 0.12 * _inside(x - 0.06) * _inside(0.9 - x) * _rib(clavicle, 0.04)
    spine = _plateau(self.u / 0.085) * (1 + 0.12 * np.cos(2 * np.pi * self.v / 0.15))
    return total + 0.07 * spine

  def expose(self, air, vessels):
    """The image [n,n], about [0, 1], of air in [0, 1] and what vessels add."""
    shoulder = np.where(self.v < -0.55, 0.97 - 2.4 * np.clip(-0.55 - self.v, 0, 1) ** 1.5, 0.97)
    body = _inside(shoulder - np.abs(self.u), 0.02)
    soft = self._level + 0.06 * self._cloud.at(self.u, self.v) * 0.5
    soft = soft + 0.13 * np.exp(-(self.u / 0.2) ** 2) + 0.12 * _inside(self.v - 0.62, 0.08)
    tissue = soft + self.bones() - (soft - 0.14) * air + vessels
    tissue = tissue + 0.012 * self._mottle.at(self.u, self.v)
    image = 0.03 + body * np.clip(tissue, 0, 1.1)
    image = np.clip(self._gain * image, 0, 1) ** self._gamma
    if self._marker:
      mv, mu, side = self._marker
      u, v = self.frame
      block = (np.abs(v - mv) < 0.045) & (np.abs(side * u + mu) < 0.03)
      image = np.where(block, 0.95, image)
    return image


def _rib(distance, half):
  """A hollow band: brightest at its two borders."""
  distance = np.abs(distance) / half
  return _plateau(distance) * (0.65 + 0.35 * np.minimum(distance, 1) ** 2)


def _plateau(x):
  """exp(-x^4); NumPy's own fourth power takes ten times as long as two squares."""
  return np.exp(-np.square(np.square(x)))


def _vessels(rng, body, air):
  """Branches that leave each hilum and fade towards the ribs, only where there is air."""
  total = np.zeros(body.u.shape)
  for side in _SIDES:
    x, y = side * body.u - 0.13, body.v + 0.02
    far, turn = np.hypot(x, y), np.arctan2(y, x)
    for angle in rng.uniform(-1.35, 1.35, 16):
      bend, reach, width = rng.uniform(-0.5, 0.5), rng.uniform(0.25, 0.6), rng.uniform(0.012, 0.028)
      away = np.abs(turn - angle - bend * far) * far
      total += np.exp(-(away / width) ** 2) * np.exp(-(far / reach) ** 2)
    total += 1.2 * np.exp(-(far / 0.13) ** 2)
  return 0.13 * air * np.clip(total, 0, 1.6)


# ------------------------------------------------------------------------------------- findings
def _place(rng, body, air, margin):
  """(u, v) of a random point deep enough inside a lung."""
  side = rng.choice(_SIDES)
  v = rng.uniform(-0.5, 0.42)
  wall = body.width * (1 - np.clip((0.5 - v) / 1.36, 0, 1.2) ** 2.2)
  low = 0.2 if side < 0 or v < 0 else 0.42  # the heart lies on the other side
  high = max(wall - margin, low + 0.03)
  return side * rng.uniform(low, high), v


def _blob(rng, body, u, v, radius, softness):
  """A patch with a wavy border, softly 1 inside."""
  du, dv = body.u - u, (body.v - v) / rng.uniform(0.8, 1.3)
  turn, border = np.arctan2(dv, du), np.ones(body.u.shape)
  for k in range(2, 6):
    border += rng.normal(0, 0.22 / k) * np.cos(k * turn + rng.uniform(0, 2 * np.pi))
  return _inside(radius * border - np.hypot(du, dv), softness)


def _opacity(rng, body, air):
  """Consolidation: one to three cloudy patches, mottled by air that stays."""
  cloud, lost = _Field.draw(rng, 16), np.zeros(body.u.shape)
  for _ in range(rng.integers(1, 4)):
    patch = _blob(rng, body, *_place(rng, body, air, 0.1), rng.uniform(0.13, 0.26), rng.uniform(0.02, 0.05))
    lost = np.maximum(lost, patch * rng.uniform(0.55, 0.9))
  return np.clip(lost * (1 + 0.2 * cloud.at(body.u, body.v)), 0, 1)


def _nodule(rng, body, air):
  """One small round shadow."""
  u, v = _place(rng, body, air, 0.12)
  return rng.uniform(0.6, 0.85) * _blob(rng, body, u, v, rng.uniform(0.06, 0.1), 0.012)


def _effusion(rng, body, air):
  """Fluid at the bottom of one lung; its level rises towards the ribs."""
  side = rng.choice(_SIDES)
  level = rng.uniform(0.1, 0.36) - 0.22 * np.clip(side * body.u / body.width, 0, 1) ** 3
  return 0.95 * _inside(body.v - level, 0.025) * (side * body.u > 0)
