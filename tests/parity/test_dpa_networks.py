"""Networks of DPA against the public code's outputs: every optional layer kind, VGG19, mixing."""

import json
import re

import jax
import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.losses import perceptual as lp
from medae_jax.losses.trunk import Trunk, network_input
from medae_jax.models import vgg
from medae_jax.models.layers import resample
from medae_jax.weights import vgg as vgg_weights
from tests.golden_cases import file_cases
from tests.parity import dpa_golden as g

COMPILED_FAST = True  # LLVM's passes take longer than the few steps

# float32 convolutions summed in another order: the golden README's own figures, a little widened.
OUTPUTS = dict(rtol=1e-4, atol=1e-5)


def _files(pattern):
  return pytest.mark.parametrize("file", file_cases("dpa", pattern))


def _variants():
  """(file, name of the network in it)."""
  found = []
  for param in file_cases("dpa", "forward_variants*.npz"):
    file = param.values[0]
    names = sorted(json.loads(file.with_suffix(".json").read_text())) if file else [None]
    found += [pytest.param((file, name), marks=param.marks, id=f"{param.id}-{name}")
              for name in names]
  return found


@pytest.fixture(params=_variants())
def variant(request):
  """(arrays, what the file says) of one network."""
  file, name = request.param
  arrays, cases = g.read(file)
  return g.sub(arrays, f"{name}/"), cases[name]


def test_forward_of_every_layer_kind(variant):
  arrays, case = variant
  enc = g.encoder(case["kind"], case["enc_inner_dims"], res=case["res"],
                  latent_res=case["latent_res"], latent_dim=case["latent_dim"],
                  kwargs=case["enc_kwargs"])
  dec = g.decoder(case["kind"], case["dec_inner_dims"], res=case["res"],
                  latent_res=case["latent_res"], channels=case["image_dim"],
                  kwargs=case["dec_kwargs"])
  nets = {"enc": enc, "dec": dec}
  state = {n: g.variables(g.sub(arrays, f"{n}/"), case["kind"]) for n in nets}
  apply = lambda n, x, train: nets[n].apply(state[n], x, train=train, mutable=["batch_stats"])

  latent, enc_after = apply("enc", g.nhwc(arrays["x"]), True)
  np.testing.assert_allclose(g.nchw(latent), arrays["z_train"], **OUTPUTS)
  recon, dec_after = apply("dec", g.nhwc(arrays["z_train"]), True)
  np.testing.assert_allclose(g.nchw(recon), arrays["rec_train"], **OUTPUTS)

  after = {"enc": enc_after, "dec": dec_after}
  if "z_eval" in arrays:
    for n in nets:
      # Statistics alone do not tell the regular family which convolution they follow.
      everything = {**g.sub(arrays, f"{n}/"), **g.sub(arrays, f"after/{n}/")}
      _, want = g.dpa_torch.convert(everything, case["kind"])
      jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **OUTPUTS), want,
                   after[n]["batch_stats"])
      state[n] = {"params": state[n]["params"], "batch_stats": after[n]["batch_stats"]}
    latent, _ = apply("enc", g.nhwc(arrays["x"]), False)
    np.testing.assert_allclose(g.nchw(latent), arrays["z_eval"], **OUTPUTS)
    recon, _ = apply("dec", g.nhwc(arrays["z_eval"]), False)
    np.testing.assert_allclose(g.nchw(recon), arrays["rec_eval"], **OUTPUTS)


def test_converted_names_are_those_of_the_modules(variant):
  """What `init` makes has exactly the leaves that the golden state dicts fill."""
  arrays, case = variant
  enc = g.encoder(case["kind"], case["enc_inner_dims"], res=case["res"],
                  latent_res=case["latent_res"], latent_dim=case["latent_dim"],
                  kwargs=case["enc_kwargs"])
  made = jax.eval_shape(lambda x: enc.init(jax.random.key(0), x, train=True), g.nhwc(arrays["x"]))
  given = g.variables(g.sub(arrays, "enc/"), case["kind"])
  shapes = lambda tree: jax.tree.map(np.shape, tree)
  assert shapes(made["params"]) == shapes(given["params"])
  assert shapes(made.get("batch_stats", {})) == shapes(given["batch_stats"])


@pytest.mark.parametrize("net", ["enc", "dec"])
def test_a_network_says_its_padding_and_whether_it_normalises(variant, net):
  """By the places of its convolutions; of the regular family, padding alone."""
  arrays, case = variant
  own, kwargs = g.sub(arrays, f"{net}/"), case[f"{net}_kwargs"]
  norm, pad = kwargs.get("norm", "none"), kwargs.get("pad_type", "zero")
  g.dpa_torch.check_form(own, case["kind"], norm, pad, net)
  with pytest.raises(UserError, match=f"{net} was built with {pad} padding"):
    g.dpa_torch.check_form(own, case["kind"], norm, {"zero": "reflect", "reflect": "zero"}[pad], net)
  if case["kind"] != "regular":
    with pytest.raises(UserError, match=f"built {'without' if norm == 'none' else 'with'} normalisation"):
      g.dpa_torch.check_form(own, case["kind"], "pixel" if norm == "none" else "none", pad, net)


