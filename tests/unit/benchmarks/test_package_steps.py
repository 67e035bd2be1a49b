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
setting = {**settings.TINY[sys.argv[1]], "variant": "float32"}
step = package_steps.build(setting, *settings.make(setting), "cpu")
print(json.dumps([float(step()) for _ in range(4)]))
"""


@pytest.mark.parametrize("task", sorted(settings.TINY))
def test_runs_without_tensorflow_and_ml_collections(task):
  done = subprocess.run([sys.executable, "-c", SCRIPT, task], cwd=cases.ROOT, text=True,
                        env={**os.environ, "JAX_PLATFORMS": "cpu"}, capture_output=True)
  assert done.returncode == 0, done.stderr[-2000:]
  losses = json.loads(done.stdout.splitlines()[-1])
  assert losses[-1] < losses[0] if task != "features" else len(set(losses)) == 1  # nothing to train
