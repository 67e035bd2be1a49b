"""Test-wide settings: CPU, programs compiled fast and kept between processes, quiet TensorFlow.

Most of the suite's time is XLA compiling programs that then run for milliseconds. Without LLVM's
optimisation passes that takes half as long, and without XLA's MLIR emitters for fusions a third less
again. Those are left out for the whole process; the passes are there for tests/parity, since its numbers
are compared closely and its trajectories run for seconds, but for files that say COMPILED_FAST = True:
many programs, few steps. JAX_DISABLE_MOST_OPTIMIZATIONS=0 makes all tests compile as users do.
"""

import gc
import logging
import os
import pathlib
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Shared by all workers and by the processes that tests start; a second `make test` compiles little.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR",
                      str(pathlib.Path(tempfile.gettempdir()) / "medae_jax_test_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import pytest

from data_pipelines import outside
from medae_jax.core.device import xla_flags
from tests import golden_cases, time_tests
from tests.contract import one_trace as one_trace_lib
from tests.unit.house import compiling

outside.allow()  # methods and data sets of tests lie outside the package
compiling.share_ir_contexts()

FAST = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"].lower() in ("1", "true", "y", "yes", "on", "t")
if FAST:
  xla_flags.add("--xla_cpu_use_fusion_emitters", "false", xla_flags.TRIED[:4])  # gone since 0.11.1


def pytest_configure(config):
  golden_cases.check_environment()
  config.addinivalue_line(
      "markers", "slow: over 1.5 s of one core (tests/slow.txt), or so marked; CI runs them too")
  config.addinivalue_line("markers", "campaign: hundreds of bad inputs and kills, by hand")


def pytest_collection_modifyitems(config, items):
  slow, by_hand = time_tests.listed(), "campaign" in (config.getoption("-m") or "")
  for item in items:
    if not by_hand and "campaign" in item.keywords:
      item.add_marker(pytest.mark.skip(reason="by hand: python -m pytest tests -m campaign"))
    if time_tests.function_of(item.nodeid) in slow:
      item.add_marker(pytest.mark.slow)


def pytest_collection_finish():
  """What is imported stays: tracing makes much garbage, and each round would look through all of it."""
  gc.freeze()
  gc.set_threshold(5_000)


@pytest.fixture(autouse=True, scope="module")
def forget_programs(request):
  """Compiled programs of one file are no use to the next; kept, they fill the memory."""
  as_users_do = ".parity." in request.module.__name__ and not getattr(request.module, "COMPILED_FAST", False)
  jax.config.update("jax_disable_most_optimizations", FAST and not as_users_do)
  yield
  jax.clear_caches()


@pytest.fixture(scope="module")
def one_trace():
  """Runs of one config share their programs in the files that ask for it (tests/contract/one_trace.py)."""
  with one_trace_lib.shared():
    yield


@pytest.fixture(autouse=True)
def log_level():
  """absl's logger follows the root's, which caplog sets, whatever tests before this one have set."""
  logging.getLogger("absl").setLevel(logging.NOTSET)


@pytest.fixture(params=["cpu", "gpu"])
def backend(request, monkeypatch):
  """What the package takes the backend for, choosing between forms; all of them run here."""
  monkeypatch.setattr(jax, "default_backend", lambda: request.param)
