"""Runs code in a process where TensorFlow cannot be imported, as on machines that only train."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
_BLOCK = """import sys
class Block:
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in ('tensorflow', 'tensorflow_datasets'):
      raise ImportError('blocked: ' + name)
sys.meta_path.insert(0, Block())
"""


def run_without_tensorflow(code: str) -> None:
  """Fails where `code`, run from the root of the tree, does not reach its end."""
  done = subprocess.run([sys.executable, "-c", f"{_BLOCK}{code}\nprint('fine')"], cwd=ROOT,
                        capture_output=True, text=True, timeout=300)
  assert done.returncode == 0 and done.stdout.strip().endswith("fine"), done.stderr[-1500:]
