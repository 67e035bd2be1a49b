"""Synthetic skull-stripped brains: anatomy, four MR contrasts, tumours. Not real patients.

Everything is defined in continuous coordinates (u left-right, v front-back, t down-up; the brain
spans about [-1, 1]), so that one patient looks the same at any resolution and is coherent from
slice to slice. Shapes come from signed distances and smooth random fields; grey matter follows the
folded surface; each patient has its own head shape, ventricles, folds, contrasts, bias field,
noise. Healthy structures that are bright on FLAIR (periventricular caps, patches of cortex, the
bias field) overlap tumours in intensity: a threshold is far from perfect.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

MODALITIES = ("flair", "t1", "t1ce", "t2")
# Signal of: CSF, grey matter, white matter, deep nuclei, oedema, tumour core, necrosis, rim.
_SIGNAL = {
    "flair": (0.12, 0.76, 0.54, 0.70, 1.00, 0.88, 0.50, 0.86),
    "t1": (0.20, 0.62, 0.88, 0.70, 0.52, 0.42, 0.32, 0.50),
    "t1ce": (0.20, 0.62, 0.86, 0.70, 0.52, 0.48, 0.32, 1.25),
    "t2": (1.10, 0.68, 0.48, 0.58, 1.02, 0.94, 1.10, 0.84),
}
_CSF, _GREY, _WHITE, _NUCLEI, _OEDEMA, _CORE, _NECROSIS, _RIM = range(8)
LABELS = {"necrosis": 1, "oedema": 2, "enhancing": 4}  # the values of BraTS
_WHOLE = (slice(None),) * 3


def brain(rng: np.random.Generator, shape, modalities=MODALITIES, lesions: bool = True):
  """One synthetic patient.

  Args:
    rng: source of every random choice; the choices do not depend on `shape`, but for voxel noise.
    shape: (H, W, Z) voxels.
    modalities: names out of MODALITIES.
    lesions: False = a patient without tumour.

  Returns:
    volumes {modality: float32 [H,W,Z], 0 outside the brain, about 1 at its brightest},
    seg uint8 [H,W,Z] with the values of LABELS.
  """
  lesion_rng, anatomy_rng, noise_rng = rng.spawn(3)
  tumour = _Tumour(lesion_rng, shape) if lesions else None
  u, v, t = tumour.push(*_grid(shape)) if tumour else _grid(shape)
  tissue, inside, places = _anatomy(anatomy_rng, u, v, t, shape)
  confounders = _confounders(anatomy_rng, shape, tissue, *places)
  seg = np.zeros(shape, np.uint8)
  if tumour:
    tissue, seg = _insert(tissue, tumour.parts(u, v, t, tissue), inside)
  volumes = {}
  contrast = _contrast(anatomy_rng, lesion_rng)
  for name in MODALITIES:  # all of them, so that a subset of modalities draws the same numbers
    gain, jitter = anatomy_rng.uniform(0.8, 1.25), anatomy_rng.uniform(0.12, 0.25)
    jitter *= 1.4 if name == "flair" else 1.0  # the coil nearest to the skull
    bias = _field(anatomy_rng, (5, 5, 5), shape) * jitter
    level = noise_rng.uniform(0.018, 0.035)
    noise = noise_rng.standard_normal(shape, dtype=np.float32) * level
    if name not in modalities:
      continue
    image = sum(np.float32(signal) * part for signal, part in zip(contrast[name], tissue))
    for mode, amount in confounders.get(name, ()):
      image += amount * mode
    image = ndimage.gaussian_filter1d(ndimage.gaussian_filter1d(image, 0.5, 0), 0.5, 1)
    image = image * np.exp(bias) + noise
    volumes[name] = np.where(inside, np.maximum(image, 0.02) * gain, 0).astype(np.float32)
  return volumes, seg


def outline(rng: np.random.Generator, shape, lesions: bool = True):
  """What `brain` of the same arguments will hold, a fraction of its cost: no contrasts are drawn.

  Everything here is a function of a voxel's place alone, so that a part of the volume has the numbers
  that it has in the whole.

  Returns:
    inside: slice number z -> bool [H,W], where that slice is brain;
    seg: as that of `brain`.
  """
  lesion_rng, anatomy_rng, _ = rng.spawn(3)
  tumour = _Tumour(lesion_rng, shape) if lesions else None
  where = tumour.push(*_grid(shape)) if tumour else _grid(shape)
  began = anatomy_rng.bit_generator.state

  def again():  # the numbers of the anatomy, from their begin
    anatomy_rng.bit_generator.state = began
    return anatomy_rng

  def inside(z):
    box = (slice(None), slice(None), slice(z, z + 1))
    u, v, t = _part(where, box)
    return (_head(again(), u, v, t, shape, box)[-1] > 0)[..., 0]

  seg = np.zeros(shape, np.uint8)
  box = tumour.box(*where) if tumour else None
  if box is not None:
    u, v, t = _part(where, box)
    tissue, head, _ = _anatomy(again(), u, v, t, shape, box)
    seg[box] = _insert(tissue, tumour.parts(u, v, t, tissue, box), head)[1]
  return inside, seg


def _part(coordinates, box):
  """Of arrays that broadcast against each other, the part in a box of slices."""
  return tuple(c[tuple(b if n > 1 else slice(None) for b, n in zip(box, c.shape))] for c in coordinates)


def _grid(shape):
  """Coordinates [H,1,1], [1,W,1], [1,1,Z]; slices reach from the midbrain to near the vertex."""
  h, w, z = shape
  side = max(h, w)  # equal voxel size in plane
  u = ((np.arange(h) + 0.5) - h / 2) / (side / 2) / 0.88
  v = ((np.arange(w) + 0.5) - w / 2) / (side / 2) / 0.88
  t = np.linspace(-0.45, 0.92, z) if z > 1 else np.array([0.15])
  return tuple(np.ix_(*(a.astype(np.float32) for a in (u, v, t))))


def _field(rng, nodes, shape, box=_WHOLE):
  """Smooth random field of unit size: cubic B-spline, random coefficients on `nodes`; its part in `box`."""
  value = rng.standard_normal(nodes, dtype=np.float32)
  for axis in (2, 1, 0):  # the largest arrays are gathered along rows that lie together
    n, size = nodes[axis], shape[axis]
    x = np.linspace(0, n - 3, size) if size > 1 else np.array([(n - 3) / 2])  # spans of the spline
    low = np.minimum(x.astype(int), n - 4)
    f = (x - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    weights = ((1 - f)**3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3)
    here = [box[axis] if a == axis else slice(None) for a in range(3)]
    # Four taps rather than a matrix product: BLAS threads only get in each other's way here.
    value = sum(value.take(low[box[axis]] + k, axis) * (w / 6)[tuple(here)] for k, w in enumerate(weights))
  return value / 0.35  # the standard deviation of such a spline is about 0.35 in three dimensions


def _step(distance, width):
  """Smooth 0..1 step of a signed distance, `width` wide (partial volume)."""
  return (np.clip(distance / width, -1, 1) + 1) / 2


def _head(rng, u, v, t, shape, box=_WHOLE):
  """Coordinates (x, y, z) in the patient's own head, and the distance to its surface: > 0 is brain."""
  warp = [0.045 * _field(rng, (6, 6, 6), shape, box) for _ in range(3)]
  a, b, c = rng.uniform(0.70, 0.80), rng.uniform(0.88, 0.98), rng.uniform(0.92, 1.02)
  x = u * (1 + 0.06 * v * rng.uniform(0, 1)) + warp[0]  # heads are wider at the back
  y, z = v + warp[1], t + 0.5 * warp[2]
  radius = np.sqrt((x / a)**2 + (y / b)**2 + (np.maximum(z, 0) / c)**2 + 1e-6)
  return x, y, z, (1 - radius) * 0.8  # about


