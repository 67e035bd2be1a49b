"""A small folder of synthetic brain volumes, written once and copied for every test."""

import pathlib
import shutil

import pytest

from data_pipelines.datasets import synthetic
from tests.brain_folders import SHAPE


@pytest.fixture(name="master", scope="session")
def master_fixture(tmp_path_factory):
  folder = tmp_path_factory.mktemp("master")
  synthetic.write_nifti(folder, 6, shape=SHAPE, splits=(3, 1, 2))
  return folder


@pytest.fixture(name="source")
def source_fixture(master, tmp_path):
  return pathlib.Path(shutil.copytree(master, tmp_path / "scans"))
