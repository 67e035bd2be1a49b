"""VGG19 weights and statistics: what is read, what is refused, what is computed."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.losses.trunk import Trunk, measure_stats, moments_to_stats, network_input
from medae_jax.models import vgg
from medae_jax.weights import vgg as vgg_weights
from tests.unit.weights import torch_files

WIDTHS = (2, 3, 4, 4, 4)


def torch_names(params):
  """A narrow trunk under torchvision's names, OIHW."""
  tensors = {}
  for (b, i), n in zip(vgg.CONVS, vgg_weights.TORCH_INDEX):
    if f"conv{b}_{i}" in params:
      tensors[f"features.{n}.weight"] = params[f"conv{b}_{i}"]["kernel"].transpose(3, 2, 0, 1)
      tensors[f"features.{n}.bias"] = params[f"conv{b}_{i}"]["bias"]
  return tensors


def test_depth_is_that_of_the_deepest_layer():
  assert vgg.depth([]) == 0
  assert vgg.depth(["c11"]) == 1 and vgg.depth(["p1"]) == 2
  assert vgg.depth(["r12", "r42"]) == 10 and vgg.depth(["p5"]) == 16
  assert len(vgg.random_params(0, WIDTHS, ["r32"])) == 6
  published = sum(int(np.prod(s)) for s in _shapes(["r42"]))
  assert published == 5_865_536  # the count of the published weights up to relu4_2


def _shapes(layers):
  channels, shapes = 3, []
  for b, _ in vgg.CONVS[:vgg.depth(layers)]:
    shapes += [(3, 3, channels, vgg.WIDTHS[b - 1]), (vgg.WIDTHS[b - 1],)]
    channels = vgg.WIDTHS[b - 1]
  return shapes


def test_a_published_style_file_is_read_without_unpickling(tmp_path):
  """A torch file with a classifier: only the trunk up to the layer asked for is taken."""
  params = vgg.random_params(1, WIDTHS)
  tensors = {**torch_names(params), "classifier.0.weight": np.ones((2, 3), np.float32)}
  path = tmp_path / "vgg.pth"
  torch_files.write_zip(path, tensors)
  found = vgg_weights.load(str(path), ["r32"])
  assert sorted(found) == sorted(params)[:6]
  for name, conv in found.items():
    np.testing.assert_array_equal(conv["kernel"], params[name]["kernel"])
    np.testing.assert_array_equal(conv["bias"], params[name]["bias"])


def test_saved_trunk_is_read_back_and_named_by_its_checksum(tmp_path):
  params = vgg.random_params(2, WIDTHS, ["r22"])
  first = vgg_weights.save(tmp_path / "a.npz", params, "narrow")
  assert first == vgg_weights.save(tmp_path / "b.npz", params, "elsewhere")
  jax.tree.map(np.testing.assert_array_equal, vgg_weights.load(str(tmp_path / "a.npz"), ["r22"]), params)
  params["conv1_1"]["bias"][0] += 1
  assert vgg_weights.save(tmp_path / "c.npz", params) != first


def test_no_weights_is_an_error_that_names_the_file_to_get(tmp_path):
  with pytest.raises(ValueError, match="vgg19-dcbb9e9d.pth.*random:0"):
    vgg_weights.load("", ["r32"])
  with pytest.raises(FileNotFoundError, match="no such file; get vgg19-dcbb9e9d.pth"):
    vgg_weights.load(str(tmp_path / "nothing.pth"), ["r32"])
  with pytest.raises(ValueError, match="random:SEED"):
    vgg_weights.load("random:x", ["r32"])


def test_wrong_files_are_refused(tmp_path):
  params = vgg.random_params(0, WIDTHS)
  tensors = torch_names(params)
  with pytest.raises(ValueError, match="features.5.weight"):
    vgg_weights.from_torchvision({k: v for k, v in tensors.items() if "features.5." not in k})
  with pytest.raises(ValueError, match="conv1_2 of VGG19 needs"):
    vgg_weights.from_torchvision({**tensors, "features.2.weight": np.zeros((2, 7, 3, 3), np.float32)})
  broken = tmp_path / vgg_weights.PUBLISHED_FILE
  torch_files.write_zip(broken, tensors)
  digest = hashlib.sha256(broken.read_bytes()).hexdigest()[:8]
  with pytest.raises(ValueError, match=f"starts with {digest}.*download it again"):
    vgg_weights.load(str(broken), ["r12"])
  with pytest.raises(ValueError, match="'r99' is not a VGG19 layer"):
    vgg_weights.load("random:0", ["r99"])


def test_no_gradient_reaches_the_weights_but_the_image():
  params = vgg.random_params(0, WIDTHS, ["r22"])
  image = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 3)), jnp.float32)
  loss = lambda p, x: vgg.features(p, x, ["r22"])["r22"].sum()
  to_params, to_image = jax.grad(loss, (0, 1))(params, image)
  assert all(not np.any(x) for x in jax.tree.leaves(to_params))
  assert np.any(to_image)


def test_nothing_past_the_deepest_layer_is_computed():
  """A trunk cut after the layer is enough; and pooling of its group does not happen."""
  params = vgg.random_params(0, WIDTHS, ["r12"])
  image = jnp.ones((1, 8, 8, 3))
  jaxpr = str(jax.make_jaxpr(lambda x: vgg.features(params, x, ["r12"]))(image))
  assert jaxpr.count("conv_general_dilated") == 2 and "reduce_window" not in jaxpr
  assert vgg.features(params, image, ["p1"])["p1"].shape == (1, 4, 4, 2)