def _anatomy(rng, u, v, t, shape, box=_WHOLE):
  """Fractions of tissue [8,H,W,Z], brain mask, and where things lie, for `_confounders`.

  Args:
    u, v, t: of the voxels in `box`, the part of `shape` that is asked for.
  """
  x, y, z, depth = _head(rng, u, v, t, shape, box)
  side, inside = np.abs(x), depth > 0

  # Folds: the zero surfaces of a band-limited field, open to the surface, are the sulci.
  n = int(rng.integers(19, 25))
  folds = np.abs(_field(rng, (n, n + 3, n), shape, box)) * (1.6 / n)
  sulci = np.where(folds < 0.9, folds, 0.9) + np.maximum(depth - rng.uniform(0.16, 0.26), 0) * 1.5
  callosum = ((y + 0.02) / 0.46)**2 + ((z - 0.10) / 0.22)**2
  fissure = side + np.maximum(0.0, 0.07 * (1.25 - callosum))
  surface = np.minimum(np.minimum(depth, sulci), fissure)
  atrophy, cortex = rng.uniform(0.006, 0.022), rng.uniform(0.045, 0.062)
  csf = 1 - _step(surface - atrophy, 0.016)
  white = _step(surface - atrophy - cortex, 0.03)

  # Lateral ventricles: two curved bands, horns turned outwards; third ventricle on the midline.
  width, reach = rng.uniform(0.035, 0.085), rng.uniform(0.36, 0.46)
  skew = 1 + 0.25 * rng.uniform(-1, 1) * np.sign(x)
  centre = 0.085 + 0.42 * (y - 0.02)**2 + 0.10 * np.maximum(y, 0)
  along = (y - 0.03) / reach
  height = np.maximum(1 - ((z - 0.08) / 0.27)**2, 0)
  ventricle = width * skew * np.sqrt(np.maximum(1 - along**2, 0)) * np.sqrt(height) * (
      0.75 + 0.5 * along**2)
  lateral = ventricle - np.abs(side - centre) - 0.02 * (ventricle <= 0)
  third = 0.5 * width * np.maximum(1 - ((z + 0.18) / 0.2)**2, 0) * (np.abs(y - 0.05) < 0.16) - side
  chambers = np.maximum(lateral, third - 0.01 * (third <= 0))
  fluid = np.maximum(csf, _step(chambers, 0.016))

  def ellipsoid(cu, cv, ct, ru, rv, rt):
    return 1 - np.sqrt(((side - cu) / ru)**2 + ((y - cv) / rv)**2 + ((z - ct) / rt)**2)
  grow = rng.uniform(0.9, 1.1)
  nuclei = np.maximum.reduce([
      ellipsoid(0.16, -0.20, 0.08, 0.055 * grow, 0.13, 0.16),  # caudate
      ellipsoid(0.30, -0.06, -0.02, 0.075 * grow, 0.20, 0.17),  # putamen
      ellipsoid(0.13, 0.13, -0.04, 0.095 * grow, 0.14, 0.14)])  # thalamus
  nuclei = _step(nuclei, 0.25) * (1 - fluid)

  tissue = np.zeros((8, *inside.shape), np.float32)
  tissue[_CSF] = fluid
  tissue[_NUCLEI] = nuclei
  tissue[_WHITE] = white * (1 - fluid) * (1 - nuclei)
  tissue[_GREY] = np.maximum(1 - tissue[:_OEDEMA].sum(0), 0)
  return tissue, inside, (lateral, along, height, surface, depth)


