"""The CPU setting is added once, and never where XLA would abort for it; what threads say is kept short."""

import contextlib
import importlib.metadata
import logging
import os
import pathlib
import subprocess
import sys
import threading
import types

import jax
from jax._src import xla_bridge
import numpy as np
import pytest

from medae_jax.core import parallel
from medae_jax.core.device import environment, once, units, xla_flags
from tests.contract import cases


@pytest.mark.parametrize("flags, version, want", [
    ("", "0.10.2", "{flag}"),
    ("--xla_dump_to=x", "0.10.0", "--xla_dump_to=x {flag}"),
    ("", "0.11.2", "{flag}"),
    ("", "0.11.3", ""), ("", "0.12.0", ""),  # another version may not know the flag
    ("--xla_dump_to=x", "0.9.1", "--xla_dump_to=x"),
    ("--xla_cpu_experimental_ynn_fusion_type=", "0.10.2", "--xla_cpu_experimental_ynn_fusion_type="),
])
def test_what_is_set(monkeypatch, flags, version, want):
  monkeypatch.setenv("XLA_FLAGS", flags)
  monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
  monkeypatch.setattr(xla_bridge, "backends_are_initialized", lambda: False)
  flag = f"{xla_flags._FLAG}={xla_flags._VALUE}"
  for _ in range(2):
    xla_flags.prefer_eigen_convolutions()
  assert os.environ["XLA_FLAGS"] == want.format(flag=flag)


def test_nothing_is_set_when_jax_is_already_at_work(monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "")
  monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.10.2")
  monkeypatch.setattr(xla_bridge, "backends_are_initialized", lambda: True)
  xla_flags.prefer_eigen_convolutions()
  assert not os.environ["XLA_FLAGS"]


@pytest.mark.skipif(importlib.metadata.version("jaxlib") not in xla_flags.TRIED,
                    reason="the setting is for other versions of jaxlib")
def test_xla_obeys():
  script = ("import medae_jax, jax; from jax import numpy as jnp, lax\n"
            "f = lambda x, k: lax.conv_general_dilated(x, k, (1, 1), 'VALID', "
            "dimension_numbers=('NHWC', 'HWIO', 'NHWC'))\n"
            "x, k = jnp.ones((4, 64, 64, 64)), jnp.ones((3, 3, 64, 64))\n"
            "print(jax.jit(f).lower(x, k).compile().as_text())")
  text = {}
  for name, setting in (("ours", ""), ("jaxlib's", f"{xla_flags._FLAG}=+{xla_flags._VALUE[1:]}")):
    done = subprocess.run([sys.executable, "-c", script], cwd=cases.ROOT, text=True, check=True,
                          capture_output=True, env={**os.environ, "XLA_FLAGS": setting,
                                                    "JAX_PLATFORMS": "cpu"})
    text[name] = done.stdout
  assert "convolution" in text["ours"] and "ynn_fusion" not in text["ours"]
  assert "ynn_fusion" in text["jaxlib's"]


def test_threads_of_writers_say_nothing_of_their_own(monkeypatch):
  """On a full disk hundreds of tracebacks stood around the line that says so."""
  shown = []
  monkeypatch.setattr(sys, "unraisablehook", lambda args: shown.append(args.exc_value))
  monkeypatch.setattr(threading, "excepthook", lambda args: shown.append(args.exc_value))
  monkeypatch.setattr(logging.getLogger("asyncio"), "level", logging.WARNING)
  environment.quiet_threads()
  for error in (RuntimeError("Event loop is closed"), RuntimeError("odd")):
    sys.unraisablehook(types.SimpleNamespace(exc_value=error))
  for error in (OSError(28, "No space left on device"), KeyError("odd")):
    threading.excepthook(types.SimpleNamespace(exc_type=type(error), exc_value=error, thread=None))
  assert [str(e) for e in shown] == ["odd", "'odd'"]
  record = logging.LogRecord("absl", logging.ERROR, "/x/orbax/y.py", 1, "no %s\n", ("room",), (None,) * 3)
  assert environment.without_orbax(record) and record.getMessage() == "no room" and not record.exc_info
  record.levelno = logging.INFO
  assert not environment.without_orbax(record)


