"""Networks of DPA against the public code's outputs: every optional layer kind, VGG19, mixing."""

import jax
import numpy as np
import pytest

from medae_jax.losses import perceptual as lp
from medae_jax.losses.trunk import Trunk, network_input
from medae_jax.models.layers import resample
from medae_jax.weights import vgg as vgg_weights
from medae_jax.models import vgg
from tests.golden_cases import golden_dir
from tests.parity import dpa_golden as g

# float32 convolutions summed in another order: the golden README's own figures, a little widened.
FEATURES = dict(rtol=2e-5, atol=2e-6)
OUTPUTS = dict(rtol=1e-4, atol=1e-5)


def _folder():
  return golden_dir("dpa")


@pytest.fixture(scope="module")
def variants():
  return g.read(_folder() / "forward_variants.npz")


def _variant_names():
  try:
    return sorted(g.read(_folder() / "forward_variants.npz")[1])
  except pytest.skip.Exception:
    return []


@pytest.mark.parametrize("name", _variant_names())
def test_forward_of_every_layer_kind(variants, name):
  arrays, cases = variants
  case = cases[name]
  arrays = g.sub(arrays, f"{name}/")
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
      _, want = g.dpa_torch.convert(g.sub(arrays, f"after/{n}/"), case["kind"])
      jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **OUTPUTS), want,
                   after[n]["batch_stats"])
      state[n] = {"params": state[n]["params"], "batch_stats": after[n]["batch_stats"]}
    latent, _ = apply("enc", g.nhwc(arrays["x"]), False)
    np.testing.assert_allclose(g.nchw(latent), arrays["z_eval"], **OUTPUTS)
    recon, _ = apply("dec", g.nhwc(arrays["z_eval"]), False)
    np.testing.assert_allclose(g.nchw(recon), arrays["rec_eval"], **OUTPUTS)


def test_converted_names_are_those_of_the_modules(variants):
  """What `init` makes has exactly the leaves that the golden state dicts fill."""
  arrays, cases = variants
  for name, case in cases.items():
    mine = g.sub(arrays, f"{name}/")
    enc = g.encoder(case["kind"], case["enc_inner_dims"], res=case["res"],
                    latent_res=case["latent_res"], latent_dim=case["latent_dim"],
                    kwargs=case["enc_kwargs"])
    made = enc.init(jax.random.key(0), g.nhwc(mine["x"]), train=True)
    given = g.variables(g.sub(mine, "enc/"), case["kind"])
    assert jax.tree.map(np.shape, made["params"]) == jax.tree.map(np.shape, given["params"]), name
    assert (jax.tree.map(np.shape, made.get("batch_stats", {}))
            == jax.tree.map(np.shape, given["batch_stats"])), name


def test_narrow_vgg_all_layers():
  arrays, _ = g.read(_folder() / "vgg_narrow.npz")
  trunk = g.narrow_vgg(_folder())
  image = network_input(g.nhwc(arrays["x"]))
  np.testing.assert_allclose(g.nchw(image), arrays["x_imagenet"], **FEATURES)
  found = vgg.features(trunk.params, image, vgg.LAYERS)
  assert sorted(found) == sorted(vgg.LAYERS)
  for layer, value in found.items():
    np.testing.assert_allclose(g.nchw(value), arrays[f"feat/{layer}"], err_msg=layer, **FEATURES)


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


def test_true_width_vgg_from_a_torchvision_state_dict():
  """The converter, the published statistics and the losses at true width (closed-form weights)."""
  arrays, _ = g.read(_folder() / "vgg19_full_closed_form.npz")
  tensors = closed_form_tensors()
  for key, n in (("w0", "0.weight"), ("w1", "2.weight"), ("b0", "0.bias"), ("w15", "34.weight")):
    flat = tensors[f"features.{n}"].reshape(-1)
    np.testing.assert_array_equal(flat[:8], arrays[f"check/{key}_first8"])
  np.testing.assert_array_equal(flat[-8:], arrays["check/w15_last8"])

  params = vgg_weights.from_torchvision(tensors, ["p5"])
  assert len(params) == 16
  image, recon = g.nhwc(arrays["x"]), g.nhwc(arrays["y"])
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


def test_published_statistics_are_the_golden_ones():
  arrays, _ = g.read(_folder() / "vgg19_feature_stats.npz")
  assert len(arrays) == 2 * len(vgg.LAYERS)
  stats = vgg_weights.load_stats(vgg.LAYERS)
  for layer in vgg.LAYERS:
    for part in ("mean", "std"):
      np.testing.assert_array_equal(stats[layer][part], arrays[f"{layer}_{part}"])


def test_image_of_every_stage():
  arrays, _ = g.read(_folder() / "mix_resolution.npz")
  image = g.nhwc(arrays["x"])
  for name, want in arrays.items():
    if name == "x":
      continue
    stage, res, *alpha = name.split("/")
    found = resample.mix_resolution(
        image, int(res), transition=stage == "trns", alpha=float(alpha[0][1:]) if alpha else 1.0)
    np.testing.assert_allclose(g.nchw(found), want, atol=5e-7, err_msg=name)