def _confounders(rng, shape, tissue, lateral, along, height, surface, depth):
  """{modality: [(pattern, amount)]}: bright but healthy, in different places in each patient."""
  solid = 1 - tissue[_CSF]
  near = _step(1.12 - np.abs(along), 0.1) * _step(height - 0.05, 0.1) * solid
  caps = np.exp(-np.maximum(-lateral, 0) / 0.03) * np.clip(np.abs(along) * 1.6 - 0.7, 0, 1) * near
  rim = np.exp(-np.maximum(-lateral, 0) / 0.02) * near
  patches = np.clip(_field(rng, (7, 7, 6), shape) - 0.7, 0, 1.2) * tissue[_GREY]
  texture = 0.05 * _field(rng, (9, 9, 8), shape) * tissue[_WHITE]
  vessels = np.clip(np.abs(_field(rng, (26, 26, 22), shape)) - 1.9, 0, 0.8) * (surface < 0.05)
  dura = np.exp(-np.maximum(depth, 0) / 0.02) * np.clip(_field(rng, (9, 9, 7), shape), 0, 1)
  plexus = (lateral > 0.012) * np.clip(_field(rng, (20, 20, 16), shape) - 0.9, 0, 1)
  strength = rng.uniform(0.3, 0.8)
  return {
      "flair": ((caps, strength), (rim, rng.uniform(0.05, 0.25)),
                (patches, rng.uniform(0.2, 0.5)), (texture, 1.0)),
      "t1": ((texture, -0.6), (caps, -0.15 * strength)),
      "t1ce": ((texture, -0.6), (vessels, 0.9), (dura, 0.35), (plexus, 0.8)),
      "t2": ((texture, 0.7), (caps, 0.3 * strength), (patches, 0.08)),
  }


