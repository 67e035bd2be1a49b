"""Which tensor of a public state dict becomes which parameter, on small tensors with numbers of their own."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.models import noisy_unet
from medae_jax.weights import annotation, conv_ae, deep_geo, dpa, noisy_annotation, piad


def kernel(*shape):
  """Distinct whole numbers."""
  return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


# ------------------------------------------------------------------------------------ chest X-rays
ENCODER = {
    "encoder.conv__encode_0.weight": kernel(2, 3, 1, 2), "encoder.conv__encode_0.bias": kernel(2),
    "encoder.conv__batch_0.weight": kernel(2) + 5, "encoder.conv__batch_0.bias": kernel(2) + 7,
    "encoder.conv__batch_0.running_mean": kernel(2) + 9, "encoder.conv__batch_0.running_var": kernel(2) + 11,
    "encoder.conv__batch_0.num_batches_tracked": np.array(4), "grid": kernel(2)}
DEFORMER = {
    "deformer.deformerNN.ref__refine_1.weight": kernel(2, 3, 1, 2),
    "deformer.flow.weight": kernel(2, 3, 1, 2), "deformer.flow.bias": kernel(2)}


def test_kernels_norms_and_statistics_of_a_convolution():
  params, stats = conv_ae.from_torch(ENCODER, nets=("enc",))
  layers = params["enc"]
  assert {name: sorted(layer) for name, layer in layers.items()} == {
      "conv0": ["bias", "kernel"], "norm0": ["bias", "scale"]}
  for (o, i, y, x), value in np.ndenumerate(ENCODER["encoder.conv__encode_0.weight"]):
    assert layers["conv0"]["kernel"][y, x, i, o] == value
  assert layers["norm0"]["scale"].tolist() == [5, 6] and layers["norm0"]["bias"].tolist() == [7, 8]
  assert {k: v.tolist() for k, v in stats["enc"]["norm0"].items()} == {"mean": [9, 10], "var": [11, 12]}


def test_transposed_kernels_are_turned_and_the_last_convolution_is_none():
  params, stats = conv_ae.from_torch(DEFORMER, nets=("deformer",))
  turned, last = params["deformer"]["conv1"]["kernel"], params["deformer"]["flow"]["kernel"]
  for (i, o, y, x), value in np.ndenumerate(kernel(2, 3, 1, 2)):
    assert turned[0 - y, 1 - x, i, o] == value and last[y, x, o, i] == value
  assert params["deformer"]["flow"]["bias"].tolist() == [0, 1] and not stats
  straight, _ = conv_ae.from_torch(DEFORMER, transposed=(), nets=("deformer",))
  assert straight["deformer"]["conv1"]["kernel"].shape == (1, 2, 3, 2)


def test_a_net_without_a_tensor_is_refused():
  with pytest.raises(UserError, match="no tensor of decoder.conv__decode_i: it is not"):
    conv_ae.from_torch(ENCODER, nets=("enc", "dec"))


# -------------------------------------------------------------------------------------------- DPA
@pytest.mark.parametrize("wrapper", ["model.", "model.concat.layer2."])
@pytest.mark.parametrize("net, norm", [("enc", "in"), ("dec", "in"), ("ddis", "none")])
def test_a_checkpoint_of_other_padding_or_normalisation_is_no_match(net, norm, wrapper):
  """Its values would fit: what tells is the place of a convolution in its block."""
  model = types.SimpleNamespace(kind="residual9", norm="in", pad="reflect")
  first = 2 if norm == "none" else 3
  up = f"{net}.{wrapper}res_8.0.model"
  name = lambda place, pad: {f"{net}.model.res_4.1.model.0.weight": kernel(1, 1, 4, 4),
                             f"{up}.{place}.model.{pad}.weight": kernel(1, 1, 3, 3),
                             f"{up}.{place + 1}.model.{pad}.weight": kernel(1, 1, 3, 3)}
  assert dpa.networks(name(first, 1), model, critic=True)[0]
  with pytest.raises(UserError, match=f"{net} was built with zero padding, .* set config.model.pad"):
    dpa.networks(name(first, 0), model, critic=True)
  with pytest.raises(UserError, match=f"{net} was built with(out)? normalisation"):
    dpa.networks(name(5 - first, 1), model, critic=True)
  with pytest.raises(UserError, match="critic_image was built with reflect padding"):
    piad.convert({n.removeprefix(f"{net}."): v for n, v in name(2, 1).items()}, "critic_image", "2021")


def test_blocks_of_a_residual_network_with_and_without_a_skip():
  leaves = {
      "0.weight": kernel(2, 3, 1, 1), "0.bias": kernel(2),
      "2.model.0.weight": kernel(2) + 1, "2.model.0.running_mean": kernel(2) + 2,
      "2.model.2.model.0.weight": kernel(2, 2, 1, 1) + 3, "2.model.2.model.1.weight": kernel(2) + 4,
      "2.model.2.model.1.running_var": kernel(2) + 8,
      "2.model.10.model.0.weight": kernel(2, 2, 1, 1) + 5, "2.skipcon.model.0.weight": kernel(2, 2, 1, 1) + 6,
      "10.model.2.model.0.weight": kernel(2, 2, 1, 1) + 7}
  found = dpa._residual(leaves)
  first = {name: float(np.ravel(value)[0]) for name, value in found.items()}
  assert first == {
      "conv/kernel": 0, "conv/bias": 0, "block0/norm1/scale": 1, "block0/norm1/mean": 2,
      "block0/conv1/kernel": 3, "block0/norm2/scale": 4, "block0/norm2/var": 8, "block0/conv2/kernel": 5,
      "block0/skip/kernel": 6, "block1/conv1/kernel": 7}  # 10 comes after 2
  assert found["conv/kernel"].shape == (1, 1, 3, 2) and found["conv/kernel"][0, 0, 2, 1] == 5


@pytest.mark.parametrize("ours, names", [
    ("res_32", {"conv0/kernel": 1, "conv0/bias": 2, "norm0/scale": 3, "conv1/kernel": 4}),
    ("from_image", {"kernel": 4, "bias": 2, "scale": 3})])
def test_a_regular_block_counts_its_convolutions(ours, names):
  leaves = {"model.0.weight": kernel(2, 2, 1, 1) + 1, "model.0.bias": kernel(2) + 2,
            "model.1.weight": kernel(2) + 3, "model.3.weight": kernel(2, 2, 1, 1) + 4}
  assert {k: float(np.ravel(v)[0]) for k, v in dpa._regular(ours, leaves).items()} == names


def test_a_kernel_and_the_scale_and_bias_that_follow_it_are_one_convolution():
  leaves = {"model.0.weight": kernel(2, 3, 1, 1), "model.1.scale": kernel(1) + 4, "model.1.bias": kernel(2)}
  assert {k: np.shape(v) for k, v in dpa._regular("res_32", leaves).items()} == {
      "conv0/kernel": (1, 1, 3, 2), "conv0/scale": (), "conv0/bias": (2,)}
  assert float(dpa._regular("from_image", leaves)["scale"]) == 4


# ------------------------------------------------------------------------------------------- PIAD
def test_a_block_has_its_convolutions_in_order_and_its_skip():
  leaves = {"model.5.weight": kernel(2, 2, 1, 1) + 1, "model.5.bias": kernel(2) + 1,
            "model.2.weight": kernel(2, 3, 1, 1) + 2, "model.2.bias": kernel(2) + 2,
            "skipcon.weight": kernel(2, 3, 1, 1) + 3, "skipcon.bias": kernel(2) + 3}
  found = piad._block(leaves)
  assert {k: (v["bias"][0], v["kernel"].ravel()[0], v["kernel"].shape) for k, v in found.items()} == {
      "conv1": (2, 2, (1, 1, 3, 2)), "conv2": (1, 1, (1, 1, 2, 2)), "skip": (3, 3, (1, 1, 3, 2))}
  one = {name: value for name, value in leaves.items() if name.startswith("model.2")}
  assert sorted(piad._block(one)) == ["bias", "kernel"]


# ---------------------------------------------------------------------------- noisy annotations, marks
def test_every_layer_of_the_noisy_unet_has_a_published_name_and_its_form():
  net = noisy_unet.NoisyUNet(width=2)
  wanted = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
  names = dict(noisy_annotation.layer_names())
  assert sorted(names.values()) == sorted(wanted) and len(names) == len(wanted)
  tensors = {}
  for theirs, ours in names.items():
    shape = wanted[ours]["kernel"].shape
    order = (0, 3, 1, 2) if ours.endswith("_up") else (3, 2, 0, 1)  # [I,O,2,2]; [O,I,k,k]
    tensors[f"{theirs}.weight"] = np.zeros([shape[i] for i in order], np.float32)
    tensors[f"{theirs}.bias"] = np.zeros(wanted[ours]["bias"].shape, np.float32)
  found = noisy_annotation.from_torch(tensors)
  assert jax.tree.map(np.shape, found) == jax.tree.map(np.shape, wanted)
  place = {"0": "conv1", "2": "conv2", "4": "up"}  # of a block, ReLUs between; the last one counts by one
  for theirs, ours in names.items():
    block, at = theirs.split(".")[0], theirs.split(".")[-1]
    assert ours == {"output": "output", "up4.1": "up4_conv2"}.get(theirs, f"{block}_{place.get(at)}")
  with pytest.raises(UserError, match="it lacks.*up1.layer.4.bias"):
    noisy_annotation.from_torch({k: v for k, v in tensors.items() if k != "up1.layer.4.bias"})


def test_kernels_of_annotation_removal_go_there_and_back():
  plain, turned, dense = kernel(3, 3, 2, 5), kernel(4, 2, 2, 3), kernel(4, 6)
  there = [annotation.to_reference(leaf) for leaf in (plain, turned, dense)]
  assert [a.shape for a in there] == [(5, 2, 3, 3), (4, 3, 2, 2), (6, 4)]
  assert there[0][4, 1, 0, 2] == plain[0, 2, 1, 4] and there[1][3, 2, 0, 1] == turned[3, 0, 1, 2]
  for leaf, reference in zip((plain, turned, dense), there):
    np.testing.assert_array_equal(annotation._from_layout(reference, leaf), leaf)
  name = annotation.reference_name("basic_unet", ("up1", "double_conv_3", "scale"))
  assert name == "up1.double_conv.3.weight"


# --------------------------------------------------------------------------------------- Deep GEO
def test_parameters_and_statistics_of_a_wide_residual_network():
  leaves = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
  tensors = {f"g1.b0.bn1.{leaf}": i for i, leaf in enumerate(leaves)} | {
      "conv0.kernel": 6, "bn_final.gamma": 7, "bn_final.moving_mean": 8, "dense.bias": 9,
      "g3.b1.shortcut.kernel": 10}
  params, stats = deep_geo.networks(tensors)
  assert stats == {"g1_b0": {"bn1": {"mean": 4, "var": 5}}, "bn_final": {"mean": 8}}
  assert params == {"g1_b0": {"bn1": {"kernel": 0, "bias": 3, "scale": 2}}, "conv0": {"kernel": 6},
                    "bn_final": {"scale": 7}, "dense": {"bias": 9}, "g3_b1": {"shortcut": {"kernel": 10}}}
  for other in ("dense", "dense.weight"):
    with pytest.raises(UserError, match="no tensor of the wide residual network"):
      deep_geo.networks({other: 1})


def test_the_last_convolution_is_known_by_its_whole_name():
  assert conv_ae._place("deformer.flow.weight", ("deformer",)) == ("deformer", "flow")
  assert conv_ae._place("deformer.flow_half.weight", ("deformer",)) is None
  assert conv_ae._place("decoder.conv__decode_final.bias", ("enc", "dec")) == ("dec", "last")
