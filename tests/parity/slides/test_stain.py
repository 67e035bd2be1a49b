"""Stain normalisation against golden/stain_normalization, with the tolerances of its README."""

import os

import numpy as np
import pytest

from data_pipelines.formats import arrays
from data_pipelines.slides import stain, stain_matrix
from tests.golden_cases import file_cases


def _images():
  """(arrays of a file, prefix of an image in it): the target and every source."""
  cases = []
  for param in file_cases("stain_normalization", "stain*.npz"):
    file = param.values[0]
    names = arrays.names_of(file) if file else []
    prefixes = sorted({n.split("/")[0] for n in names if n.endswith("/image")})
    cases += [pytest.param((file, p), marks=param.marks, id=f"{param.id}-{p}") for p in ["target", *prefixes]]
  return cases


def _sources():
  return [c for c in _images() if not str(c.id).endswith("-target")]


class Case:
  """An image and what the reference makes of it."""

  def __init__(self, file, name):
    self.all, self.name = arrays.read_some(file, arrays.names_of(file)), name
    self.image = self.all["target" if name == "target" else f"{name}/image"]
    self.standardized = self.get("standardized", "standardized_target")
    bits = self.get("notwhite_mask", "target_notwhite_mask")
    shape = self.image.shape[:2]
    self.mask = np.unpackbits(bits)[:shape[0] * shape[1]].reshape(shape).astype(bool)

  def get(self, key, of_target=""):
    return self.all[of_target if self.name == "target" else f"{self.name}/{key}"]


@pytest.fixture(params=_images())
def case(request):
  return Case(*request.param)


@pytest.fixture(params=_sources())
def source(request):
  return Case(*request.param)


def test_brightness_is_exact(case):
  np.testing.assert_array_equal(stain.standardize(case.image), case.standardized)


def test_tissue_pixels_are_those_of_8_bit_lab(case):
  found = stain.tissue_pixels(case.standardized)
  assert (found != case.mask).mean() <= 0.005
  np.testing.assert_array_equal(found, case.mask)  # OpenCV's arithmetic is kept: no pixel differs


def test_stain_matrix_is_the_converged_one_and_no_worse(case):
  density = stain.optical_density(case.standardized[case.mask]).T
  wanted = case.get("stain_converged", "stain_target_converged")
  found = stain_matrix.ordered(stain_matrix.learn(density), parity=True)
  np.testing.assert_allclose(found, wanted, atol=1e-4)
  assert stain_matrix.objective(density, found) <= (
      case.get("objective_converged", "objective_target_converged") + 1e-7)
  for run in case.get("stain_original_runs", "stain_target_original_runs"):
    np.testing.assert_allclose(found, run, atol=0.01)
  np.testing.assert_allclose(stain.find_stains(case.image, parity=True).matrix, found, atol=1e-8)


def test_the_order_of_the_stains_is_that_of_neither_search(case):
  """Whichever atom comes first; that both rules agree is true of the images in this repository."""
  atoms = stain.find_stains(case.image, parity=True).matrix
  for parity in (True, False):
    one, other = (stain_matrix.ordered(given, parity) for given in (atoms, atoms[::-1]))
    np.testing.assert_array_equal(one, other)
    if parity or not os.environ.get("MEDAE_GOLDEN"):
      np.testing.assert_array_equal(one, atoms)


def test_concentrations_and_haematoxylin(source):
  stains = stain.Stains(source.get("stain_converged"))
  found = stain.concentrations(source.standardized, stains)
  np.testing.assert_allclose(found.reshape(-1, 2), source.get("concentrations"), atol=1e-5)
  np.testing.assert_allclose(stain.haematoxylin(source.image, parity=True),
                             source.get("hematoxylin_converged"), atol=1e-5)


def test_normalized_image(source):
  target = stain.Stains(source.all["stain_target_converged"])
  found = stain.normalize(source.image, target, parity=True).astype(int)
  distance = np.abs(found - source.get("normalized"))
  assert distance.max() <= 1 and (distance == 0).mean() > 0.99
  original = np.abs(found - source.get("normalized_original_run"))
  assert original.max() <= 3 and original.mean() < 0.6
  amounts = stain.concentrations(source.standardized, stain.Stains(source.get("stain_converged")))
  np.testing.assert_allclose(stain.recolour(amounts, target).astype(int), found, atol=1)


@pytest.mark.parametrize("file", file_cases("stain_normalization", "stain*.npz"))
def test_optical_density_takes_zeros_as_ones(file):
  vectors = arrays.read_some(file, arrays.names_of(file))
  np.testing.assert_allclose(stain.optical_density(vectors["od/in"]), vectors["od/out"], atol=1e-12)
