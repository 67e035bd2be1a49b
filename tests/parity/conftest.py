"""Fixtures of the comparisons with golden vectors."""

import jax
import pytest


@pytest.fixture
def float64():
  """The test runs with 64 bits."""
  with jax.enable_x64(True):
    yield
