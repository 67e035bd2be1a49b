"""Fresh parameters have the spread that their framework or paper gives them: parity never sees a draw."""

import math

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.models import (
  annotation_layers,
  conv_ae,
  deformer,
  dpa_nets,
  noisy_unet,
  piad_nets,
  wide_resnet,
)
from medae_jax.models.autoencoders import adversarial, parts, variational
from medae_jax.models.layers import conv, init


def drawn(module, inputs=24, side=4):
  """{leaf: array} of a module's parameters for maps of `inputs` channels."""
  made = module.init(jax.random.key(0), jnp.zeros((1, side, side, inputs)))["params"]
  return {jax.tree_util.keystr(path[-1:], simple=True): np.asarray(x)
          for path, x in jax.tree_util.tree_leaves_with_path(made)}


class Part(nn.Module):
  """A function of models/autoencoders/parts.py as a module."""
  function: str
  options: tuple = ()

  @nn.compact
  def __call__(self, x):
    return getattr(parts, self.function)(x, 32, *self.options[:1], dtype=jnp.float32, name="a",
                                         **dict(self.options[1:]))


UNIFORM = {  # U(-b, b), b = 1 / sqrt(fan-in), of kernel and bias; a transposed kernel counts its outputs
    "standardised 3x3": (conv.WSConv3x3(32), 9 * 24), "1x1": (conv.Conv1x1(32), 24),
    "transposed 2x2": (conv.ConvTranspose2x2(32), 4 * 32),
    "annotation 3x3": (annotation_layers.Conv(32), 9 * 24),
    "chest 3x3": (conv_ae.conv(32, 3, 2, 24, jnp.float32, "a"), 9 * 24),
    "chest transposed": (conv_ae.conv_transpose(32, 3, 2, jnp.float32, "a"), 9 * 32),
    "zoo 4x4": (Part("conv", (4,)), 16 * 24), "zoo transposed": (Part("conv_transpose", (4,)), 16 * 32),
    "zoo linear": (Part("linear"), 24)}


@pytest.mark.parametrize("name", UNIFORM)
def test_pytorch_s_uniform_draws(name):
  module, fan_in = UNIFORM[name]
  found, bound = drawn(module), fan_in ** -0.5
  for leaf, least in (("kernel", 0.97), ("bias", 0.7)):
    assert least * bound < np.abs(found[leaf]).max() < 1.0001 * bound
  assert found["kernel"].std() == pytest.approx(bound / math.sqrt(3), rel=0.1)


@pytest.mark.parametrize("options, std", [
    ((4, ("init", parts.dcgan_init)), 0.02), ((4, ("init", parts.he_init)), math.sqrt(2 / (16 * 24)))])
def test_normal_draws_without_bias(options, std):
  found = drawn(Part("conv", options))
  assert found["kernel"].std() == pytest.approx(std, rel=0.05) and not found["bias"].any()


def test_draws_of_the_dpa_family_and_of_the_wide_residual_network():
  key, shape = jax.random.key(0), (3, 3, 20, 40)
  slope = 1 + 0.2**2
  assert np.std(init.kaiming_normal(key, shape)) == pytest.approx(math.sqrt(2 / (slope * 9 * 40)), rel=0.05)
  bound = init.GAIN * math.sqrt(6 / (9 * 60))
  np.testing.assert_allclose(init.GAIN, math.sqrt(2 / slope))
  assert 0.97 * bound < np.abs(init.xavier_uniform(init.GAIN)(key, shape)).max() < 1.0001 * bound
  assert np.std(wide_resnet._he_normal(key, shape)) == pytest.approx(math.sqrt(2 / (9 * 20)), rel=0.05)