def test_bfloat16_features_are_close():
  params = vgg.random_params(0, (16, 16, 16, 16, 16), ["r32"])
  image = network_input(jnp.asarray(
      np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 1)), jnp.float32))
  full = vgg.features(params, image, ["r32"])["r32"]
  half = vgg.features(params, image, ["r32"], dtype=jnp.bfloat16)["r32"]
  assert half.dtype == jnp.float32
  assert 0 < np.abs(full - half).max() < 0.05 * np.abs(full).max()


def test_two_channels_are_refused():
  with pytest.raises(ValueError, match="1 or 3 channels"):
    network_input(jnp.zeros((1, 4, 4, 2)))


def test_measured_statistics(tmp_path):
  """Over several batches of different sizes they are those of all images at once."""
  params = vgg.random_params(3, WIDTHS, ["r32"])
  images = np.random.default_rng(1).uniform(-1, 1, (5, 16, 16, 1)).astype(np.float32)
  stats = measure_stats(Trunk(vgg.features, params, {}), [images[:2], images[2:]], ["r12", "r32"])
  for layer in stats:
    inputs = network_input(jnp.asarray(images))
    found = np.asarray(vgg.features(params, inputs, [layer])[layer], np.float64)
    np.testing.assert_allclose(stats[layer]["mean"], found.mean((0, 1, 2)), rtol=1e-5, atol=1e-6)
    std = found.std((0, 1, 2))
    np.testing.assert_allclose(stats[layer]["std"], np.maximum(std, 0.01 * std.mean()), rtol=1e-4)
  vgg_weights.save_stats(tmp_path / "s.npz", stats)
  again = vgg_weights.load_stats(["r12", "r32"], tmp_path / "s.npz")
  jax.tree.map(np.testing.assert_array_equal, again, stats)
  with pytest.raises(ValueError, match="no r42_mean"):
    vgg_weights.load_stats(["r42"], tmp_path / "s.npz")
  with pytest.raises(ValueError, match="no images"):
    measure_stats(Trunk(vgg.features, params, {}), [], ["r12"])


@pytest.mark.parametrize("mean, std", [
    ([np.nan, 1], [1, 1]), ([0, 0], [1, 0]), ([0, 0], [np.inf, 1]), ([0, 0], [1]), ([[0, 0]], [[1, 1]]),
    (["a", "b"], [1, 1]), (np.array([None, 1], object), [1, 1]), (None, None)])
def test_statistics_of_a_file_are_numbers_of_each_channel(tmp_path, mean, std):
  """NaN became the scale of a layer; damaged files and objects were no line with the file."""
  if mean is None:
    (tmp_path / "s.npz").write_bytes(b"PK\3\4" + bytes(90))
  else:
    np.savez(tmp_path / "s.npz", r12_mean=mean, r12_std=std)
  with pytest.raises(UserError, match="s.npz"):
    vgg_weights.load_stats(["r12"], tmp_path / "s.npz")


def test_a_silent_channel_does_not_divide_by_zero():
  stats = moments_to_stats(np.array([1.0, 0.0]), np.array([5.0, 0.0]))
  np.testing.assert_allclose(stats["std"], [2, 0.01], rtol=1e-6)  # a hundredth of the layer's mean


@pytest.mark.parametrize("array", [np.array, jnp.array])
def test_a_square_that_was_rounded_below_the_mean_s_is_no_nan(array):
  """A channel that hardly varies: E[f^2] - E[f]^2 is a little below 0 in float32."""
  stats = moments_to_stats(array([1.0, 2.0]), array([1.0 - 1e-6, 4.25]))
  np.testing.assert_allclose(stats["std"], [0.0025, 0.5], rtol=1e-5)  # a hundredth of the layer's mean
  np.testing.assert_allclose(stats["mean"], [1, 2])


def test_the_published_second_entry_is_a_standard_deviation():
  """E|c| = 2 E[relu(c)] - E[c] is at most sqrt(E[c]^2 + Var c); as a variance it is not."""
  stats = vgg_weights.load_stats(["c42", "r42"])
  mean, second = stats["c42"]["mean"].astype(np.float64), stats["c42"]["std"].astype(np.float64)
  absolute = 2 * stats["r42"]["mean"].astype(np.float64) - mean
  assert np.all(absolute <= np.sqrt(mean**2 + second**2) * 1.0001)
  assert np.all(absolute > np.sqrt(mean**2 + second))


@pytest.mark.parametrize("of", [vgg_weights.load, vgg_weights.zeros])
def test_channels_of_other_than_five_groups_are_refused(of):
  with pytest.raises(ValueError, match="vgg_widths=.*five groups"):
    of("random:0", ("r11",), (4, 8))


def test_layers_before_and_after_their_relu_have_the_numbers_of_their_convolutions():
  """c21 is the first convolution of the second block, r21 what is left of it above 0."""
  names = [f"{b}{i}" for b, i in vgg.CONVS[:6]]
  assert names == ["11", "12", "21", "22", "31", "32"]
  layers = [kind + name for kind in "cr" for name in names]
  params = vgg.random_params(0, WIDTHS, layers)
  image = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
  found = jax.jit(lambda x: vgg.features(params, x, layers))(image)
  for name in names:
    before, after = np.asarray(found["c" + name]), np.asarray(found["r" + name])
    block = int(name[0])
    assert before.shape == (1, 8 >> (block - 1), 8 >> (block - 1), WIDTHS[block - 1]) and before.min() < 0
    np.testing.assert_array_equal(after, np.maximum(before, 0), err_msg=name)
