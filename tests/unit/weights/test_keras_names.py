"""InceptionResNetV2 of keras.applications: its layers under the published PyTorch names."""

import json

import h5py
import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.weights import inception_resnet_v2
from medae_jax.weights.known import arrays
from tests.golden_cases import golden_files

STATISTICS = (("beta", "bias"), ("moving_mean", "running_mean"), ("moving_variance", "running_var"))


def keras_file(path, tensors, units, first=1):
  """Tiny arrays under Keras's names, numbered from `first` in the order of `units`; no suffix for 0."""
  number = lambda word, i: f"{word}_{first + i}" if first + i else word
  layers = {}
  for i, name in enumerate(units):
    layers[number("conv2d", i)], layers[number("batch_normalization", i)] = name, name
  layers |= {"conv_7b": "conv2d_7b", "conv_7b_bn": "conv2d_7b"}
  with h5py.File(path, "w") as file:
    for layer, name in layers.items():
      if "conv" in layer.partition("_bn")[0] and not layer.endswith("_bn") and "batch" not in layer:
        file[f"{layer}/{layer}/kernel:0"] = tensors[f"{name}.conv.weight"].transpose(2, 3, 1, 0)
      else:
        for theirs, ours in STATISTICS:
          file[f"{layer}/{layer}/{theirs}:0"] = tensors[f"{name}.bn.{ours}"]
        if (tensors[f"{name}.bn.weight"] != 1).any():  # keras.applications has none, other savers do
          file[f"{layer}/{layer}/gamma:0"] = tensors[f"{name}.bn.weight"]
    for name in {n.rpartition(".")[0] for n in tensors if ".conv2d." in n}:
      stack, _, i = name.removesuffix(".conv2d").partition(".")
      kind = {"repeat": 35, "repeat_1": 17, "repeat_2": 8, "block8": 8}[stack]
      layer = f"block{kind}_{int(i) + 1 if i else 10}_conv"
      file[f"{layer}/{layer}/kernel:0"] = tensors[f"{name}.weight"].transpose(2, 3, 1, 0)
      file[f"{layer}/{layer}/bias:0"] = tensors[f"{name}.bias"]


@pytest.mark.parametrize("first", [0, 1, 95])
def test_keras_layers_are_the_published_tensors(tmp_path, first):
  """Names and order are those of the golden manifest: 203 units in order of creation, the rest by name."""
  manifest = json.loads(golden_files("deep_if", "inception_resnet_v2*manifest.json")[0].read_text())
  names = [p["name"] for p in manifest["parameters"] if not p["name"].endswith("num_batches_tracked")]
  rng = np.random.default_rng(0)
  tensors = {n: rng.normal(size=(2, 3, 1, 4) if n.endswith(".weight") and ".bn." not in n else 2).astype("f4")
             for n in names if not n.startswith("last_linear")}
  tensors = {n: np.ones(2, "f4") if n.endswith(".bn.weight") else v for n, v in tensors.items()}
  tensors["conv2d_1a.bn.weight"] = np.array([2, 3], "f4")
  units = [n.removesuffix(".conv.weight") for n in tensors if n.endswith(".conv.weight")][:-1]
  keras_file(tmp_path / "a.h5", tensors, units, first)
  found = inception_resnet_v2.from_keras(arrays.load(tmp_path / "a.h5"))
  assert set(found) == set(tensors)
  for name, value in tensors.items():
    np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_another_network_of_keras_is_refused():
  with pytest.raises(UserError, match="1 convolutions and 0 normalisations .* has 203"):
    inception_resnet_v2.from_keras({"conv2d_1/conv2d_1/kernel:0": np.ones((1, 1, 1, 1))})


def test_a_norm_that_is_missing_is_counted(monkeypatch):
  monkeypatch.setattr(inception_resnet_v2, "units", lambda: ["conv2d_1a"])
  with pytest.raises(UserError, match="1 convolutions and 0 normalisations with numbers; .* has 1 of each"):
    inception_resnet_v2.from_keras({"conv2d_1/conv2d_1/kernel:0": np.ones((1, 1, 1, 1))})