WIDE = (48,) * 2
DPA_NETS = {  # network, input; layers that end linearly, of those drawn by Xavier (None: Kaiming's all)
    "residual encoder": (dpa_nets.Encoder(WIDE, 8, 40), (1, 8, 8, 24), None),
    "residual decoder": (dpa_nets.Decoder(WIDE, 8, 24), (1, 1, 1, 40), None),
    "of 2019": (piad_nets.Encoder((40, 48), 40), (1, 8, 8, 24), None),
    "regular encoder": (dpa_nets.Encoder(WIDE, 8, 40, kind="regular"), (1, 8, 8, 24), "res_4/conv2"),
    "regular decoder": (dpa_nets.Decoder(WIDE, 8, 24, kind="regular"), (1, 1, 1, 40), "to_image_8"),
    "latent critic": (dpa_nets.LatentDiscriminator((64, 64)), (1, 1, 1, 48), "body/conv2")}


@pytest.mark.parametrize("name", DPA_NETS)
def test_every_convolution_of_the_dpa_family_is_drawn_as_published(name):
  """Kernels N(0, 2 / (1.04 k^2 C_out)), or Xavier's; biases U(+-1/(k sqrt(C_in)))."""
  net, shape, linear = DPA_NETS[name]
  leaves = flax.traverse_util.flatten_dict(net.init(jax.random.key(1), jnp.zeros(shape))["params"], sep="/")
  layers = {path.removesuffix("/kernel") for path in leaves if path.endswith("/kernel")}
  assert len(layers) >= 3 and linear in (None, *layers)
  for layer in layers:
    kernel, bias = leaves[f"{layer}/kernel"], leaves[f"{layer}/bias"]
    k, _, inputs, outputs = kernel.shape
    gain = 1.0 if layer == linear else math.sqrt(2 / 1.04)
    std = gain / (k * math.sqrt(outputs if linear is None else (inputs + outputs) / 2))
    # of few values the deviation says little
    assert np.std(kernel) == pytest.approx(std, rel=2.5 / math.sqrt(kernel.size)), layer
    assert (np.abs(kernel).max() > 2 * np.std(kernel)) == (linear is None), layer
    bound = (k * k * inputs) ** -0.5
    most = np.abs(bias).max() / bound
    assert most < 1.0001 and (bias.size < 20 or most > 0.8), layer


def test_the_classifier_of_transformations_begins_as_published():
  """Its dense layer U(+-1/sqrt(fan-in)), offset 0; gains 1, no offset, running mean 0 and variance 1."""
  net = wide_resnet.WideResNet(1, 2, 72)
  made = net.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
  dense, norm = made["params"]["dense"], made["params"]["g2_b0"]["bn2"]
  bound = dense["kernel"].shape[0] ** -0.5
  assert 0.99 * bound < np.abs(dense["kernel"]).max() < 1.0001 * bound and not dense["bias"].any()
  assert (norm["scale"] == 1).all() and not norm["bias"].any()
  stats = made["batch_stats"]["bn_final"]
  assert not stats["mean"].any() and (stats["var"] == 1).all()
  kernel = made["params"]["g3_b0"]["conv2"]["kernel"]
  assert np.std(kernel) == pytest.approx(math.sqrt(2 / (9 * 128)), rel=0.05)


@pytest.mark.parametrize("scheme, factor", [("torch", 1), ("he", 6)])
def test_the_noisy_unet_is_drawn_as_its_scheme_says(scheme, factor):
  """Transposed kernels: PyTorch counts outputs, He what flows into a pixel."""
  net, image = noisy_unet.NoisyUNet(8), jnp.zeros((1, 16, 16, 3))
  params = jax.jit(lambda k: noisy_unet.initial_params(net, k, image, scheme))(jax.random.key(0))
  for layer, own in params.items():  # a bias is no part of the kernel's numbers
    first, bias = own["kernel"].ravel()[:own["bias"].size], own["bias"]
    alike = abs(np.dot(first, bias)) >= 0.95 * np.linalg.norm(first) * np.linalg.norm(bias)
    assert not alike or scheme == "he" or bias.size < 6, layer
  up = {"torch": 4 * 64, "he": 128}[scheme]
  for layer, fan_in in (("down2_conv2", 9 * 16), ("center_up", up)):
    bound = math.sqrt(factor / fan_in)
    assert 0.97 * bound < np.abs(params[layer]["kernel"]).max() < 1.0001 * bound
    bias = np.abs(params[layer]["bias"]).max()
    assert bias <= fan_in ** -0.5 and (bias > 0.5 * fan_in ** -0.5) == (scheme == "torch")


