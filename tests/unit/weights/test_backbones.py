"""Files of backbone weights: .onnx read from its bytes, what is refused, and the networks' conventions."""

import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.losses import trunk
from medae_jax.models import backbone, inception_resnet_v2, vgg
from medae_jax.weights import backbones, onnx_file

TAPS = ("r11", "r12")


def number(value):
  out = b""
  while value > 127:
    out, value = out + bytes([value & 127 | 128]), value >> 7
  return out + bytes([value])


def field(n, value):
  """A protobuf field: an integer, or bytes."""
  if isinstance(value, int):
    return number(n << 3) + number(value)
  return number(n << 3 | 2) + number(len(value)) + value


def onnx(tensors, packed=False):
  """An .onnx file with these initialisers, float32 but for integers; dims packed or one by one."""
  graph = b""
  for name, value in tensors.items():
    kind = 1 if value.dtype == np.float32 else 7
    dims = (field(1, b"".join(number(d) for d in value.shape)) if packed
            else b"".join(field(1, d) for d in value.shape))
    graph += field(5, dims + field(2, kind) + field(8, name.encode()) + field(9, value.tobytes()))
  return field(1, 8) + field(7, field(2, b"graph") + graph)


@pytest.fixture
def params():
  return backbone.get("vgg16").init(3, TAPS)


@pytest.mark.parametrize("packed", [True, False])
def test_an_onnx_trunk_is_the_npz_one(tmp_path, params, packed):
  tensors = {"functional_1/shape:0": np.array([1, -1])}
  for layer, one in params.items():
    name = f"functional_1/block{layer[4]}_conv{layer[6]}_1"
    one["bias"] += np.arange(one["bias"].size, dtype=np.float32)
    kernel = np.ascontiguousarray(one["kernel"].transpose(3, 2, 0, 1))
    tensors[f"{name}/convolution/ReadVariableOp:0"] = kernel
    tensors[f"{name}/Squeeze:0"] = one["bias"]
  (tmp_path / "a.onnx").write_bytes(onnx(tensors, packed))
  np.savez(tmp_path / "a.npz", **{f"{k}/{part}": v for k, one in params.items() for part, v in one.items()})
  for file in ("a.onnx", "a.npz"):
    found, described = backbones.load("vgg16", str(tmp_path / file), TAPS)
    assert "vgg16, weights of unknown origin" in described and file in described
    for layer, one in params.items():
      for part, value in one.items():
        np.testing.assert_array_equal(found[layer][part], value, err_msg=f"{file} {layer} {part}")


def test_a_damaged_onnx_file_is_one_line(tmp_path, params):
  whole = onnx({"a/block1_conv1/x": params["conv1_1"]["kernel"]})
  for content, text in ((whole[:-5], "damaged"), (b"\x00\xff" * 9, "damaged|no graph"), (b"", "no graph")):
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(UserError, match=text) as error:
      onnx_file.load(tmp_path / "a.onnx")
    assert "\n" not in str(error.value)


def test_old_files_keep_floats_in_a_field_of_their_own(tmp_path):
  tensor = field(1, 2) + field(2, 1) + field(8, b"x") + field(4, struct.pack("<2f", 1.5, -2.0))
  (tmp_path / "a.onnx").write_bytes(field(7, field(5, tensor)))
  np.testing.assert_array_equal(onnx_file.load(tmp_path / "a.onnx")["x"], [1.5, -2.0])
  apart = field(1, 2) + field(2, 1) + field(8, b"x") + b"".join(
      field(4, struct.pack("<f", v)) for v in (1.5, -2.0))
  (tmp_path / "a.onnx").write_bytes(field(7, field(5, apart)))
  np.testing.assert_array_equal(onnx_file.load(tmp_path / "a.onnx")["x"], [1.5, -2.0])


def test_what_lies_between_the_weights_is_stepped_over(tmp_path):
  """Fields of 4 and 8 bytes, long integers, and tensors of whole numbers, which are no weights."""
  between = number(3 << 3 | 5) + b"\x7a" * 4 + number(4 << 3 | 1) + b"\x7a" * 8 + field(6, 2**60)
  kinds = {"n": np.array([1, 2], np.int32), "x": np.array([1.5, -2.0], np.float32)}
  (tmp_path / "a.onnx").write_bytes(between + onnx(kinds) + between + field(7, between))
  found = onnx_file.load(tmp_path / "a.onnx")
  assert set(found) == {"x"} and found["x"].tolist() == [1.5, -2.0]


def test_weights_of_another_network_are_refused(tmp_path, params):
  params["conv1_2"]["kernel"] = params["conv1_2"]["kernel"][..., :5]
  np.savez(tmp_path / "a.npz", **{f"{k}/{part}": v for k, one in params.items() for part, v in one.items()})
  with pytest.raises(UserError, match=r"not the weights of vgg16, .* conv1_2 .* finds \(3, 3, 64, 5\)"):
    backbones.load("vgg16", str(tmp_path / "a.npz"), TAPS)
  for name, text in (("inception_resnet_v2", "no tensor 'conv2d_1a"), ("vgg19", "features.0.weight"),
                     ("efficientnet_lite0", "no tensor '_bn0.weight'")):
    with pytest.raises(UserError, match=text):
      backbones.load(name, str(tmp_path / "a.npz"), backbone.get(name).taps[:1])


