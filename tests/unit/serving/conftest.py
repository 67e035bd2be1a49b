"""An evaluated run behind the application, once for all tests here."""

import pytest

from medae_jax import evaluate, serve
from tests.unit import fake_run


@pytest.fixture(scope="session")
def served_run(tmp_path_factory):
  """Workdir of a run whose maps are known."""
  folder = fake_run.make(tmp_path_factory.mktemp("served"))
  evaluate.evaluate(folder)
  return folder


@pytest.fixture(scope="session")
def drop_folder(tmp_path_factory):
  """Where the application makes its temporary folders: empty whenever nothing is at work."""
  return tmp_path_factory.mktemp("drops")


@pytest.fixture(scope="session")
def app(served_run, drop_folder):
  """The application of the run, bodies of at most 1 MiB."""
  return serve.make_app(served_run, max_mb=1, parent=drop_folder)
