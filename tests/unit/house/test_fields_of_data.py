"""A new field of config.data says whether a trained run may be scored with another value of it."""

from collections import Counter

import pytest

from data_pipelines import dataset as datasets
from data_pipelines.errors import UserError
from medae_jax.core.trained_on import changed

TABLES = {"PREPARATION": changed.PREPARATION, "SPLIT": changed.SPLIT, "HARMLESS": changed.HARMLESS}
FIELDS = {name: set(datasets.module(name).defaults()) for name in datasets.dataset_names()}
FREE = {  # any text
    *("dir", "clean_dir", "annotated_dir", "mask_dir", "masks_dir", "tissue_dir", "prepared_dir", "tfds_dir"),
    *("root", "lists_root", "image_root", "table", "split_table", "manifest", "mean_image"),
    *("group_pattern", "modalities", "val_kind", "projections")}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_of_words_takes_its_words_alone(name):
  """A misspelt one was else another choice without a word."""
  module = datasets.module(name)
  for field, default in module.defaults().items():
    words = isinstance(default, str) or (isinstance(default, tuple) and isinstance((*default, 0)[0], str))
    if words and field not in FREE and field != "name":
      assert module.resolve({field: default})[field] == default
      with pytest.raises(UserError, match=f"config.data.{field}='?.?.?nosuchword"):
        module.resolve({field: "nosuchword" if isinstance(default, str) else ("nosuchword",)})


@pytest.mark.parametrize("name", FIELDS)
def test_a_side_has_a_pixel_or_more(name):
  """Of a pair each of both. A crop of 0 pixels was accepted, and nothing was left of the images."""
  module = datasets.module(name)
  for field, default in module.defaults().items():
    if field in ("image_size", "crop_size", "frame_size"):
      wrong = [0, -1] if isinstance(default, int) else [(0, 8), (8, 0)]
      for value in wrong:
        with pytest.raises(UserError, match=f"config.data.{field}="):
          module.resolve({field: value})


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


@pytest.mark.parametrize("name", FIELDS)
def test_a_data_set_is_called_what_its_fields_say(name):
  """A config that takes the defaults of one module opens that module."""
  assert datasets.module(name).defaults()["name"] == name
  with pytest.raises(UserError, match="config.data.wrong"):
    datasets.module(name).resolve({"wrong": 1})
