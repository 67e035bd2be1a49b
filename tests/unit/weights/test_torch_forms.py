"""Forms of PyTorch files that its versions and users write: element types, byte orders, wrappers, views."""

import io
import pickle

import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.weights import inert_pickle, piad, torch_file
from tests.unit.weights import torch_files
from tests.unit.weights.torch_files import Files, View

WRITERS = {"zip": torch_files.write_zip, "stream": torch_files.write_stream}
VALUES = np.array([1.5, -2.25, 3e5], np.float32)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_element_type_keeps_its_values(tmp_path, kind):
  wanted = {"int8": [-128, 127], "uint8": [0, 255], "int16": [-2**15, 2**15 - 1], "int64": [-2**60, 2**60],
            "int32": [-2**31, 2**31 - 1], "float16": [-1.5, 6e4], "float32": [-1.5, 1e30],
            "float64": [-1.5, 1e300], "bool": [True, False], "complex64": [1 + 2j, -3j],
            "complex128": [1 + 2j, 1e300j]}
  WRITERS[kind](tmp_path / "w.pt", {name: np.array(v, name) for name, v in wanted.items()})
  found = torch_file.load(tmp_path / "w.pt")
  assert {n: str(v.dtype) for n, v in found.items()} == {n: n for n in wanted}
  for name, value in wanted.items():
    np.testing.assert_array_equal(found[name], np.array(value, name), err_msg=name)


@pytest.mark.parametrize("kind", WRITERS)
def test_files_of_a_machine_of_the_other_byte_order(tmp_path, kind):
  files = Files()
  key = files.storage(VALUES.astype(">f4"), "float32")
  codes = files.storage(np.array([0x3F80, 0xC000], ">u2"), "bfloat16")
  tree = {"w": View(key, "float32", 0, (3,), (1,)), "brain": View(codes, "bfloat16", 0, (2,), (1,))}
  if kind == "zip":
    torch_files.write_zip(tmp_path / "w.pt", tree, files, more=[("byteorder", b"big")])
  else:
    torch_files.write_stream(tmp_path / "w.pt", tree, files, big=True)
  found = torch_file.load(tmp_path / "w.pt")
  np.testing.assert_array_equal(found["w"], VALUES)
  np.testing.assert_array_equal(found["brain"], np.array([1, -2], np.float32))
  assert found["w"].dtype == np.float32


def test_a_storage_that_is_part_of_another_and_one_of_bytes(tmp_path):
  files = Files()
  key = files.storage(np.arange(12, dtype=np.float32))
  part = View(key, "float32", 2, (3,), (1,), part=(5, 6))
  torch_files.write_stream(tmp_path / "old.pt", {"w": part}, files)
  np.testing.assert_array_equal(torch_file.load(tmp_path / "old.pt")["w"], np.array([7, 8, 9], np.float32))
  files = Files()
  key = files.storage(np.arange(4, dtype=np.uint16).view(np.uint8))
  torch_files.write_zip(tmp_path / "new.pt", {"w": View(key, "uint16", 1, (3,), (1,), untyped=True)}, files)
  found = torch_file.load(tmp_path / "new.pt")["w"]
  assert found.tolist() == [1, 2, 3] and found.dtype == np.uint16


@pytest.mark.parametrize("wrap, names", [
    (lambda t: {"state_dict": {"model_state_dict": t}, "epoch": 3}, ["a", "b"]),
    (lambda t: {"model": t}, ["a", "b"]), (lambda t: {"model_weights": t}, ["a", "b"]),
    (lambda t: {"net": t}, ["net.a", "net.b"]),
    (lambda t: {f"module.{k}": v for k, v in t.items()}, ["a", "b"]),
    (lambda t: {f"_orig_mod.{k}": v for k, v in t.items()}, ["a", "b"]),
    (lambda t: {f"_orig_mod.module.{k}": v for k, v in t.items()}, ["a", "b"]),
    (lambda t: {f"module._orig_mod.{k}": v for k, v in t.items()}, ["a", "b"]),
    (lambda t: {"module.a": t["a"], "b": t["b"]}, ["module.a", "b"])])  # a name of the network itself
def test_wrappers_and_prefixes_go_where_all_names_have_them(tmp_path, wrap, names):
  torch_files.write_zip(tmp_path / "w.pt", wrap({"a": VALUES, "b": 2 * VALUES}))
  found = torch_file.load(tmp_path / "w.pt")
  assert list(found) == names
  np.testing.assert_array_equal(found[names[1]], 2 * VALUES)


