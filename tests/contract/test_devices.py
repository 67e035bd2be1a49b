"""N devices with B/N examples each give the parameters of one device with B, in both parallel modes;
two real processes give those of one; checkpoints move between device counts.

A tiny method for every feature (cases.FEATURES) runs on 4 devices with pmap, with shard_map and in two
processes, some real ones on 4 devices in every run of the tests, a real one for every feature, and the tiny
ones on 8, under the mark `campaign`: how many devices there are is the loop's affair, not the method's. With
shard_map runs the real one whose step holds what it could treat otherwise, noise of the device. All on four
devices is one process: its start and what no mode changes cost as much as the steps.
"""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.contract import cases, run_evaluation, run_steps

pytestmark = pytest.mark.slow
# Parameters after 4 steps. Sums over devices come in another order than sums over a batch, so nearly
# all entries must agree to 2e-3 of themselves (or of 1 % of their array's largest), and none may be
# further off than a few steps of Adam, which makes a whole step of any gradient that is not zero.
CLOSE, SHARE, FAR = 2e-3, 0.995, 2e-2
# Networks with ReLU, max pooling and batch statistics: a rounding error flips single units, and Adam
# makes steps of lr = 1e-3 of it. Unsynchronised statistics would move most entries by that much.
FLIPPING = {"annotation_removal": 1e-4}
SHARD_MAP = (*cases.TINY, "dae_brats")


