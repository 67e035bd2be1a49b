"""weights/torch_file.py: every format, strided and shared storages, and files that mean harm."""

import os
import pickle
import struct
import types
import zipfile

import numpy as np
import pytest

from medae_jax.weights import npz_file, torch_file
from tests.unit.weights import torch_files
from tests.unit.weights.torch_files import Call, Files, Name, View

WRITERS = {"zip": torch_files.write_zip, "stream": torch_files.write_stream}


def arrays(seed=0):
  rng = np.random.default_rng(seed)
  return {"conv.weight": rng.normal(size=(3, 2, 3, 3)).astype(np.float32),
          "conv.bias": rng.normal(size=3), "half": rng.normal(size=(2, 2)).astype(np.float16),
          "count": np.array(7, np.int64), "flags": np.array([True, False]),
          "empty": np.zeros((0, 4), np.float32)}


def assert_same(got, want):
  assert list(got) == list(want)
  for name, value in want.items():
    assert got[name].dtype == value.dtype and got[name].shape == value.shape, name
    np.testing.assert_array_equal(got[name], value, err_msg=name)


@pytest.mark.parametrize("kind", WRITERS)
def test_state_dict(tmp_path, kind):
  WRITERS[kind](tmp_path / "w.pt", arrays())
  assert_same(torch_file.load(tmp_path / "w.pt"), arrays())


@pytest.mark.parametrize("kind", WRITERS)
def test_strided_shared_and_bfloat16(tmp_path, kind):
  files = Files()
  base = np.arange(24, dtype=np.float32)
  key = files.storage(base)
  codes = files.storage(np.array([0x3F80, 0xC000, 0x7F80], np.uint16), "bfloat16")
  tree = {"transposed": View(key, "float32", 0, (6, 4), (1, 6)),
          "window": View(key, "float32", 7, (2, 3), (6, 1), parameter=True),
          "expanded": View(key, "float32", 5, (3, 2), (0, 0)),
          "brain": View(codes, "bfloat16", 0, (3,), (1,))}
  WRITERS[kind](tmp_path / "w.pth", tree, files)
  got = torch_file.load(tmp_path / "w.pth")
  np.testing.assert_array_equal(got["transposed"], base.reshape(4, 6).T)
  np.testing.assert_array_equal(got["window"], base.reshape(4, 6)[1:3, 1:4])
  np.testing.assert_array_equal(got["expanded"], np.full((3, 2), 5, np.float32))
  np.testing.assert_array_equal(got["brain"], np.array([1, -2, np.inf], np.float32))
  assert all(a.flags.c_contiguous and a.flags.writeable for a in got.values())


@pytest.mark.parametrize("kind", WRITERS)
def test_checkpoint_of_the_reference(tmp_path, kind):
  # The DAE reference stores a class and the optimiser beside the weights, and `value` is NumPy's.
  scalar = Call("numpy.core.multiarray", "scalar", Call("numpy", "dtype", "f8", False, True), "x")
  tree = {"epoch_no": 3, "train_it": 96, "value": scalar, "model_class": Name("unet", "UNet"),
          "optimiser_state_dict": {"state": {0: {"exp_avg": np.ones(3, np.float32)}}},
          "model_state_dict": {"module." + k: v for k, v in arrays().items()}}
  WRITERS[kind](tmp_path / "model.pt", tree)
  assert_same(torch_file.load(tmp_path / "model.pt"), arrays())


def test_nested_pairs_and_keep(tmp_path):
  # The published VGG statistics: layer -> (mean, deviation).
  pair = (np.zeros((1, 2, 1, 1), np.float32), np.ones((1, 2, 1, 1), np.float32))
  torch_files.write_stream(tmp_path / "s.pt", {"c11": pair, "r11": pair})
  assert list(torch_file.load(tmp_path / "s.pt")) == ["c11.0", "c11.1", "r11.0", "r11.1"]
  kept = torch_file.load(tmp_path / "s.pt", keep=lambda name: name.startswith("r11"))
  assert list(kept) == ["r11.0", "r11.1"]


def test_kept_tensors_alone_are_read(tmp_path):
  torch_files.write_zip(tmp_path / "w.pt", arrays())
  with zipfile.ZipFile(tmp_path / "w.pt") as old, zipfile.ZipFile(tmp_path / "cut.pt", "w") as new:
    for name in old.namelist():
      if name != "archive/data/0":  # the storage of conv.weight
        new.writestr(name, old.read(name))
  assert "conv.bias" in torch_file.load(tmp_path / "cut.pt", keep=lambda n: n != "conv.weight")
  with pytest.raises(ValueError, match="damaged or cut short"):
    torch_file.load(tmp_path / "cut.pt")


