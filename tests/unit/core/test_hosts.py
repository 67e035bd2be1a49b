"""Work that processes share: threads stand in for them here; real ones: tests/contract/test_devices.py."""

from concurrent.futures import ThreadPoolExecutor
import threading
import types

import jax
import ml_collections
import numpy as np
import pytest

from medae_jax import cli
from medae_jax.core import checkpoint, config as config_lib, parallel
from medae_jax.core.device import hosts
from medae_jax.core.errors import UserError
from medae_jax.tasks import external


@pytest.fixture(name="together")
def together_fixture(monkeypatch):
  """(n, function) -> what it returns, or its exception, in each of n processes."""
  own, barrier, sent = threading.local(), None, {}

  def gather(data):
    sent[own.index] = data
    barrier.wait(10)
    found = [sent[i] for i in range(len(sent))]
    barrier.wait(10)
    return found

  def run(n, function):
    nonlocal barrier
    barrier = threading.Barrier(n)
    monkeypatch.setattr(hosts, "gather_bytes", gather)
    monkeypatch.setattr(hosts, "jax", types.SimpleNamespace(
        tree=jax.tree, process_count=lambda: n, process_index=lambda: own.index))

    def one(index):
      own.index = index
      try:
        return function()
      except Exception as error:
        return error
    with ThreadPoolExecutor(n) as pool:
      return list(pool.map(one, range(n)))
  return run


def piece(number):
  """Sizes may differ; no type and no bit may be lost."""
  batch = {"image": np.full((2, number + 1), number / 3, np.float16), "position": np.array([2**40 + number])}
  return batch, (np.array([number == 1]), np.float32(np.nan))


@pytest.mark.parametrize("processes,pieces", [(2, 5), (3, 2), (2, 4), (1, 3), (2, 0)])
def test_all_get_every_piece_in_order_and_each_is_made_once(together, processes, pieces):
  made = []

  def results():
    for number in hosts.own_pieces(pieces):
      made.append(number)
      yield piece(number)
  for found in together(processes, lambda: list(hosts.shared(pieces, results()))):
    assert len(found) == pieces
    for number, (a, b) in enumerate(zip(found, map(piece, range(pieces)))):
      assert jax.tree.structure(a) == jax.tree.structure(b), number
      for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)
  assert set(made) == set(range(pieces)) and len(made) < pieces + processes


@pytest.mark.parametrize("error,said", [(UserError("slice.png is damaged"), "slice.png is damaged"),
                                        (KeyError("mask"), "KeyError: 'mask'")])
def test_what_stops_one_stops_all(together, error, said):
  def results():
    yield piece(0)
    if hosts.jax.process_index():
      raise error
    yield piece(2)
  first, second = together(2, lambda: list(hosts.shared(4, results())))
  assert isinstance(first, UserError) and str(first) == f"process 1 of 2: {said}" and second is error


def test_a_device_that_fails_when_it_is_asked_stops_all(together):
  class Broken:
    def __array__(self, dtype=None, copy=None):
      raise RuntimeError("RESOURCE_EXHAUSTED")
  first, second = together(2, lambda: hosts.exchange(
      Broken() if hosts.jax.process_index() else np.zeros(1)))
  assert "RESOURCE_EXHAUSTED" in str(first) and isinstance(second, RuntimeError)


@pytest.mark.parametrize("processes", [1, 2])
def test_what_stops_the_first_alone_is_heard_by_all(together, processes):
  """A full disk, say, of the process that writes: the others waited in their next exchange."""
  def write(fails):
    with hosts.heard():
      if not hosts.jax.process_index() and fails:
        raise OSError(28, "No space left on device", "test.csv")
    return "done"
  first, *others = together(processes, lambda: write(True))
  assert isinstance(first, OSError) and first.errno == 28
  assert all(isinstance(e, UserError) and "process 0 of 2: [Errno 28]" in str(e) for e in others)
  assert together(processes, lambda: write(False)) == ["done"] * processes


def test_one_process_alone_gathers_its_own():
  assert hosts.gather_bytes(b"abc") == [b"abc"]