@pytest.mark.parametrize("code, stuck, left", [(1, True, 1), ("words", True, 1), (1, False, None),
                                               (0, True, None)])
def test_a_run_that_failed_waits_for_no_thread(monkeypatch, capsys, code, stuck, left):
  """After a save that failed Orbax' threads waited for each other, and the process for them."""
  left_with, event = [], threading.Event()
  monkeypatch.setattr(os, "_exit", left_with.append)
  monkeypatch.setattr(logging, "shutdown", lambda: None)
  thread, join = threading.Thread(target=event.wait, args=(30 if stuck else 0.01,)), threading.Thread.join
  thread.join = lambda *args: [join(thread, *args), {}["what it failed of, as Orbax' threads raise it"]]
  thread.start()
  monkeypatch.setattr(threading, "enumerate", lambda: [threading.main_thread(), thread])
  with contextlib.suppress(SystemExit), environment.threads_may_wait(0.1):
    sys.exit(code)
  event.set()
  assert left_with == ([] if left is None else [left])
  assert capsys.readouterr().err == ("words\n" if code == "words" else "")


@pytest.mark.parametrize("backend, fast, options", [
    ("cpu", False, {"compiler_options": {"xla_backend_optimization_level": 1}}), ("cpu", True, {}),
    ("gpu", False, {})])
def test_what_runs_once_is_compiled_quickly_on_cpus(monkeypatch, backend, fast, options):
  """Not where the fast compilation of tests is faster still, nor for devices that it was not tried on."""
  given = []
  monkeypatch.setattr(once.jax, "default_backend", lambda: backend)
  read = {"jax_disable_most_optimizations": fast}.get
  monkeypatch.setattr(once.jax, "config", types.SimpleNamespace(read=read))
  monkeypatch.setattr(once.jax, "jit", lambda function, **more: given.append(more) or function)
  assert once.jit(len) is len and given == [options]
  monkeypatch.setattr(parallel.jax, "local_device_count", lambda: 1)
  parallel.per_example_fn(len, seldom=True)
  parallel.per_example_fn(len)
  assert given[1:] == [options, {}]


def test_what_is_compiled_quickly_draws_the_same_numbers():
  draw = lambda key: jax.random.normal(key, (3, 3, 8, 8)) / 9 + jax.random.uniform(key, (8,), minval=-0.1)
  old = jax.config.read("jax_disable_most_optimizations")
  jax.config.update("jax_disable_most_optimizations", False)
  try:
    quick, plain = once.jit(draw)(jax.random.key(3)), jax.jit(draw)(jax.random.key(3))
  finally:
    jax.config.update("jax_disable_most_optimizations", old)
  np.testing.assert_array_equal(quick, plain)


_TEXT = ("processor\t: 0\nmodel name\t: flags: avx512_bf16\nflags\t\t: fpu sse2 {}\nbugs\t\t: amx_bf16\n\n"
         "processor\t: 1\n")


@pytest.mark.parametrize("flags, has", [("avx512f avx512_bf16", True), ("amx_bf16 amx_tile", True),
                                        ("avx512f avx512_bf16x", False), ("", False)])
def test_units_are_those_of_the_flags(monkeypatch, flags, has):
  monkeypatch.setattr(pathlib.Path, "read_text", lambda self, **_: _TEXT.format(flags))
  assert units.multiply_bfloat16.__wrapped__() is has


@pytest.mark.parametrize("text", ["", "processor\t: 0\nFeatures\t: bf16\n"])
def test_a_processor_that_names_no_flags_has_none(monkeypatch, text):
  monkeypatch.setattr(pathlib.Path, "read_text", lambda self, **_: text)
  assert not units.multiply_bfloat16.__wrapped__()


def test_other_systems_have_no_such_file(monkeypatch):
  def absent(self, **_):
    raise FileNotFoundError(self)
  monkeypatch.setattr(pathlib.Path, "read_text", absent)
  assert not units.multiply_bfloat16.__wrapped__()
