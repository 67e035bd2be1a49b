"""The package's side of benchmarks/compare.py runs where neither TensorFlow nor ml_collections is."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import settings
from tests.contract import cases

SCRIPT = """
import json, sys
class Missing:
  def find_spec(self, name, path=None, target=None):
    if name.partition(".")[0] in ("tensorflow", "tensorflow_datasets", "ml_collections"):
      raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from benchmarks import package_steps, settings
losses = {}
for task in sys.argv[1:]:
  setting = {**settings.TINY[task], "variant": "float32"}
  step = package_steps.build(setting, *settings.make(setting), "cpu")
  losses[task] = [float(step()) for _ in range(4)]
print(json.dumps(losses))
"""


@pytest.fixture(scope="module")
def losses():
  """{task: losses of four steps}, all tasks of one process: its start takes longer than the steps."""
  done = subprocess.run([sys.executable, "-c", SCRIPT, *settings.TINY], cwd=cases.ROOT, text=True,
                        env={**os.environ, "JAX_PLATFORMS": "cpu"}, capture_output=True)
  assert done.returncode == 0, done.stderr[-2000:]
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("task", sorted(settings.TINY))
def test_runs_without_tensorflow_and_ml_collections(task, losses):
  losses = losses[task]
  assert losses[-1] < losses[0] if task != "features" else len(set(losses)) == 1  # nothing to train