def test_of_several_wrappers_that_of_the_parameters_is_read(tmp_path):
  """A checkpoint may hold its settings under `model`, too, wherever they stand in the file."""
  wrappers = ("model_state_dict", "state_dict", "model_weights", "model_state", "model")
  for i, inner in enumerate(wrappers):
    others = {name: {"lr": VALUES} for name in wrappers[i + 1:]}
    for tree in ({inner: {"a": VALUES}, **others}, {**others, inner: {"a": VALUES}}):
      torch_files.write_zip(tmp_path / "w.pt", tree)
      assert list(torch_file.load(tmp_path / "w.pt")) == ["a"]


def test_a_program_is_refused(tmp_path):
  torch_files.write_zip(tmp_path / "w.pt", {"a": VALUES}, more=[("constants.pkl", b"\x80\x02).")])
  with pytest.raises(ValueError, match="a TorchScript archive, which holds a program"):
    torch_file.load(tmp_path / "w.pt")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_are_read_as_python_reads_them(protocol):
  """Every form that pickle has for containers, and references to one that is there already."""
  shared, keys = [1.5], tuple(range(4))
  value = {"tuples": [keys[:n] for n in range(5)], "lists": [[], [1], [1, 2]], "text": "ü\n" * 200,
           "dicts": [{}, {1: "text"}, {1: 2, "text": shared}], "same": (shared, shared),
           "long": list(range(1100)),
           "numbers": [0, -1, 255, 70_000, 2**31, -2**70, 2**2100, 0.1, None, True, False]}
  if protocol >= 3:  # before, these are calls
    value |= {"bytes": b"\x00\xff" * 200}
  if protocol >= 4:
    value |= {"set": {1, 2}, "frozen": frozenset((3, 4)), "empty": set()}
  refuse = lambda *_: pytest.fail("plain data call nothing")
  file = io.BytesIO(pickle.dumps(value, protocol) + b"more")
  found = inert_pickle.run(file, refuse, refuse)
  assert found == value and found["same"][0] is found["same"][1] and file.read() == b"more"


def test_what_a_pickle_throws_away_is_not_kept():
  """POP, and all above a mark: K is a number of one byte, ( a mark, 1 POP_MARK, 0 POP, . the end."""
  refuse = lambda *_: pytest.fail("called")
  for text, found in ((b"K\x01K\x020.", 1), (b"K\x01(K\x02K\x031.", 1),
                      (b"K\x01(K\x02(K\x031t\x85.", ((2,),))):
    assert inert_pickle.run(io.BytesIO(text), refuse, refuse) == found
  for text in (b"\x86.", b"K\x01\x86.", b"K\x01K\x02a.", b"t."):  # too few, no list, no mark
    with pytest.raises((IndexError, TypeError, ValueError)):
      inert_pickle.run(io.BytesIO(text), refuse, refuse)


@pytest.mark.parametrize("name", ["modle.1.weight", "encoder.1.weight", "model.x.weight", "model.1", "model"])
def test_names_of_another_network_are_refused_as_such(name):
  """A child of the latent critic is one layer; its place among the others is its number, not its text."""
  layers = {f"model.{i}.{part}": np.full((2, 2, 1, 1) if part == "weight" else 2, i)
            for i in (9, 10) for part in ("weight", "bias")}
  body = piad.from_torch(layers, "latent")["body"]
  assert [float(body[k]["kernel"].max()) for k in ("conv0", "conv1")] == [9, 10]
  with pytest.raises(UserError, match=f"{name!r} is not a parameter of a PIAD network"):
    piad.from_torch({**layers, name: np.zeros(2)}, "latent")


@pytest.mark.parametrize("nest", [lambda tree: {"a": tree}, lambda tree: [tree], lambda tree: (tree,)])
def test_a_weight_file_is_nested_32_times_at_most(nest):
  """A tree within itself would end in no line."""
  seen, tree = [], 0.5
  for _ in range(32):
    tree = nest(tree)
  torch_file._walk(tree, lambda *given: seen.append(given))
  with pytest.raises(torch_file.Refused, match="nested too deeply"):
    torch_file._walk(nest(tree), lambda *given: seen.append(given))
  assert not seen  # a number is no tensor