def test_safetensors_and_npz(tmp_path):
  import ml_dtypes
  import safetensors.numpy
  plain = dict(arrays())
  np.savez(tmp_path / "w.npz", **{"module." + k: v for k, v in plain.items()})
  assert_same(torch_file.load(tmp_path / "w.npz"), plain)
  safetensors.numpy.save_file({**plain, "brain": np.ones(2, ml_dtypes.bfloat16)},
                              tmp_path / "w.safetensors")
  got = torch_file.load(tmp_path / "w.safetensors")
  assert got.pop("brain").dtype == np.float32
  assert_same({k: got[k] for k in plain}, plain)


# ----------------------------------------------------------------------------- hostile and broken
class Payload:
  """Pickles into a call of os.system, as a hostile weight file would."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_payload_is_refused_and_not_run(tmp_path, protocol):
  bad, trace = pickle.dumps({"w": Payload(tmp_path / "trace")}, protocol), tmp_path / "trace"
  pickle.loads(bad)
  assert trace.exists()  # the payload works where somebody unpickles it
  trace.unlink()
  with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
    archive.writestr("archive/data.pkl", bad)
  with pytest.raises(ValueError, match=r"refused: it asks to call (posix|nt|os)\.system") as e:
    torch_file.load(tmp_path / "bad.pt")
  assert "\n" not in str(e.value) and not trace.exists()
  head = Files()
  (tmp_path / "bad.pth").write_bytes(
      head.pickle(torch_file._MAGIC) + head.pickle(1001) + head.pickle({}) + bad)
  with pytest.raises(ValueError, match=r"\.system"):
    torch_file.load(tmp_path / "bad.pth")
  assert not trace.exists()


@pytest.mark.parametrize("code, match", [
    (b"\x80\x02cbuiltins\neval\n(X\x01\x00\x00\x001tR.", "builtins.eval"),
    (b"\x80\x02cos\nsystem\n)\x81.", "os.system"),  # NEWOBJ
    (b"(S'ls'\nios\nsystem\n.", "INST"),
    (b"\x80\x02(cos\nsystem\nX\x02\x00\x00\x00lso.", "OBJ"),
    (b"\x80\x02\x82\x01.", "EXT1"),
    (b"\x80\x02cos\nsystem\n}X\x01\x00\x00\x00aK\x01sb.", "set the state"),
    (b"\x80\x02(X\x01\x00\x00\x00atQ.", "persistent id"),
])
def test_every_way_of_acting_is_refused(tmp_path, code, match):
  with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
    archive.writestr("archive/data.pkl", code)
  with pytest.raises(ValueError, match=match):
    torch_file.load(tmp_path / "bad.pt")


def test_sharing_bomb_ends_soon(tmp_path):
  # d1 = [d0, d0], d2 = [d1, d1], ...: 2^40 leaves in a few hundred bytes
  code = b"\x80\x02]q\x00" + b"".join(
      b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(40)) + b"."
  with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
    archive.writestr("archive/data.pkl", code)
  with pytest.raises(ValueError, match="nested too deeply"):
    torch_file.load(tmp_path / "bad.pt")


@pytest.mark.parametrize("view, match", [
    (("0", "float32", 0, (25,), (1,)), "reaches beyond its storage"),
    (("0", "float32", 20, (2, 3), (4, 1)), "reaches beyond its storage"),
    (("0", "float32", -4, (2,), (1,)), "impossible"),
    (("0", "float32", 0, (2,), (-1,)), "impossible"),
    (("0", "float32", 0, (2**20, 2**10), (0, 0)), "far larger than its storage"),
])
def test_impossible_views(tmp_path, view, match):
  files = Files()
  files.storage(np.arange(24, dtype=np.float32))
  torch_files.write_zip(tmp_path / "w.pt", {"w": View(*view)}, files)
  with pytest.raises(ValueError, match=match):
    torch_file.load(tmp_path / "w.pt")


@pytest.mark.parametrize("kind", WRITERS)
def test_truncated_anywhere_is_one_line(tmp_path, kind):
  WRITERS[kind](tmp_path / "w.pt", arrays())
  whole = (tmp_path / "w.pt").read_bytes()
  for cut in range(0, len(whole), max(1, len(whole) // 60)):
    (tmp_path / "cut.pt").write_bytes(whole[:cut])
    with pytest.raises(ValueError) as e:
      torch_file.load(tmp_path / "cut.pt")
    assert "cut.pt" in str(e.value) and "\n" not in str(e.value)


def test_other_files(tmp_path):
  with pytest.raises(FileNotFoundError, match="no weight file at"):
    torch_file.load(tmp_path / "none.pt")
  (tmp_path / "text.pt").write_text("<html>404</html>")
  with pytest.raises(ValueError, match="not a PyTorch"):
    torch_file.load(tmp_path / "text.pt")
  (tmp_path / "bare.pt").write_bytes(pickle.dumps({"w": 1}, 2))
  with pytest.raises(ValueError, match="bare pickle"):
    torch_file.load(tmp_path / "bare.pt")
  torch_files.write_zip(tmp_path / "deflated.pt", arrays(), compression=zipfile.ZIP_DEFLATED)
  with pytest.raises(ValueError, match="compressed"):
    torch_file.load(tmp_path / "deflated.pt")
  torch_files.write_zip(tmp_path / "no.pt", {"epoch": 3})
  with pytest.raises(ValueError, match="holds no tensor"):
    torch_file.load(tmp_path / "no.pt")
  np.savez(tmp_path / "objects.npz", w=np.array([{}], dtype=object))
  with pytest.raises(ValueError, match="allow_pickle"):
    torch_file.load(tmp_path / "objects.npz")
  (tmp_path / "huge.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{" + b" " * 20)
  with pytest.raises(ValueError, match="damaged"):
    torch_file.load(tmp_path / "huge.safetensors")


@pytest.mark.parametrize("new", [True, False])
def test_files_of_the_real_torch(tmp_path, new):
  torch = pytest.importorskip("torch")
  net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
  adam = torch.optim.Adam(net.parameters(), amsgrad=True)
  net(torch.randn(1, 2, 5, 5)).sum().backward()
  adam.step()
  base = torch.arange(12.).reshape(3, 4)
  extra = {"t": base.T, "row": base[1], "bf16": base.bfloat16(), "half": base.half(),
           "p": torch.nn.Parameter(base)}
  torch.save({"model_state_dict": {**net.state_dict(), **extra}, "model_class": torch.nn.Linear,
              "optimiser_state_dict": adam.state_dict(), "value": np.float64(0.5)},
             tmp_path / "w.pt", _use_new_zipfile_serialization=new)
  got = torch_file.load(tmp_path / "w.pt")
  want = {**net.state_dict(), **extra}
  assert list(got) == list(want)
  for name, value in want.items():
    value = value.detach().float().numpy() if value.is_floating_point() else value.numpy()
    np.testing.assert_array_equal(got[name], value, err_msg=name)


def test_an_npz_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(npz_file, "MAX_PLAIN", 1 << 16)
  np.savez_compressed(tmp_path / "bomb.npz", w=np.zeros(1 << 18, np.float32))
  with pytest.raises(ValueError, match=r"bomb.npz: its array w.npy grows from [\d,]+ to 1,048,7"):
    torch_file.load(tmp_path / "bomb.npz")
  np.savez_compressed(tmp_path / "fine.npz", w=np.random.default_rng(0).normal(size=1 << 15))
  assert torch_file.load(tmp_path / "fine.npz")["w"].shape == (1 << 15,)
  header = {"descr": "<f4", "fortran_order": False, "shape": (10**13,)}
  with zipfile.ZipFile(tmp_path / "claim.npz", "w") as archive, archive.open("w.npy", "w") as member:
    np.lib.format.write_array_header_1_0(member, header)
    member.write(b"\0" * 64)
  with pytest.raises(ValueError, match=r"claim.npz: its array w.npy claims 10,000,000,000,000 values"):
    torch_file.load(tmp_path / "claim.npz")


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("kind", ["zip", "stream", "npz", "safetensors"])
def test_every_form_is_read_without_wrappers_of_names_and_only_as_far_as_asked(tmp_path, kind, prefix):
  import safetensors.numpy
  plain = {k: v for k, v in arrays().items() if v.size}
  given, path = {prefix + k: v for k, v in plain.items()}, tmp_path / "w"
  if kind == "npz":
    with open(path, "wb") as file:
      np.savez(file, **given)
  else:
    {**WRITERS, "safetensors": lambda path, tree: safetensors.numpy.save_file(tree, path)}[kind](path, given)
  assert set(torch_file.load(path)) == set(plain)
  found = torch_file.load(path, lambda name: name.startswith("conv."))
  assert set(found) == {"conv.weight", "conv.bias"}
  np.testing.assert_array_equal(found["conv.weight"], plain["conv.weight"])


@pytest.mark.parametrize("size, stored, fine", [
    (64 << 20, 1, True), (65 << 20, 1 << 20, False), (65 << 20, 4 << 20, True), (1 << 40, 1 << 30, False)])
def test_beyond_64_mib_an_array_may_have_shrunk_to_a_twentieth(size, stored, fine):
  """By sizes alone: what is fine goes on to its header, of which there is none here."""
  info = types.SimpleNamespace(file_size=size, compress_size=stored, filename="w.npy")
  with pytest.raises(AttributeError if fine else npz_file.Refused, match="open" if fine else "grows from"):
    npz_file._check(None, info)