@pytest.mark.parametrize("name", backbone.names())
def test_without_weights_the_file_to_get_is_named(name):
  with pytest.raises(UserError, match=f"{name} needs .*backbone_weights=PATH"):
    backbones.load(name, "", backbone.get(name).taps)
  with pytest.raises(FileNotFoundError, match="no such file"):
    backbones.load(name, "/nowhere.npz", backbone.get(name).taps)


@pytest.mark.parametrize("name", backbone.names())
def test_zeros_have_the_shapes_of_the_weights(name):
  net = backbone.get(name)
  taps = net.taps[:3]
  drawn, _ = backbones.load(name, "random:1", taps)
  shapes = lambda tree: {k: {p: v.shape for p, v in one.items()} for k, one in tree.items()}
  assert shapes(drawn) == shapes(backbones.zeros(name, "random:1", taps))
  assert len(net.shapes(net.taps)) > len(drawn)
  size = net.least_size
  maps = net.features(drawn, jnp.ones((1, size, size, 3)), taps, jnp.float32)
  assert {t: m.shape[-1] for t, m in maps.items()} == {t: net.widths[t] for t in taps}


def test_efficientnet_lite_out_of_a_state_dict(tmp_path):
  """Normalisation folded in, depthwise kernels, the sum of a block: against the layers one by one."""
  net, rng, tensors = backbone.get("efficientnet_lite0"), np.random.default_rng(0), {}
  norms = {"_conv_stem": "_bn0", "_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
  for layer, (h, w, i, o) in net.shapes(("stage2",)).items():
    block, _, name = layer.rpartition(".")
    norm = ".".join(filter(None, [block, norms[name]]))
    tensors[f"{layer}.weight"] = rng.normal(size=(o, i, h, w)) * (2 / (h * w * i)) ** 0.5
    tensors |= {f"{norm}.{part}": rng.uniform(0.5, 1.5, o) for part in ("weight", "bias", "running_var")}
    tensors[f"{norm}.running_mean"] = rng.normal(size=o)
  np.savez(tmp_path / "a.npz", **tensors)
  params, _ = backbones.load(net.name, str(tmp_path / "a.npz"), ("stage1", "stage2"))
  image = rng.normal(size=(1, 32, 32, 3)).astype(np.float32)

  def layer(x, name, norm, stride=1, relu=True):
    kernel = tensors[f"{name}.weight"]
    y = jax.lax.conv_general_dilated(x, kernel.astype(np.float32), (stride, stride), "SAME",
                                     dimension_numbers=("NHWC", "OIHW", "NHWC"),
                                     feature_group_count=x.shape[-1] // kernel.shape[1])
    n = {part: tensors[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")}
    y = (np.asarray(y) - n["running_mean"]) / np.sqrt(n["running_var"] + 1e-3) * n["weight"] + n["bias"]
    return (np.clip(y, 0, 6) if relu else y).astype(np.float32)

  def block(x, k, stride=1, expand=True):
    n = f"_blocks.{k}."
    y = layer(x, f"{n}_expand_conv", f"{n}_bn0") if expand else x
    y = layer(y, f"{n}_depthwise_conv", f"{n}_bn1", stride)
    return layer(y, f"{n}_project_conv", f"{n}_bn2", relu=False)
  one = block(layer(image, "_conv_stem", "_bn0", 2), 0, expand=False)
  two = block(one, 1, 2)
  two = two + block(two, 2)
  found = net.features(params, image, ("stage1", "stage2"), jnp.float32)
  for tap, want in (("stage1", one), ("stage2", two)):
    np.testing.assert_allclose(found[tap], want, rtol=1e-3, atol=1e-4 * np.abs(want).max(), err_msg=tap)


def test_vgg19_is_the_trunk_of_the_perceptual_losses():
  taps, image = ("r12", "r22"), np.random.default_rng(0).random((1, 16, 16, 3), np.float32)
  params, net = vgg.random_params(0, layers=taps), backbone.get("vgg19")
  entered = net.enter(2 * image - 1, -1, 1)
  np.testing.assert_allclose(entered, trunk.network_input(2 * image - 1), rtol=1e-5, atol=1e-5)
  ours, want = net.features(params, entered, taps, jnp.float32), vgg.features(params, entered, taps)
  for tap in taps:
    np.testing.assert_allclose(ours[tap], want[tap], rtol=1e-5, atol=1e-5)


def test_the_oxford_trunk_takes_blue_first():
  entered = np.asarray(backbone.get("vgg16").enter(np.array([[[[1.0, 0.5, 0.0]]]], np.float32), 0, 1))
  np.testing.assert_allclose(entered[0, 0, 0], [-103.939, 127.5 - 116.779, 255 - 123.68], rtol=1e-5)


def test_an_unknown_backbone_names_the_known_ones():
  with pytest.raises(UserError, match="'resnet'.*vgg16, vgg19, inception_resnet_v2"):
    backbone.get("resnet")


@pytest.mark.parametrize("name, black, white", [
    ("vgg19", (-2.117904, -2.035714, -1.804444), (2.248908, 2.428571, 2.64)),
    ("inception_resnet_v2", (-1, -1, -1), (1, 1, 1)),
    ("efficientnet_lite0", (-127 / 128,) * 3, (1, 1, 1)),
    ("vgg16", (-103.939, -116.779, -123.68), (151.061, 138.221, 131.32))])
def test_black_and_white_enter_as_each_network_was_trained(name, black, white):
  enter = backbone.get(name).enter
  for value, low, high, want in ((0.0, 0, 1, black), (1.0, 0, 1, white), (-1.0, -1, 1, black),
                                 (3.0, 1, 3, white)):
    found = enter(jnp.full((1, 1, 1, 3), value), low, high)
    np.testing.assert_allclose(found[0, 0, 0], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name, extra, published", [  # extra: numbers a channel beside the kernels
    ("vgg16", 1, 14_714_688), ("vgg19", 1, 20_024_384), ("inception_resnet_v2", 3, 54_336_736),
    ("efficientnet_lite0", 2, 4_652_008 - 1_281_000), ("efficientnet_lite1", 2, 5_416_680 - 1_281_000),
    ("efficientnet_lite2", 2, 6_092_072 - 1_281_000)])
def test_networks_have_as_many_numbers_as_are_published(name, extra, published):
  """Of Keras and timm, without the classifier: biases, or normalisation (Keras: without its scale)."""
  net = backbone.get(name)
  shapes = net.shapes(net.taps)
  biased = [s for layer, s in shapes.items() if layer.endswith(".conv2d")]  # ends of residual blocks
  channels = sum(s[3] for s in shapes.values())
  assert sum(map(np.prod, shapes.values())) + extra * channels - 2 * sum(s[3] for s in biased) == published


@pytest.mark.parametrize("name, size, sides", [
    ("inception_resnet_v2", 299, (149, 147, 147, 73, 73, 71, 35, 35, 17, 8, 8)),
    ("efficientnet_lite0", 224, (112, 112, 56, 28, 14, 14, 7, 7, 7))])
def test_maps_have_the_sides_of_the_papers(name, size, sides):
  net = backbone.get(name)
  array = lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  params = {k: {"kernel": array(s), "bias": array(s[3:])} for k, s in net.shapes(net.taps).items()}
  found = jax.eval_shape(lambda p, x: net.features(p, x, net.taps, jnp.float32), params,
                         array((1, size, size, 3)))
  assert {t: x.shape for t, x in found.items()} == {
      t: (1, side, side, net.widths[t]) for t, side in zip(net.taps, sides, strict=True)}


def test_residual_blocks_of_inception_add_a_share_of_their_branches():
  """0.17, 0.1 and 0.2, then a ReLU; the last one all of it, without (Szegedy 2017, Keras)."""
  image = np.ones((1, 1, 1, 2))
  conv = lambda x, _, channels, *__, **___: np.full((*x.shape[:-1], channels), -2.0 if channels == 2 else 1)
  for block, share in (("_block35", 0.17), ("_block17", 0.1), ("_block8", 0.2)):
    found = getattr(inception_resnet_v2, block)(conv, image, "repeat.0")
    np.testing.assert_allclose(found, 1 - 2 * share, rtol=1e-6)
  steps = [step for _, step in inception_resnet_v2._STEPS]
  np.testing.assert_allclose(steps[-2](conv, image, None), -1.0)


@pytest.mark.parametrize("wide", [np.float64, np.float16])
def test_weights_of_another_precision_are_float32_and_only_those_that_the_taps_need(tmp_path, params, wide):
  np.savez(tmp_path / "a.npz", **{f"{layer}/{part}": value.astype(wide)
                                  for layer, one in params.items() for part, value in one.items()})
  found, _ = backbones.load("vgg16", str(tmp_path / "a.npz"), TAPS[:1])
  assert list(found) == ["conv1_1"] and {v.dtype for v in found["conv1_1"].values()} == {np.dtype("float32")}
  np.testing.assert_allclose(found["conv1_1"]["kernel"], params["conv1_1"]["kernel"], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", backbone.names())
def test_kernels_that_are_drawn_keep_the_variance_of_what_goes_through_them(name):
  """He's normal: deviation sqrt(2 / (inputs of an output))."""
  net = backbone.get(name)
  drawn = [net.init(1, net.taps[:2])] + ([vgg.random_params(1, layers=("r21",))] if name == "vgg19" else [])
  for layer, one in (pair for params in drawn for pair in params.items()):
    kernel, fan_in = one["kernel"], np.prod(one["kernel"].shape[:3])
    assert kernel.std() == pytest.approx(np.sqrt(2 / fan_in), rel=5 / np.sqrt(kernel.size)), layer
    assert kernel.dtype == np.float32 and not one["bias"].any()
