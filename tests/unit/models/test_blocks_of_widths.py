"""Blocks and growing networks by their shapes, where widths differ: hardly anything is computed.

The methods' small configs have equal widths in places where published ones have not.
"""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.models import annotation_nets, dpa_family, dpa_layers, dpa_nets, noisy_unet, piad_nets
from medae_jax.models.autoencoders import soft_intro
from medae_jax.models.layers import norm, pool

KEY = jax.random.key(0)


def shapes(net, *inputs, **more):
  """(what it returns, {parameter: shape})."""
  out, found = jax.eval_shape(lambda *x: net.init_with_output(KEY, *x, **more), *inputs)
  leaves = jax.tree_util.tree_flatten_with_path(found["params"])[0]
  return out, {"/".join(k.key for k in path): leaf.shape for path, leaf in leaves}


@pytest.mark.parametrize("resize, side", [("none", 8), ("down", 4), ("up", 16)])
@pytest.mark.parametrize("width", [5, 3])
def test_the_skip_of_a_block_has_a_convolution_of_one_pixel_where_widths_differ(resize, side, width):
  block = dpa_layers.ResBlock(width, resize)
  out, params = shapes(block, jnp.zeros((2, 8, 8, 3)), train=False)
  assert out.shape == (2, side, side, width)
  wanted = {"conv1": (3, 3, 3, width), "conv2": (3, 3, width, width)}
  wanted |= {"skip": (1, 1, 3, 5)} if width == 5 else {}
  assert {k[:-7]: v for k, v in params.items() if k.endswith("/kernel")} == wanted


@pytest.mark.parametrize("kind", dpa_nets.KINDS)
def test_a_network_that_fades_in_has_the_layers_of_both_resolutions(kind):
  """Width n(res) at each; the finest block is there once."""
  latent, widths = jnp.zeros((1, 1, 1, 6)), (8, 7, 5)
  of = lambda res, **more: shapes(dpa_nets.Decoder(widths, res, 3, kind=kind, **more), latent)
  small, large, fading = of(8), of(16), of(16, transition=True)
  assert [x[0].shape for x in (small, large, fading)] == [(1, 8, 8, 3), (1, 16, 16, 3), (1, 16, 16, 3)]
  assert fading[1] == {**small[1], **large[1]}
  assert [{v[-1] for k, v in large[1].items() if k.startswith(f"res_{r}/") and k.endswith("bias")}
          for r in (4, 8, 16)] == [{8}, {7}, {5}]
  image = lambda res: jnp.zeros((1, res, res, 3))
  of = lambda res, **more: shapes(
      dpa_nets.Encoder(widths[::-1], res, 6, kind=kind, max_res=16, **more), image(res))
  small, large, fading = of(8), of(16), of(16, transition=True)
  assert {x[0].shape for x in (small, large, fading)} == {(1, 1, 1, 6)}
  assert fading[1] == {**small[1], **large[1]}


@pytest.mark.parametrize("width", [4, 6])
def test_skips_of_the_autoencoder_come_from_the_same_resolution(width):
  net = annotation_nets.AutoencoderWithSkipConnections(width=width, out_channels=2, full_skip=True)
  out, params = shapes(net, jnp.zeros((1, 16, 24, 3)))
  assert out.shape == (1, 16, 24, 2)
  kernels = {k.removesuffix("/kernel"): v for k, v in params.items() if k.endswith("kernel")}
  assert [kernels[f"refine{i}"][-2:] for i in (1, 2, 3)] == [
      ((2 + 4) * width, 2 * width), ((1 + 2) * width, width), ((1 + 1) * width, width)]
  assert {f"decoder_upsample{i}" for i in (1, 2, 3)} <= set(kernels)


