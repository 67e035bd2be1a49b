"""Work that processes share: threads stand in for them here; real ones: tests/contract/test_devices.py."""

from concurrent.futures import ThreadPoolExecutor
import threading
import types

import jax
import numpy as np
import pytest

from medae_jax.core import parallel
from medae_jax.core.device import hosts
from medae_jax.core.errors import UserError


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
