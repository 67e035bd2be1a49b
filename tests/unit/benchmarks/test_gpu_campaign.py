"""The campaign runs without what GPU machines lack, survives units that fail, and never repeats one."""

import json
import re
import time

import pytest

from benchmarks import report
from benchmarks.gpu_campaign import __main__ as campaign, tables, units
from tests import blocked

# Of requirements.txt, by import name: what such a machine has (ml_collections comes along as a wheel, jinja2
# with torch).
THERE = {"jax", "flax", "optax", "orbax", "numpy", "absl", "ml_collections", "PIL", "scipy", "sklearn",
         "safetensors", "tqdm", "tensorboard", "importlib_resources", "jinja2"}
IMPORTS = {"pillow": "PIL", "scikit_learn": "sklearn", "absl_py": "absl", "orbax_checkpoint": "orbax",
           "tensorflow_cpu": "tensorflow"}
_DRY = """
import importlib, json, sys
class Missing:
  def find_spec(self, name, path=None, target=None):
    if name.partition(".")[0] in FORBIDDEN:
      raise ModuleNotFoundError(f"forbidden: {name}")
sys.meta_path.insert(0, Missing())
for name in ("compare", "worker", "evaluation", "metrics", "gpu_campaign.__main__", "gpu_campaign.kernels"):
  importlib.import_module(f"benchmarks.{name}")
import argparse
from benchmarks import package_steps, settings, worker
from benchmarks.gpu_campaign import tables, turns, work
from medae_jax.core.device import timing
timing.MATMUL_SIZES = {"cpu": (32,)}
args = argparse.Namespace(size="tiny", device="cpu")
facts = {"status": "done", "why": "", "part": "a", "result": work.facts(args)}
print(tables.unit_text("facts", facts, {"units": {"facts": facts}}))
setting = turns.setting_of("dae", args, variant="float32")
step = package_steps.build(setting, *settings.make(setting), "cpu")
first, program = float(step()), worker._program(step)
assert float(step()) < first and program["kernels"] > 100 and program["bytes"] > 1e6, program
import medae_jax.evaluate, medae_jax.train
"""


def forbidden():
  """Import names of what the package asks for and such a machine has not."""
  lines = (report.ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
  names = {re.match(r"[\w-]+", line).group().replace("-", "_") for line in lines if line[:1].isalpha()}
  return sorted({IMPORTS.get(n, n) for n in names} - THERE)


def test_parts_a_and_b_run_without_what_gpu_machines_lack():
  names = forbidden()
  assert {"tensorflow", "tensorflow_datasets", "nibabel", "pydicom"} <= set(names)
  blocked.run_without_tensorflow(f"FORBIDDEN = {names!r}\n{_DRY}")


@pytest.fixture
def fake(tmp_path, monkeypatch):
  """Units that count their runs: one is fine, one breaks, one hangs."""
  (tmp_path / "fake_unit.py").write_text(
      "import json, pathlib, sys, time\n"
      f"pathlib.Path({str(tmp_path)!r}, 'runs').open('a').write(sys.argv[1])\n"
      "if sys.argv[1] == 'b': raise ValueError('no such\\nthing')\n"
      "pathlib.Path(sys.argv[2].partition('=')[2]).write_text(json.dumps({'passed': 3, 'failed': ['x: y'],"
      " 'skipped': []}))\n"
      "if sys.argv[1] == 'c': time.sleep(60)\n")
  monkeypatch.setenv("PYTHONPATH", str(tmp_path))
  def make(name, limit=20.0, least=0.0):
    return units.Unit(f"unit {name}", "f", "fake_unit", (name,), limit, least)
  plan = [make("a"), make("b"), make("c", limit=1.0), make("d", least=1e9)]
  monkeypatch.setattr(units, "plan", lambda *_: plan)
  return tmp_path


def test_what_a_machine_lacks_is_said_before_anything_runs(fake, monkeypatch, capsys):
  assert campaign.lacking() == ""
  monkeypatch.setattr(campaign.importlib.util, "find_spec", lambda name: None if name == "tqdm" else 1)
  campaign.main([f"--out={fake / 'out'}", "--units=unit d"])
  assert capsys.readouterr().out.startswith("MISSING in this Python: tqdm. Units that need it fail.")


def test_a_failing_unit_says_why_and_the_others_go_on(fake, capsys):
  begin = time.monotonic()
  assert campaign.main([f"--out={fake / 'out'}"]) == 3  # d has no time
  assert time.monotonic() - begin < 20
  state = json.loads((fake / "out" / "campaign.json").read_text())["units"]
  assert [state[f"unit {n}"]["status"] for n in "abc"] == ["done", "failed", "failed"]
  assert "unit d" not in state and state["unit c"]["result"]["passed"] == 3  # what it had written is kept
  assert state["unit b"]["why"] == "exit code 1: ValueError: no such" or "thing" in state["unit b"]["why"]
  assert state["unit c"]["why"] == "over its limit of 1 s"
  page = (fake / "out" / "campaign.md").read_text()
  assert "| unit a | 3 | 1 | 0 |" in page and "Not measured: unit d." in page
  assert campaign.main([f"--out={fake / 'other'}", f"--resume={fake / 'out' / 'campaign.json'}",
                        "--again=unit b"]) == 3
  assert (fake / "runs").read_text() == "abcb"
  assert "left for the next run: unit d" in capsys.readouterr().out


def test_shares_are_of_the_measured_peaks():
  facts = {"products": {"bfloat16 default": {"flops_per_s": 4e12, "size": 8},
                        "float32 default": {"flops_per_s": 1e12, "size": 8}}, "copy_bytes_per_s": 2e11}
  row = {"name": "medae_jax bfloat16", "batch": 16, "images_per_s": 160.0, "slowest": 150.0, "fastest": 170.0,
         "ms_per_step": 100.0, "ratio_to_first": 2.0, "peak_bytes": 2**30, "first_step_s": 7.0,
         "program": {"flops": 2e11, "bytes": 1e10, "kernels": 700}}
  scanned = {**row, "name": "medae_jax bfloat16 x8", "program": None, "ms_per_step": 50.0}
  unit = {"part": "b", "status": "done", "why": "",
          "result": {"cpu": "a processor", "runs": [{"rows": [row, scanned]}]}}
  text = tables.unit_text("dae 16", unit, {"units": {"facts": {"result": facts}}})
  assert ("| medae_jax bfloat16 | 16 | 160 (150 to 170) | 100 | 2.00 | 1.00 GiB | 7 s | 50 % | 50 % | 700 |"
          in text)
  assert "| 100 % | 100 % | 700 |" in text.splitlines()[-1]


def test_the_forms_of_swish_and_group_norm_in_one_table():
  step = lambda rate: {"images_per_s": rate, "slowest": rate, "fastest": rate, "program": {"kernels": 280}}
  result = {"steps": {"16": {"plain": step(100.0), "pallas": step(125.0)}}, "limit": 1e-5,
            "layers": {"2x5x7x8": {"error": dict.fromkeys(("y", "x", "bias", "scale", "shift"), 2e-5),
                                   "within": False}}}
  unit = {"part": "i", "status": "done", "why": "", "result": result}
  text = tables.unit_text("norm kernels", unit, {"units": {}})
  assert "| 16 | pallas | 125 (125 to 125) | 1.250 | 280 |" in text
  assert "| 2x5x7x8 | 2.0e-05 | 2.0e-05 | 2.0e-05 | 2.0e-05 | 2.0e-05 | NO |" in text
  assert "norm kernels" in [u.name for u in units.plan("full", "gpu", "")]