@pytest.mark.parametrize("side", [32, 64])
def test_the_soft_introspective_encoder_halves_once_a_width(side):
  out, params = shapes(soft_intro.Encoder((4, 6, 8), 5), jnp.zeros((1, side, side, 3)))
  assert [x.shape for x in out] == [(1, 5)] * 2
  assert params["fc/kernel"] == (8 * (side // 8) ** 2, 10)
  blocks = {k.split("/")[0]: v for k, v in params.items() if k.endswith("conv1/kernel")}
  assert blocks == {f"res_in_{side // 2}": (3, 3, 4, 6), f"res_in_{side // 4}": (3, 3, 6, 8),
                    f"res_in_{side // 8}": (3, 3, 8, 8)}


@pytest.mark.parametrize("sides, shape", [("pad", (16, 48)), ("ceil", (18, 37)), ("ceil", (37, 18))])
def test_the_noisy_unet_covers_a_picture_that_is_no_square(sides, shape):
  """Each side for itself, up to the next multiple of 16."""
  out, _ = shapes(noisy_unet.NoisyUNet(width=2, sides=sides), jnp.zeros((1, *shape, 3)))
  assert out.shape[:3] == (1, *(-(-n // 16) * 16 for n in shape))


@pytest.mark.parametrize("kind, smallest", [("residual18", 8), ("residual9", 8), ("regular", 16)])
def test_a_network_needs_its_coarsest_block(kind, smallest):
  of = lambda side: dict(kind=kind, max_res=side, latent_res=8, role="enc", latent_dim=8, exact_widths=False,
                         widths=(8,) * 4)
  dpa_family.check(**of(smallest))
  with pytest.raises(UserError, match=f"config.model.enc: image resolution {smallest // 2} is too small"):
    dpa_family.check(**of(smallest // 2))


@pytest.mark.parametrize("max_res, latent_res", [(12, 4), (0, 1), (16, 2), (16, 3), (32, 12)])
def test_sides_of_a_network_are_powers_of_two(max_res, latent_res):
  with pytest.raises(UserError, match=f"resolution {max_res} must be a power of two, .*={latent_res} "):
    dpa_family.check(kind="residual18", max_res=max_res, latent_res=latent_res, role="enc", latent_dim=8,
                     widths=(8,) * 4, exact_widths=False)


@pytest.mark.parametrize("res, latent_res, fits", [
    (16, 8, True), (16, 16, False), (8, 1, True), (4, 1, False), (16, 2, False), (24, 1, False),
    (32, 12, False)])
def test_the_latent_of_piads_networks_is_half_the_image_or_smaller(res, latent_res, fits):
  widths = (8,) * piad_nets.needed_widths(res, latent_res)
  said = f"config.model.enc: res={res} must be a power of two from 8"
  with contextlib.nullcontext() if fits else pytest.raises(UserError, match=said):
    piad_nets.check("enc", widths, res, latent_res)


@pytest.mark.parametrize("field", ["kind", "norm", "pad", "pool", "upsample"])
@pytest.mark.parametrize("kind", dpa_nets.KINDS)
def test_each_unknown_word_of_a_network_is_refused_alone(kind, field):
  widths = (8,) * dpa_family.needed_widths(16, 4)
  good = dict(kind=kind, max_res=16, latent_res=4, widths=widths, role="enc", latent_dim=8)
  dpa_family.check(**good)
  with pytest.raises(UserError, match=f"config.model.enc: .*{field}='x'"):
    dpa_family.check(**{**good, field: "x"})


@pytest.mark.parametrize("upsample", ["nearest", "bilinear"])
def test_a_decoder_grows_its_maps_in_the_way_that_is_asked_for(monkeypatch, upsample):
  called, ways = [], {"nearest": (dpa_nets, "nearest"), "bilinear": (dpa_nets.resample, "bilinear")}
  for word, (where, name) in ways.items():
    real = getattr(where, name)
    monkeypatch.setattr(where, name, lambda x, word=word, real=real: called.append(word) or real(x))
  net = dpa_nets.Decoder((8, 7, 5), 16, 3, latent_res=4, kind="regular", upsample=upsample)
  shapes(net, jnp.zeros((2, 4, 4, 8)))
  assert called == [upsample] * 2


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("kind", dpa_nets.KINDS)
@pytest.mark.parametrize("latent_res", [1, 4])
def test_every_norm_of_a_network_is_told_whether_it_trains(monkeypatch, kind, latent_res, train):
  told, by_name = [], norm.by_name
  monkeypatch.setattr(norm, "by_name", lambda word, *given, **more: told.append(given) or by_name(
      word, *given, **more))
  monkeypatch.setattr(norm.parallel, "pmean", lambda x, axis_name: x)
  common = dict(kind=kind, norm="bn", latent_res=latent_res)
  for net, inputs in ((dpa_nets.Decoder((8, 7, 5), 16, 3, **common), (2, latent_res, latent_res, 8)),
                      (dpa_nets.Encoder((5, 7, 8), 16, 8, max_res=16, **common), (2, 16, 16, 3))):
    told.clear()
    jax.eval_shape(lambda x, net=net: net.init(KEY, x, train=train, axis_name="devices"), jnp.zeros(inputs))
    assert told and set(told) == {(train, "devices")}, net


@pytest.mark.parametrize("kind, pad", [("regular", "zero"), ("residual9", "reflect")])
def test_a_transition_goes_from_the_network_of_half_the_side_to_the_one_of_the_whole(kind, pad):
  """At alpha 0 it is the stable network before it (behind a mean, under doubled pixels), at 1 the one after.

  A decoder's first layer pads with zeros in any case: a latent of one pixel has nothing to reflect.
  """
  image, latent = (jax.random.normal(KEY, shape) for shape in ((2, 16, 16, 3), (2, 1, 1, 5)))
  widths, more = (2, 3, 4), dict(kind=kind, pad=pad)  # of 16, 8 and 4 px
  enc = lambda res, transition=False: jax.jit(dpa_nets.Encoder(
      widths, res, 5, transition=transition, max_res=16, **more).apply)
  dec = lambda res, transition=False: jax.jit(dpa_nets.Decoder(
      widths[::-1], res, 3, transition=transition, **more).apply)
  made = jax.jit(dpa_nets.Encoder(widths, 16, 5, transition=True, max_res=16, **more).init)(KEY, image)
  near = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  low, high, mixed = enc(8)(made, pool.avg_pool2x2(image)), enc(16)(made, image), enc(16, True)
  for alpha, want in ((0.0, low), (-1.0, low), (1.0, high), (2.0, high)):
    near(mixed(made, image, alpha), want)
  assert np.abs(low - high).max() > 1e-3
  made = jax.jit(dpa_nets.Decoder(widths[::-1], 16, 3, transition=True, **more).init)(KEY, latent)
  low, high, mixed = pool.nearest(dec(8)(made, latent)), dec(16)(made, latent), dec(16, True)
  for alpha in (0.0, 0.25, 1.0):
    near(mixed(made, latent, alpha), (1 - alpha) * low + alpha * high)
