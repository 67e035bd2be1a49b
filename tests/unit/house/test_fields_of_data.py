"""A new field of config.data says whether a trained run may be scored with another value of it."""

from collections import Counter

import pytest

from data_pipelines import dataset as datasets
from medae_jax.core.trained_on import changed

TABLES = {"PREPARATION": changed.PREPARATION, "SPLIT": changed.SPLIT, "HARMLESS": changed.HARMLESS}
FIELDS = {name: set(datasets.module(name).defaults()) for name in datasets.dataset_names()}


def test_a_field_is_in_one_table():
  assert all(len(set(t)) == len(t) for t in TABLES.values())
  twice = [f for f, n in Counter(f for t in TABLES.values() for f in t).items() if n > 1]
  assert not twice and set(changed.PLACES) <= set(changed.HARMLESS)


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_of_a_data_set_is_in_a_table(name):
  known = {f for t in TABLES.values() for f in t}
  assert not FIELDS[name] - known, (
      "say in medae_jax/core/trained_on/changed.py whether these change what the network is shown "
      "(PREPARATION), who is trained on and who is tested (SPLIT), or neither (HARMLESS)")


def test_no_table_names_a_field_that_is_gone():
  there = set().union(*FIELDS.values())
  assert {f for t in TABLES.values() for f in t} - there == {"folder"}  # of data sets outside the package
