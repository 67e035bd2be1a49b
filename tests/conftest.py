"""Test-wide settings: CPU, a compilation cache shared by the tests, quiet TensorFlow."""

import os
import pathlib
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR",
                      str(pathlib.Path(tempfile.gettempdir()) / "medae_jax_test_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import jax  # pylint: disable=wrong-import-position
import pytest  # pylint: disable=wrong-import-position

from tests import golden_cases  # pylint: disable=wrong-import-position


def pytest_configure(config):
  golden_cases.check_environment()
  config.addinivalue_line("markers", "slow: takes longer than about 20 s; CI runs them too")


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
  """Compiled programs of one file are no use to the next; kept, they fill the memory."""
  yield
  jax.clear_caches()


@pytest.fixture(params=["cpu", "gpu"])
def backend(request, monkeypatch):
  """What the package takes the backend for, choosing between forms; all of them run here."""
  monkeypatch.setattr(jax, "default_backend", lambda: request.param)
