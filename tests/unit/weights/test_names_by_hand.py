"""Which tensor of a public state dict becomes which parameter, on small tensors with numbers of their own."""

import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.weights import conv_ae, dpa


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
