"""Preparation, splits and order of scans of the DAE reference: every case of the golden files.

Tolerances are those of the golden README: 1e-6 on intensities and soft labels (stored as float32),
1e-12 relative on the percentiles, exact on ids and labels.
"""

import json
import random

import numpy as np
import pytest

from data_pipelines.brains import files, normalise
from data_pipelines.brains.slices import Scan, shuffled
from tests.golden_cases import file_cases, golden_files

_RESULTS = {"seg", "p99", "slice_sum", "slice_ids", "healthy_slice_ids", "tumour_slice_ids", "x",
            "y_soft", "y"}
_ORDER = ("flair", "t1", "t1ce", "t2")


def _splits(key):
  """What every splits*.json says of `key`; a skip where none does."""
  found = [json.loads(f.read_text()) for f in golden_files("dae", "splits*.json")]
  if not any(key in f for f in found):
    pytest.skip(f"no {key} in splits*.json")
  return [f for f in found if key in f]


@pytest.mark.parametrize("file", file_cases("dae", "preprocessing*.npz"))
def test_preprocessing(file):
  with np.load(file) as golden:
    cases = sorted({key.rsplit("/", 1)[0] for key in golden.files})
    assert cases
    for case in cases:
      g = {key.rsplit("/", 1)[1]: golden[key] for key in golden.files
           if key.startswith(f"{case}/")}
      modalities = sorted(set(g) - _RESULTS, key=lambda m: (
          _ORDER.index(m) if m in _ORDER else len(_ORDER), m))
      got = normalise.prepare([g[m] for m in modalities], g["seg"], g["x"].shape[-2:])
      nchw = lambda a: a.transpose(0, 3, 1, 2)
      np.testing.assert_allclose(nchw(got.image), g["x"], atol=1e-6, rtol=0, err_msg=case)
      np.testing.assert_allclose(nchw(got.soft), g["y_soft"], atol=1e-6, rtol=0, err_msg=case)
      np.testing.assert_array_equal(nchw(got.mask), g["y"], err_msg=case)
      np.testing.assert_allclose(got.scale, g["p99"], rtol=1e-12, err_msg=case)
      np.testing.assert_allclose(got.slice_sum, g["slice_sum"], rtol=1e-12, atol=1e-12)
      np.testing.assert_array_equal(got.slices, g["slice_ids"])
      np.testing.assert_array_equal(got.slices[got.healthy], g["healthy_slice_ids"])
      np.testing.assert_array_equal(got.slices[~got.healthy], g["tumour_slice_ids"])


def test_published_lists():
  published = files.published_split()
  for golden in _splits("brats2021"):
    assert published == golden["brats2021"]
    assert {split: len(ids) for split, ids in published.items()} == golden["counts"]


def test_seeded_rule_gives_the_published_lists():
  for golden in _splits("brats2021"):
    lists = golden["brats2021"]
    assert files.split_by_rule([name for names in lists.values() for name in names]) == lists


def test_seeded_rule_on_small_sets():
  for example in [e for g in _splits("split_examples") for e in g["split_examples"]]:
    n = example["n"]
    names = [f"{i:06d}" for i in range(n)]
    got = files.split_by_rule(names)
    assert {k: [int(i) for i in v] for k, v in got.items()} == {
        k: example[k] for k in ("train", "val", "test")}, n


def test_order_of_scans():
  examples = [e for g in _splits("patient_order_examples") for e in g["patient_order_examples"]]
  assert examples
  for example in examples:
    scans = [Scan(f"{i:06d}", *([np.zeros(0)] * 4)) for i in range(example["n"])]
    random.Random(99).shuffle(scans)  # the order they are found in must not matter
    got = [int(s.patient) for s in shuffled(scans, example["seed"])]
    assert got == example["order"]


@pytest.mark.parametrize("spoil,match", [
    (lambda v: v[1].__setitem__(slice(None), 0), "all zero"),
    (lambda v: v[0].__setitem__((0, 0, 0), np.nan), "NaN"),
    (lambda v: v.__setitem__(2, v[2][:-1]), "shape")])
def test_what_the_reference_would_let_pass_is_an_error(spoil, match):
  rng = np.random.default_rng(0)
  scan = [rng.uniform(0, 9, (6, 5, 4)) for _ in range(3)]
  spoil(scan)
  with pytest.raises(normalise.BadScan, match=match):
    normalise.prepare(scan, None, (4, 4))
