"""Rows of a published kernel stay rows, whatever it is read from: squares do not tell by their shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.models import annotation_nets, noisy_unet
from medae_jax.weights import (
  annotation,
  batch_norm,
  conv_ae,
  dae,
  dpa,
  noisy_annotation,
  piad,
  torch_file,
  trunks,
  vgg,
)
from medae_jax.weights.autoencoders import names, sizes
from medae_jax.weights.known import catalogue

PLAIN = lambda w: np.einsum("oiyx->yxio", w)             # [O,I,k,k] -> [k,k,I,O]
UP = lambda w: np.einsum("ioyx->iyxo", w)                # transposed 2x2 -> [I,2,2,O]
TURNED = lambda w: np.einsum("ioyx->yxio", w)[::-1, ::-1]  # transposed, correlated with the dilated input


def distinct(*shape):
  size = int(np.prod(shape))
  return np.random.default_rng(size).permutation(np.arange(size, dtype=np.float32)).reshape(shape)


def dae_file():
  def block(prefix, i, o):
    return {f"{prefix}.{at}.{part}": distinct(*shape) for at, kernel in ((1, (o, i, 3, 3)), (3, (o,)),
                                                                         (5, (o, o, 3, 3)), (7, (o,)))
            for part, shape in (("weight", kernel), ("bias", (o,)))}
  return {**block("down_path.0.block", 3, 2), **block("down_path.1.block", 2, 4),
          **block("up_path.0.conv_block.block", 4, 2), "up_path.0.up.weight": distinct(4, 2, 2, 2),
          "up_path.0.up.bias": distinct(2), "last.weight": distinct(3, 2, 1, 1), "last.bias": distinct(3)}


def noisy_file():
  shapes = jax.eval_shape(noisy_unet.NoisyUNet(width=2).init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
  found = {}
  for theirs, ours in noisy_annotation.layer_names():
    shape = shapes["params"][ours]["kernel"].shape
    order = (0, 3, 1, 2) if ours.endswith("_up") else (3, 2, 0, 1)
    found[f"{theirs}.weight"] = distinct(*(shape[i] for i in order))
    found[f"{theirs}.bias"] = distinct(shape[-1])
  return found


def annotation_trees():
  net = annotation_nets.Autoencoder(2, 3)
  return jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 8, 8, 2)))["params"]


def annotation_file(**more):
  found = {}
  for layer, parts in annotation_trees().items():
    shape, up = parts["kernel"].shape, layer.startswith("decoder")
    name = layer.replace("_", ".")
    found[f"{name}.weight"] = distinct(*(shape[i] for i in ((0, 3, 1, 2) if up else (3, 2, 0, 1))))
    found[f"{name}.bias"] = distinct(shape[-1])
  return {**found, **more}


def read_annotation(tensors):
  return annotation.from_reference("autoencoder", tensors, annotation_trees(), {})


VAE = {"encoder.start.conv.weight": distinct(2, 3, 4, 4), "encoder.middle_blocks.0.conv.weight":
       distinct(5, 2, 4, 4), "decoder.middle_blocks.0.conv.weight": distinct(5, 2, 4, 4)}
ONE = {"weight": distinct(2, 3, 3, 3), "bias": distinct(2)}
READERS = {
    "dae": (dae_file(), lambda t: dae.from_torch(t, 2), lambda n: UP if ".up." in n else PLAIN),
    "noisy": (noisy_file(), noisy_annotation.from_torch,
              lambda n: UP if n.startswith("center.4") or ".layer.4" in n else PLAIN),
    "annotation": (annotation_file(), read_annotation, lambda n: UP if n.startswith("decoder") else PLAIN),
    "vae": (VAE, lambda t: names.from_torch(t, names.VAE, ("dec",)),
            lambda n: TURNED if n.startswith("decoder") else PLAIN),
    "chest": ({"encoder.conv__encode_0.weight": distinct(2, 3, 5, 5)},
              lambda t: conv_ae.from_torch(t, nets=("enc",)), lambda n: PLAIN),
    "dpa residual": ({f"res_16.0.{k}": v for k, v in ONE.items()}, lambda t: dpa.convert(t, "residual9"),
                     lambda n: PLAIN),
    "dpa regular": ({f"res_16.model.0.{k}": v for k, v in ONE.items()}, lambda t: dpa.convert(t, "regular"),
                    lambda n: PLAIN),
    "piad": ({f"model.0.conv.{k}": v for k, v in ONE.items()}, lambda t: piad.from_torch(t, "latent"),
             lambda n: PLAIN),
    "vgg19": ({f"features.0.{k}": v for k, v in ONE.items()}, lambda t: vgg.from_torchvision(t, ("r11",)),
              lambda n: PLAIN),
    "folded": ({"weight": ONE["weight"]}, lambda t: batch_norm.layer(t["weight"], ONE["bias"]),
               lambda n: PLAIN)}


@pytest.mark.parametrize("reader", READERS)
def test_every_kernel_is_the_published_one_tap_by_tap(reader):
  tensors, read, form = READERS[reader]
  leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(read(tensors))]
  kernels = {name: value for name, value in tensors.items() if value.ndim == 4 and value.shape[-1] > 1}
  assert kernels
  for name, value in kernels.items():
    wanted = form(name)(value)
    assert any(np.array_equal(leaf, wanted) for leaf in leaves), name


# ------------------------------------------------------------------------- what a file's names reveal
def test_a_checkpoint_has_the_tensors_of_its_network_and_no_others():
  read_annotation(annotation_file(**{"encoder.0.num_batches_tracked": np.array(3)}))
  with pytest.raises(UserError, match="tensors that a autoencoder of this config.model does not: zz.weight"):
    read_annotation(annotation_file(**{"zz.weight": distinct(2)}))
  with pytest.raises(UserError, match="no tensor 'latent.2.bias'"):
    read_annotation({k: v for k, v in annotation_file().items() if k != "latent.2.bias"})


@pytest.mark.parametrize("more, bilinear", [({"up1.up.weight": distinct(4, 2, 2, 2)}, False), ({}, True)])
def test_a_unet_without_transposed_convolutions_is_bilinear(more, bilinear):
  found = annotation.fields({"inc.double_conv.0.weight": distinct(8, 3, 3, 3), **more})
  assert (found["model.bilinear"], found["model.width"], found["data.channels"]) == (bilinear, 8, 3)


def test_layers_are_counted_as_numbers():
  """The eleventh stands after the tenth, and not beside the first."""
  assert names._place("encoder.middle_blocks.10.conv", names.VAE) == ("enc", "conv11")
  tensors = {f"encoder.{i}.weight": 0 for i in range(0, 13, 2)} | {f"decoder.{i}.weight": 0 for i in (
      0, 3, 5, 7, 9, 11)}
  place = lambda layer: "/".join(names._place(layer, names.beta_rules(tensors)))
  assert [place(f"encoder.{i}") for i in range(0, 13, 2)] == [
      "enc/conv0", "enc/conv1", "enc/conv2", "enc/conv3", "enc/conv4", "enc/to_vector", "enc/linear"]
  assert [place(f"decoder.{i}") for i in (0, 3, 5, 7, 9, 11)] == [
      "dec/linear", "dec/from_vector", "dec/conv0", "dec/conv1", "dec/conv2", "dec/last"]


@pytest.mark.parametrize("width, told", [(256, False), (257, True)])
def test_blocks_of_equal_widths_tell_how_widths_were_compared_above_256_alone(width, told):
  shape = lambda *s: np.broadcast_to(np.float32(0), s)
  block = lambda o, i: {"conv1": shape(o, i, 3, 3)}
  tensors = {"encoder.main.0.weight": shape(width, 1, 5, 5), "decoder.fc.0.weight": shape(9, 7)}
  for side, (o, i) in ((8, (width, width)), (4, (width, width))):
    tensors[f"encoder.main.res_in_{side}.conv1.weight"] = block(o, i)["conv1"]
  assert ("model.skip_by_identity" in sizes.soft_intro(tensors)) == told


def test_a_storage_is_read_anew_for_each_of_its_types():
  data, cache = np.array([1.5, -2.0], "<f4").tobytes(), {}
  read = lambda kind: torch_file._array("a", torch_file.Tensor(
      torch_file.Storage(kind, "0", 0, 2), 0, (2,), (1,)), lambda key: data, "<", cache)
  assert read("f4").tolist() == [1.5, -2.0] and read("i4").tolist() == [0x3FC00000, -0x40000000]
  assert read("f4").dtype == np.float32


def test_files_are_known_in_folders_of_any_system():
  file = catalogue.by_name("vgg16").file
  places = [f"a/models/{file}", f"a\\models\\{file}", file, f"a/{file}/other"]
  assert [name for _, name in catalogue.inside(places)] == places[:3]


def test_of_a_trunk_the_layers_up_to_the_deepest_are_kept():
  trunk = trunks.Source({"vgg_weights": "random:0", "vgg_widths": (2, 2, 2, 2, 2)})
  params = trunk.load(("r31",))
  for layers, wanted in ((("r11",), ["conv1_1"]),
                         (("c12", "r22"), ["conv1_1", "conv1_2", "conv2_1", "conv2_2"])):
    assert list(trunk.cut(params, layers)) == wanted


@pytest.mark.parametrize("trunk", ["vgg19", "vgg16", "efficientnet_lite0", "inception_resnet_v2"])
def test_statistics_of_natural_images_are_vgg16_s(trunk):
  source = trunks.Source({"trunk": trunk, "vgg_weights": "a.npz", "vgg_widths": ()})
  if trunk == "vgg16":
    source.check_stats("natural")
  else:
    with pytest.raises(UserError, match="are statistics of VGG16"):
      source.check_stats("natural")


@pytest.mark.parametrize("name, refused", [("vgg16", False), (catalogue.by_name("vgg16").file, True),
                                           ("mine.npz", False)])
def test_a_file_that_bears_the_name_of_a_network_claims_no_origin(tmp_path, name, refused):
  (tmp_path / name).write_bytes(b"one's own")
  if refused:
    with pytest.raises(UserError, match="is not the published"):
      catalogue.verified(tmp_path / name)
  else:
    assert len(catalogue.verified(tmp_path / name)) == 64