def environment(devices):
  flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
  return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def start(devices, *jobs, extra=None):
  """A process of run_steps; a job is (OUT, mode, names)."""
  command = [sys.executable, "-m", "tests.contract.run_steps"]
  for out, mode, names in jobs:
    command += ["--", str(out), mode, *map(str, names)]
  return subprocess.Popen(command, cwd=cases.ROOT, env={**environment(devices), **(extra or {})},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(*processes):
  """Waits for them, the first one last: it tells of a failure of the others."""
  for process in reversed(processes):
    text, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, text[-3000:]


def parameters(out):
  with np.load(f"{out}.npz") as z:
    return {k: z[k] for k in z.files}


def run(tmp_path, tag, devices, names, mode="pmap"):
  """The parameters of the cases after a process of their own."""
  finish(start(devices, (tmp_path / tag, mode, names)))
  return parameters(tmp_path / tag)


def assert_equal_parameters(a, b, what):
  assert sorted(a) == sorted(b), what
  for case in sorted({k.split("|")[0] for k in a}):
    keys = [k for k in a if k.startswith(case + "|") and np.issubdtype(a[k].dtype, np.floating)]
    if not keys:
      continue
    scale = [np.maximum(np.abs(a[k]), 1e-2 * np.max(np.abs(a[k]), initial=1e-6)) for k in keys]
    miss = np.concatenate([np.ravel(np.abs(a[k] - b[k]) / s) for k, s in zip(keys, scale)])
    share = np.mean(miss <= CLOSE)
    if case in FLIPPING:
      share = np.mean(np.concatenate([np.ravel(np.abs(a[k] - b[k])) for k in keys])
                      <= FLIPPING[case])
    absolute = max(np.max(np.abs(a[k] - b[k]), initial=0) for k in keys)
    assert share >= SHARE and absolute <= FAR, f"{what}, {case}: share {share}, worst {absolute}"
  for k in a:
    if not np.issubdtype(a[k].dtype, np.floating):
      np.testing.assert_array_equal(a[k], b[k], err_msg=f"{what} {k}")


def here(out, names):
  """The same in this process, which has one device."""
  assert jax.device_count() == 1
  run_steps.steps(out, "pmap", names)
  return parameters(out)


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
  """(parameters of every case on one device, the folder with the workdirs)."""
  path = tmp_path_factory.mktemp("one")
  return here(path / "d1", (*cases.TINY, *cases.EVERY_RUN)), path


def of(found, names):
  return {k: v for k, v in found.items() if k.split("|")[0] in names}


MOVED = ("BatchNormMethod", "dae_brats")
FOUR = (*cases.TINY, *cases.EVERY_RUN)


def stopped(saved, out):
  """Copies of the workdirs "SAVED.CASE" as "OUT.CASE", as if stopped after step 2."""
  for name in MOVED:
    shutil.copytree(f"{saved}.{name}", f"{out}.{name}")
    newest = pathlib.Path(f"{out}.{name}") / "checkpoints" / "last"
    assert sorted(p.name for p in newest.iterdir() if p.name.isdigit()) == ["2", "4"]
    shutil.rmtree(newest / "4")
  return out


@pytest.fixture(scope="module")
def four_devices(one_device, tmp_path_factory):
  """The folder of four devices' parameters: `d8` with pmap, `sm` with shard_map, `moved` of runs that
  one device began."""
  path = tmp_path_factory.mktemp("four")
  finish(start(4, (path / "d4", "pmap", FOUR), (path / "sm", "shard_map", SHARD_MAP),
               (stopped(one_device[1] / "d1", path / "moved"), "pmap", MOVED)))
  return path


def test_four_devices_agree_with_one(one_device, four_devices):
  found = parameters(four_devices / "d4")
  assert_equal_parameters(one_device[0], found, "4 devices")


@pytest.mark.campaign
def test_tiny_methods_agree_on_eight_devices(one_device, tmp_path):
  assert_equal_parameters(of(one_device[0], cases.TINY), run(tmp_path, "d8", 8, cases.TINY), "8 devices")


@pytest.mark.campaign
def test_every_real_method_agrees_on_four_devices(tmp_path):
  one, four = (run(tmp_path, f"d{n}", n, cases.REAL) for n in (1, 4))
  assert any("vgg_32" in k for k in four)  # channel statistics, which growing adds, are compared too
  assert_equal_parameters(one, four, "4 devices")


def test_shard_map_agrees(one_device, four_devices):
  assert_equal_parameters(of(one_device[0], SHARD_MAP), parameters(four_devices / "sm"), "shard_map")


def two_processes():
  """The environment of each of two processes that find each other."""
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
  return [{"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(i)}
          for i in range(2)]


@pytest.fixture(scope="module")
def both(one_device, tmp_path_factory):
  """The folder where two processes have trained (mp) and evaluated (run, a copy of one device's)."""
  path = tmp_path_factory.mktemp("both")
  shutil.copytree(one_device[1] / "d1.dae_brats", path / "run")
  jobs = ((path / "mp", "pmap", cases.TINY), (path / "scored", "evaluate", (path / "run",)))
  finish(*(start(1, *jobs, extra=extra) for extra in two_processes()))
  return path


def test_two_processes_agree_with_one(one_device, both):
  assert_equal_parameters(of(one_device[0], cases.TINY), parameters(both / "mp"), "two processes")


def test_two_processes_share_an_evaluation_and_write_the_files_of_one(one_device, both, tmp_path):
  shutil.copytree(one_device[1] / "d1.dae_brats", tmp_path / "run")
  run_evaluation.evaluate(str(tmp_path / "run"), str(tmp_path / "scored"))
  written = lambda p: p.is_file() and "checkpoints" not in p.parts and "tfevents" not in p.name
  found = [[p.relative_to(folder) for p in sorted((folder / "run").rglob("*")) if written(p)]
           for folder in (tmp_path, both)]
  assert found[0] == found[1] and any(p.suffix == ".png" for p in found[0])
  for path in found[0]:
    one, two = (strip((folder / path).read_bytes()) for folder in (tmp_path, both))
    assert one == two, path
  whole, *halves = (int(path.read_text()) for path in
                    (tmp_path / "scored0", both / "scored0", both / "scored1"))
  assert max(halves) < 0.7 * whole, "each scores its share"


def strip(content: bytes) -> bytes:
  """What a file says but for when it was written, and how long that took."""
  content = re.sub(rb'"(date|seconds)": [^,\n]*', b"", content)
  return re.sub(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?|\b[\d.]+ s\b", b"", content)


@pytest.mark.parametrize("devices", [1, 4])
def test_checkpoints_move_between_device_counts(one_device, four_devices, tmp_path, devices):
  """Stopped after step 2 on one device count, resumed to 4 on another: as if unbroken."""
  if devices == 1:  # resumed in the process of the four
    moved = parameters(four_devices / "moved")
  else:
    moved = here(stopped(four_devices / "d4", tmp_path / "moved"), MOVED)
  assert_equal_parameters(of(one_device[0], MOVED), moved, f"saved on {devices}, resumed on {5 - devices}")
