"""Fields of config.model out of the shapes of a checkpoint, of networks whose numbers are all different."""

import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.methods import morphaeus
from medae_jax.weights.autoencoders import names, sizes


def weights(shapes):
  return {f"{name}.{part}": np.empty(of) for name, shape in shapes.items()
          for part, of in (("weight", shape), ("bias", shape[:1]))}


@pytest.mark.parametrize("up, widths", [((13, 11, 7), (7, 11, 13)), ((11, 7, 7), (7, 11))])
def test_a_plain_autoencoder(up, widths):
  found = sizes.ae(weights({
      "encoder.conv__encode_0": (7, 3, 5, 5), "encoder.conv__encode_1": (11, 7, 5, 5),
      "encoder.conv__encode_2": (13, 11, 5, 5), **{f"decoder.conv__decode_{i}": (n, 2, 5, 5)
                                                   for i, n in enumerate(up)}}))
  assert found == {"model.widths": widths, "model.strides": (2, 2, 2), "model.kernel": 5, "data.channels": 3,
                   "model.latent": 0}


def test_a_dense_code_says_the_side_of_the_image():
  found = sizes.ae(weights({
      "encoder.conv__encode_0": (7, 3, 4, 4), "encoder.conv__encode_1": (11, 7, 4, 4),
      "decoder.conv__decode_0": (11, 2, 4, 4), "decoder.conv__decode_1": (7, 2, 4, 4),
      "lin_enc": (2, 11, 1, 1), "lin_lay_enc": (17, 2 * 6 * 6)}))
  assert found["model.latent"] == 17 and found["model.squeeze"] == 2 and found["data.image_size"] == 6 * 4
  assert found["model.kernel"] == 4


def test_morphaeus():
  tensors = weights({"encoder.conv__encode_0": (7, 3, 5, 5), "encoder.conv__encode_1": (11, 7, 5, 5),
                     **{f"deformer.deformerNN.ref__refine_{i}": (4, 4, 3, 3) for i in range(3)}})
  assert object.__new__(morphaeus.Method).torch_fields(tensors) == {
      "model.widths": (7, 11), "model.strides": (2, 2), "model.levels": 3, "model.kernel": 5,
      "data.channels": 3, "data.image_size": 4}


def test_the_adversarial_and_the_beta_one():
  assert sizes.aae(weights({"E.conv1_1": (9, 2, 3, 3), "E.conv4": (21, 9, 4, 4)})) == {
      "model.width": 9, "data.channels": 2, "model.latent": 21}
  layers = {f"encoder.{i}": (8 + i, 2, 4, 4) for i in (0, 2, 4)}
  layers |= {"encoder.7": (19, 640), "encoder.9": (12, 19)}
  assert sizes.beta_vae(weights({**layers, "decoder.0": (23, 6)})) == {
      "model.width": 8, "data.channels": 2, "model.hidden": 23, "model.latent": 6, "data.image_size": 32}


def test_the_variational_one():
  found = sizes.vae(weights({
      "encoder.start.conv": (5, 3, 4, 4), "encoder.middle_blocks.0.conv": (6, 5, 4, 4),
      "encoder.middle_blocks.1.conv": (8, 6, 4, 4), "encoder.end.conv": (14, 8, 3, 3)}))
  assert found == {"model.widths": (5, 6, 8), "model.latent": 7, "data.channels": 3, "data.image_size": 24}


def test_rules_place_layers_turn_kernels_and_part_statistics():
  rules = ((r"E\.conv(\d)", r"enc/conv+\1"), (r"E\.bn(\d)", r"enc/norm\1"), (r"G\.up", "dec/up"))
  kernel = np.arange(24.0).reshape(2, 3, 2, 2)
  tensors = {"E.conv0.weight": kernel, "E.conv0.bias": np.ones(2), "E.bn0.weight": np.full(2, 3.0),
             "E.bn0.running_mean": np.full(2, 4.0), "E.bn0.running_var": np.full(2, 5.0),
             "other.weight": kernel, "E.bn0.num_batches_tracked": np.array(7), "G.up.weight": kernel}
  params, stats = names.from_torch(tensors, rules, ("dec",))
  assert {net: sorted(layers) for net, layers in params.items()} == {"enc": ["conv1", "norm0"], "dec": ["up"]}
  assert {k: v.tolist() for k, v in stats["enc"]["norm0"].items()} == {"mean": [4, 4], "var": [5, 5]}
  assert params["enc"]["norm0"]["scale"].tolist() == [3, 3]
  assert params["enc"]["conv1"]["bias"].tolist() == [1, 1]
  for (a, b, y, x), value in np.ndenumerate(kernel):
    assert params["enc"]["conv1"]["kernel"][y, x, b, a] == value  # [O,I,h,w]
    assert params["dec"]["up"]["kernel"][1 - y, 1 - x, a, b] == value  # [I,O,h,w], turned
  only, _ = names.from_torch(tensors, rules, like={"enc": {"conv1": {}}})
  assert {net: sorted(layers) for net, layers in only.items()} == {"enc": ["conv1"]}
  with pytest.raises(UserError, match="no tensor of this network"):
    names.from_torch({"other.weight": kernel}, rules)


@pytest.mark.parametrize("expands", [True, False])
def test_a_wide_block_of_a_soft_introspective_network_tells_its_skip(expands):
  shapes = {"encoder.main.0.weight": (64, 1, 5, 5), "decoder.fc.0.weight": (99, 33),
            "encoder.main.res_in_32.conv1.weight": (512, 512, 3, 3),
            "encoder.main.res_in_16.conv1.weight": (512, 512, 3, 3)}
  if expands:
    shapes["encoder.main.res_in_32.conv_expand.weight"] = (512, 64, 1, 1)
  found = sizes.soft_intro({name: np.broadcast_to(0.0, shape) for name, shape in shapes.items()})
  assert found == {"model.widths": (64, 512), "model.latent": 33, "data.channels": 1, "data.image_size": 64,
                   "model.skip_by_identity": expands}
