"""Fields of config.model out of the shapes of a checkpoint, of networks whose numbers are all different."""

import numpy as np
import pytest

from medae_jax.weights.autoencoders import sizes


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
