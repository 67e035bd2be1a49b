"""Fixtures of the comparisons with golden vectors."""

import jax
import pytest

from tests.parity import double

double.large_convolutions_as_products()


@pytest.fixture
def float64():
  """The test runs with 64 bits, large convolutions as products."""
  with jax.enable_x64(True):
    yield