@pytest.mark.parametrize("environment, joined", [
    ({}, None), ({"MEDAE_DISTRIBUTED": "0"}, None), ({"MEDAE_DISTRIBUTED": "1"}, ()),
    ({"JAX_COORDINATOR_ADDRESS": "host:1", "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "2"},
     ("host:1", 3, 2)),
    ({"MEDAE_DISTRIBUTED": "1", "JAX_COORDINATOR_ADDRESS": "host:1", "JAX_NUM_PROCESSES": "3",
      "JAX_PROCESS_ID": "0"}, ("host:1", 3, 0))])
@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_other_processes_are_joined_as_the_environment_says(monkeypatch, environment, joined, platform):
  """Of a run whose variables are overlooked each process would train alone, and all write one workdir."""
  calls, settings = [], []
  for name in ("MEDAE_DISTRIBUTED", "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
    monkeypatch.delenv(name, raising=False)
  for name, value in {**environment, "JAX_PLATFORMS": platform}.items():
    monkeypatch.setenv(name, value)
  monkeypatch.setattr(jax.distributed, "initialize", lambda *given: calls.append(given))
  monkeypatch.setattr(jax.config, "update", lambda *given: settings.append(given))
  parallel.initialize_hosts()
  assert calls == ([] if joined is None else [joined])
  gloo = [("jax_cpu_collectives_implementation", "gloo")]
  assert settings == (gloo if calls and platform == "cpu" else [])


# ---------------------------------------------------------------- what the first process alone does
@pytest.fixture(name="index", params=[0, 1])
def index_fixture(request, monkeypatch):
  """Each process' number, as its own jax gives it; without the others, which none of these asks."""
  monkeypatch.setattr(jax, "process_index", lambda: request.param)
  return request.param


def names(folder):
  return {p.name for p in folder.rglob("*") if p.is_file()}


def test_the_first_alone_writes_what_a_run_is(tmp_path, index):
  config_lib.write_config(ml_collections.ConfigDict({"data": {}}).lock(), tmp_path)
  config_lib.write_split([{"id": "a", "split": "train"}], tmp_path)
  assert names(tmp_path) == ({"config.json", "splits.csv"} if index == 0 else set())


def test_the_first_alone_moves_and_removes_checkpoints(tmp_path, index):
  """Another that removes them as well would take those that the first is still writing."""
  made, folder = object.__new__(checkpoint.Checkpoints), tmp_path / "last"
  manager = types.SimpleNamespace(directory=folder, reload=lambda: None, all_steps=lambda: [3])
  vars(made).update(_managers={"last": manager}, _damaged={"last": set()}, wait=lambda: None,
                    save=lambda *_: (folder / "3").mkdir(parents=True, exist_ok=True))
  (folder / "3").mkdir(parents=True)
  (folder / "3" / "old").touch()
  made.replace("last", types.SimpleNamespace(step=3), {})
  assert names(folder) == (set() if index == 0 else {"old"}) and not (tmp_path / "last.replaced").exists()
  (tmp_path / "last.replaced" / "2").mkdir(parents=True)
  made.put_back()
  assert (folder / "2").is_dir() == (not (tmp_path / "last.replaced").exists()) == (index == 0)


def test_the_first_alone_writes_and_tells_an_evaluation(tmp_path, index, monkeypatch, capsys):
  run, written = types.SimpleNamespace(calibration={"threshold": 0.5}, config=None), []
  run.config = ml_collections.ConfigDict({"eval": {"splits": ["test"]}}).lock()
  monkeypatch.setattr(external.record, "read", lambda workdir: None)
  data = types.SimpleNamespace(name="x", splits=("test",))
  scored = lambda *_: ({"dice": 0.5}, None)
  external.evaluate(None, run, data, tmp_path / "run", tmp_path, (), scored, written.append)
  assert names(tmp_path) == ({"calibration.json", "config.json"} if index == 0 else set())
  cli._print_results({"test": {"dataset": "x", "dice": 0.5}})
  assert (len(written), "Test: x" in capsys.readouterr().out) == (index == 0,) * 2