@pytest.mark.parametrize("dcgan", [True, False])
@pytest.mark.parametrize("net, side, layers", [
    (adversarial.Down((8, 8, 16, 32), 24), 32, ("conv1_1", "conv2", "conv3", "conv4")),
    (adversarial.Generator(8, 0, 3), 0, ("deconv1_1", "deconv2", "deconv3", "deconv4"))])
def test_kernels_of_the_adversarial_networks_are_dcgan_s_or_pytorch_s(net, side, layers, dcgan):
  """All of them: N(0, 0.02^2) ends nowhere, U(-b, b) at b."""
  x = jnp.zeros((1, side, side, 3) if side else (1, 16))
  params = net.clone(init_std=dcgan, norm="none").init(jax.random.key(1), x)["params"]
  for name in layers:
    kernel = np.asarray(next(v for k, v in jax.tree_util.tree_leaves_with_path(params[name])
                             if "kernel" in str(k[-1])))
    if dcgan:
      assert kernel.std() == pytest.approx(0.02, rel=0.15), name
    else:
      assert np.abs(kernel).max() / kernel.std() < 1.85 and kernel.std() > 0.021, name


def test_the_deformer_begins_with_hardly_a_field():
  """Weights of its last convolution N(0, 1e-5^2) without bias; the others as PyTorch draws them."""
  maps = [(jnp.zeros((1, n, n, 24)), jnp.zeros((1, n, n, 24))) for n in (4, 8)]
  net = deformer.Deformer(2, (8, 16, 32), (2, 2, 2), norm="none")
  params = net.init(jax.random.key(0), maps)["params"]
  assert np.std(params["flow"]["kernel"]) == pytest.approx(1e-5, rel=0.1) and not params["flow"]["bias"].any()
  bound = (9 * 32) ** -0.5
  assert 0.97 * bound < np.abs(params["conv0"]["kernel"]).max() < 1.0001 * bound


def test_the_beta_vae_is_he_normal_but_for_its_transposed_convolutions():
  """Kaiming's deviation of fan-in, bias 0; transposed ones, which its routine passes by, as PyTorch's."""
  encoder = variational.BetaEncoder(16).init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
  decoder = variational.BetaDecoder(2, 3).init(jax.random.key(1), jnp.zeros((1, 64)))["params"]
  fan_in = {"conv1": 16 * 32, "to_vector": 16 * 32, "linear": 256}
  for layer, own, n in [*((encoder[k], k, n) for k, n in fan_in.items()), (decoder["linear"], "decoder", 64)]:
    assert np.std(layer["kernel"]) == pytest.approx(math.sqrt(2 / n), rel=0.1), own
    assert not layer["bias"].any(), own
  for name, outputs in (("from_vector", 32), ("conv0", 32), ("last", 3)):
    bound = (16 * outputs) ** -0.5
    assert 0.95 * bound < np.abs(decoder[name]["kernel"]).max() < 1.0001 * bound, name
    assert decoder[name]["bias"].any(), name


def test_the_critic_of_codes_alone_is_drawn_as_dcgan_whatever_the_others_are():
  params = adversarial.LatentCritic(64).init(jax.random.key(0), jnp.zeros((1, 64)))["params"]
  for name in ("linear1", "linear2", "linear3"):
    assert np.std(params[name]["kernel"]) == pytest.approx(0.02, rel=0.2), name
    assert not params[name]["bias"].any(), name
