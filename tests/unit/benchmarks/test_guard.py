"""What grows is said; the programs of the committed figures have not grown."""

import json

import jax
import pytest

from benchmarks import gpu_program, guard


def test_verdicts():
  old = {"p": {"kernels": 100, "bytes": 50}, "r": {"ratio": 1.0}}
  new = {"p": {"kernels": 111, "bytes": 54, "flops": 3}, "r": {"ratio": 0.8}, "q": {"kernels": 9}}
  assert [(n, k, v) for n, k, _, _, v in guard.compared(old, new)] == [
      ("p", "kernels", "worse"), ("p", "bytes", ""), ("p", "flops", "new"), ("r", "ratio", "worse"),
      ("q", "kernels", "new")]
  assert guard.compared({"p": {"kernels": 100}}, {"p": {"kernels": 80}})[0][-1] == "better"


def _unchanged(name, found):
  old = json.loads(guard.FILE.read_text(encoding="utf-8"))
  if name not in old:
    pytest.skip(f"no committed figures of {name}: python -m benchmarks.guard --write")
  worse = [r for r in guard.compared(old, {name: found}) if r[-1] == "worse"]
  assert not worse, "was that meant? then: python -m benchmarks.guard --write"


@pytest.mark.parametrize("task, variant, batch", [
    guard.PROGRAMS[0], *(pytest.param(*p, marks=pytest.mark.campaign) for p in guard.PROGRAMS[1:])])
def test_the_cpu_program_has_not_grown(task, variant, batch):
  """Kernels, bytes, FLOP and scratch memory within 10 % of guard.json; the first compiles in 5 s."""
  found = guard.program(task, variant, batch)
  found.pop("compile_s")
  _unchanged(guard.key("CPU program", f"jax {jax.__version__}", f"{task} {variant} {batch}"), found)


@pytest.mark.campaign
@pytest.mark.skipif(not gpu_program.has_compiler(), reason='pip install "jax[cuda13]"')
@pytest.mark.parametrize("name, what, model", guard.gpu_programs())
def test_the_gpu_program_has_not_grown(name, what, model):
  version, found = guard.gpu_counts(*what, model)
  _unchanged(guard.key("GPU program", f"jax {version}", name), found)


def test_programs_of_gpus_have_names_of_their_own():
  names = [name for name, _, _ in guard.gpu_programs()]
  assert len(set(names)) == len(names) and "dae bfloat16 16 norm_kernel=pallas" in names
  old = json.loads(guard.FILE.read_text(encoding="utf-8"))
  kernels = lambda name: old[f"GPU program, jax 0.11.2: {name}"]["kernels"]
  assert kernels(names[-1]) <= 350 < kernels(names[0])
