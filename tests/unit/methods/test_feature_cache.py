"""What the feature cache takes for the same, and what it computes anew."""

import numpy as np
import pytest

from medae_jax.methods import _feature_cache
from medae_jax.methods._feature_cache import FeatureCache

USED = {"low": ["a/kernel"], "deep": ["a/kernel", "b/kernel"]}


def params(a=1.0, b=2.0):
  return {"a": {"kernel": np.full((2, 2), a, np.float32)}, "b": {"kernel": np.full((2, 2), b, np.float32)}}


@pytest.fixture
def ask(tmp_path):
  """(taps looked up) of the folder's cache -> (features, whether they were computed)."""
  def call(taps=("low", "deep"), weights=None, image=None, options="vgg16 299"):
    image, computed = np.ones((3, 4, 4, 1), np.float32) if image is None else image, []

    def compute():
      computed.append(True)
      return {tap: np.full((3, 2), i, np.float32) for i, tap in enumerate(taps)}
    cache = FeatureCache(str(tmp_path / "kept"), options, USED.__getitem__)
    return cache(weights or params(), image, taps, compute), bool(computed)
  return call


def test_the_same_images_are_computed_once(ask):
  first, computed = ask()
  again, computed_again = ask()
  assert computed and not computed_again
  for a, b, i in zip(first, again, (0, 1)):
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, np.full((3, 2), i))
  alone, computed = ask(taps=("deep",))  # another choice of layers
  np.testing.assert_array_equal(alone[0], first[1])
  assert not computed


@pytest.mark.parametrize("change", [
    {"image": np.zeros((3, 4, 4, 1), np.float32)}, {"options": "vgg16 224"}, {"weights": params(a=3.0)},
    {"weights": params(b=3.0)}, {"image": np.ones((3, 4, 2, 2), np.float32)}])
def test_whatever_decides_the_numbers_is_asked_for(ask, change):
  ask()
  assert ask(**change)[1]


def test_weights_beyond_a_layer_do_not_matter_to_it(ask):
  ask()
  assert not ask(taps=("low",), weights=params(b=3.0))[1]


def test_other_weights_in_the_same_run_are_other_features(tmp_path):
  """One cache is asked for two states: those before and after a change of the parameters."""
  cache, asked = FeatureCache(str(tmp_path), "", USED.__getitem__), []
  for weights in (params(), params(a=3.0), params()):
    cache(weights, np.ones((3, 4, 4, 1), np.float32), ("low",),
          lambda: (asked.append(1), {"low": np.ones((3, 2), np.float32)})[1])
  assert len(asked) == 2  # the third are the first


def test_a_folder_that_cannot_be_written_costs_no_result(tmp_path):
  (tmp_path / "file").write_text("")
  values = np.ones((3, 2), np.float32)
  cache = FeatureCache(str(tmp_path / "file" / "kept"), "", USED.__getitem__)
  for _ in range(2):
    found = cache(params(), np.ones((3, 4, 4, 1), np.float32), ("low", "deep"),
                  lambda: {"low": values, "deep": values})
    np.testing.assert_array_equal(found, [values, values])


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_damaged_file_is_computed_again(ask, tmp_path, content):
  want, _ = ask()
  for file in (tmp_path / "kept").rglob("*.npy"):
    file.write_bytes(file.read_bytes()[:-4] if content is None else content)
  found, computed = ask()
  assert computed and not ask()[1]
  np.testing.assert_array_equal(found, want)
  assert not list((tmp_path / "kept").rglob("*.tmp"))


def test_a_full_disk_is_said_once_and_not_tried_again(tmp_path, monkeypatch, caplog):
  tried = []
  def full(path, value):
    tried.append(path)
    raise OSError("no space")
  monkeypatch.setattr(_feature_cache, "_write", full)
  cache = FeatureCache(str(tmp_path), "", USED.__getitem__)
  for number in range(3):
    cache(params(), np.full((3, 4, 4, 1), number, np.float32), ("low",), lambda: {"low": np.ones((3, 2))})
  assert len(tried) == 1 == caplog.text.count("keeps no more features: no space")