@_files("vgg_narrow.npz")
def test_narrow_vgg_all_layers(file):
  arrays, _ = g.read(file)
  trunk = g.narrow_vgg(file.parent)
  image = network_input(g.nhwc(arrays["x"]))
  np.testing.assert_allclose(g.nchw(image), arrays["x_imagenet"], rtol=2e-5, atol=2e-6)
  found = vgg.features(trunk.params, image, vgg.LAYERS)
  assert sorted(found) == sorted(vgg.LAYERS)
  for layer, want in g.sub(arrays, "feat/").items():
    np.testing.assert_allclose(g.nchw(found[layer])[:len(want)], want, err_msg=layer, rtol=2e-5,
                               atol=2e-6 * max(1, np.abs(want).max()))


def closed_form_tensors():
  """torchvision-named VGG19 tensors of true width, filled by the golden README's hash."""
  tensors, channels = {}, 3
  for l, ((b, _), n) in enumerate(zip(vgg.CONVS, vgg_weights.TORCH_INDEX)):
    width = vgg.WIDTHS[b - 1]
    for q, (part, shape) in enumerate((("weight", (width, channels, 3, 3)), ("bias", (width,)))):
      k = np.arange(np.prod(shape), dtype=np.uint64)
      h = (k + 0x9E3779B9 * (2 * l + q + 1)) % 2**32
      h ^= h >> np.uint64(16)
      h = h * 0x85EBCA6B % 2**32
      h ^= h >> np.uint64(13)
      h = h * 0xC2B2AE35 % 2**32
      h ^= h >> np.uint64(16)
      u = h.astype(np.float64) / 2**31 - 1
      value = u * np.sqrt(6 / (9 * channels)) if q == 0 else 0.05 * u
      tensors[f"features.{n}.{part}"] = value.astype(np.float32).reshape(shape)
    channels = width
  tensors["classifier.0.weight"] = np.zeros((2, 2), np.float32)  # must be ignored
  return tensors


@_files("vgg19_full_closed_form*.npz")
def test_true_width_vgg_from_a_torchvision_state_dict(file):
  """The converter, the published statistics and the losses at true width (closed-form weights)."""
  arrays, _ = g.read(file)
  tensors = closed_form_tensors()
  for key, want in g.sub(arrays, "check/").items():  # e.g. "w15_last8": convolution 15, its end
    part, conv, end = re.fullmatch(r"([wb])(\d+)_(first|last)\d+", key).groups()
    name = f"features.{vgg_weights.TORCH_INDEX[int(conv)]}.{'weight' if part == 'w' else 'bias'}"
    flat = tensors[name].reshape(-1)
    np.testing.assert_array_equal(flat[:want.size] if end == "first" else flat[-want.size:], want)

  params = vgg_weights.from_torchvision(tensors, ["p5"])
  assert len(params) == 16
  image, recon = g.nhwc(arrays["x"]), g.nhwc(arrays["y"])
  assert any(k.startswith(("feat_x", "relpercL1/", "perc_plain/")) for k in arrays)
  for kind, reduce in (("chmean", lambda f: f.mean((1, 2))), ("chstd", lambda f: f.std((1, 2)))):
    wanted = g.sub(arrays, f"feat_x_{kind}/")
    found = vgg.features(params, network_input(image), wanted)
    for layer, want in wanted.items():
      np.testing.assert_allclose(reduce(np.asarray(found[layer])), want, rtol=1e-4, atol=1e-5,
                                 err_msg=f"{kind} {layer}")
  for layer, want in g.sub(arrays, "feat_x/").items():
    found = vgg.features(params, network_input(image[:len(want)]), [layer])[layer]
    np.testing.assert_allclose(g.nchw(found), want, rtol=1e-4, atol=1e-5, err_msg=layer)
  for name, want in g.sub(arrays, "relpercL1/").items():
    layers = name.split("+")
    trunk = Trunk(vgg.features, params, vgg_weights.load_stats(layers))
    term = lp.parse("relative_perceptual_L1", layers={0: dict.fromkeys(layers, 1.0)})
    np.testing.assert_allclose(lp.per_image(term, trunk, image, recon), want, rtol=2e-5,
                               err_msg=name)
  for layer, want in g.sub(arrays, "perc_plain/").items():
    term = lp.parse("perceptual", layers={0: {layer: 1.0}})
    np.testing.assert_allclose(lp.per_image(term, Trunk(vgg.features, params, {}), image, recon), want,
                               rtol=2e-5, err_msg=layer)


@_files("vgg19_feature_stats.npz")
def test_published_statistics_are_the_golden_ones(file):
  arrays, _ = g.read(file)
  assert len(arrays) == 2 * len(vgg.LAYERS)
  stats = vgg_weights.load_stats(vgg.LAYERS)
  for layer in vgg.LAYERS:
    for part in ("mean", "std"):
      np.testing.assert_array_equal(stats[layer][part], arrays[f"{layer}_{part}"])


@_files("mix_resolution*.npz")
def test_image_of_every_stage(file):
  arrays, _ = g.read(file)
  image = g.nhwc(arrays["x"])
  for name, want in arrays.items():
    if name == "x":
      continue
    stage, res, *alpha = name.split("/")
    found = resample.mix_resolution(
        image, int(res), transition=stage == "trns", alpha=float(alpha[0][1:]) if alpha else 1.0)
    np.testing.assert_allclose(g.nchw(found), want, atol=5e-7, err_msg=name)