def _contrast(rng, lesion_rng):
  """{modality: signal of the 8 tissues} of one patient; lesions differ more than anatomy."""
  contrast = {}
  for name in MODALITIES:
    signal = np.array(_SIGNAL[name])
    signal[:_OEDEMA] *= rng.uniform(0.93, 1.07, 4)
    normal = signal[_WHITE] * 0.6 + signal[_GREY] * 0.4
    visible = lesion_rng.uniform(0.55, 1.05)
    signal[_OEDEMA:] = normal + visible * (signal[_OEDEMA:] - normal)
    contrast[name] = signal
  return contrast


class _Tumour:
  """One tumour (oedema around a core with an enhancing rim) and a few small lesions."""

  def __init__(self, rng, shape):
    side = rng.choice([-1.0, 1.0])
    self.centre = (side * rng.uniform(0.22, 0.48), rng.uniform(-0.5, 0.5), rng.uniform(-0.15, 0.6))
    self.core = rng.uniform(0.08, 0.22)
    self.oedema = self.core + rng.uniform(0.08, 0.24)
    self.enhancing = rng.random() < 0.7
    small = int(rng.integers(0, 4))
    self.mass = rng.uniform(0.0, 0.22)
    self.rough, self.fine = _field(rng, (8, 8, 8), shape), _field(rng, (14, 14, 12), shape)
    # Centre and size of small round lesions.
    self.small = [tuple(rng.uniform(*ends) for ends in ((-0.5, 0.5), (-0.6, 0.6), (-0.2, 0.7), (0.03, 0.065)))
                  for _ in range(small)]

  def _radius(self, u, v, t):
    cu, cv, ct = self.centre
    return np.sqrt((u - cu)**2 + (v - cv)**2 + (1.1 * (t - ct))**2)

  def push(self, u, v, t):
    """Coordinates of the anatomy before the tumour pushed it aside (mass effect)."""
    r = self._radius(u, v, t)
    pull = self.mass * np.exp(-(r / (1.6 * self.oedema))**2)
    cu, cv, ct = self.centre
    return u - (u - cu) * pull, v - (v - cv) * pull, t - (t - ct) * pull

  def _edges(self, u, v, t, rough, fine):
    """Signed distances inwards, in any tissue: of the oedema, of the core, of every small lesion."""
    r = self._radius(u, v, t)
    yield self.oedema * (1 + 0.28 * rough + 0.12 * fine), r
    yield self.core * (1 + 0.2 * rough), r
    for cu, cv, ct, size in self.small:
      yield size * (1 + 0.2 * fine), np.sqrt((u - cu)**2 + (v - cv)**2 + (t - ct)**2)

  def box(self, u, v, t):
    """The part of the volume (a slice an axis) outside of which no lesion is; None = there is none."""
    there = np.zeros(self.rough.shape, bool)
    for reach, r in self._edges(u, v, t, self.rough, self.fine):
      there |= reach > r
    ends = [np.flatnonzero(there.any(tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(int(e[0]), int(e[-1]) + 1) for e in ends) if ends[0].size else None

  def parts(self, u, v, t, tissue, box=_WHOLE):
    """Fractions in [0,1] of (oedema, core, necrosis, rim), each [H,W,Z]; later ones on top."""
    (reach, r), (core_edge, _), *small = self._edges(u, v, t, self.rough[box], self.fine[box])
    # Oedema follows white matter and stops at cortex and fluid.
    oedema = _step(reach - 0.10 * (1 - tissue[_WHITE]) - r, 0.05)
    core = _step(core_edge - r, 0.03)
    zero = np.zeros_like(core)
    necrosis = _step(core_edge - r - 0.045, 0.03) if self.enhancing else zero
    rim = core * (1 - necrosis) if self.enhancing else zero
    for size, d in small:  # in the white matter, oedema-like
      oedema = np.maximum(oedema, _step(size - d, 0.02) * tissue[_WHITE])
    fluid = tissue[_CSF]
    return oedema * (1 - fluid), core * (1 - 0.7 * fluid), necrosis, rim * (1 - 0.7 * fluid)


def _insert(tissue, parts, inside):
  """Puts the lesion parts over the tissue; returns tissue [8,H,W,Z] and labels uint8 [H,W,Z]."""
  seg = np.zeros(inside.shape, np.uint8)
  labels = (LABELS["oedema"], LABELS["necrosis"], LABELS["necrosis"], LABELS["enhancing"])
  for kind, part, label in zip((_OEDEMA, _CORE, _NECROSIS, _RIM), parts, labels):
    tissue *= 1 - part
    tissue[kind] += part
    seg[(part > 0.5) & inside] = label
  return tissue, seg
