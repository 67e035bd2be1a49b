"""Has something become slower? Counts of XLA's programs, compile times and CPU ratios against guard.json.

  python -m benchmarks.guard                                        (minutes)
  python -m benchmarks.guard --torch-python=PYTHON_WITH_TORCH       (the ratios to PyTorch, too)
  python -m benchmarks.guard --write                                (the figures of today become the old ones)

Programs of the same jax are compared, times and ratios of the same processor; others are "new". "Worse" is
a count that grew by 10 %, a compile time (CPU seconds) by half, a ratio to PyTorch that fell by 15 %.
Exit code 1 where something is. The GPU's program needs XLA's compiler for GPUs
(pip install "jax[cuda13]"), no GPU.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import time

from benchmarks import gpu_program, report, settings

FILE = pathlib.Path(__file__).with_name("guard.json")
PROGRAMS = (("dae", "bfloat16", 16), ("annotation", "bfloat16", 4), ("perceptual", "bfloat16", 128))
OF_GPUS = ((("dae", "bfloat16", 16), {"norm_kernel": "pallas"}),)  # programs that only GPUs have
GROWTH = {"kernels": 1.10, "bytes": 1.10, "flops": 1.10, "scratch": 1.10, "compile_s": 1.5, "ratio": 1 / 1.15}


def program(task: str, variant: str, batch: int) -> dict[str, float]:
  """Counts of the step that XLA compiles for this machine's CPU; compile time in CPU seconds.

  LLVM's passes, which take most of the time, are left out: they change no kernel, byte or FLOP.
  """
  from benchmarks import package_steps
  from medae_jax.models.layers import conv_forms
  with conv_forms.never():  # forms of bfloat16 stand on some processors alone
    lowered = package_steps.lowered({**settings.GPU[task], "variant": variant, "batch": batch})
  begin = time.process_time()
  compiled = lowered.compile(compiler_options={"xla_backend_optimization_level": 0,
                                               "xla_llvm_disable_expensive_passes": True})
  spent = time.process_time() - begin
  found = gpu_program.kernels(compiled.as_text())
  costs = compiled.cost_analysis()
  return {"kernels": len(found), "bytes": sum(k.bytes for k in found), "flops": costs["flops"],
          "scratch": compiled.memory_analysis().temp_size_in_bytes, "compile_s": spent}


def work(task: str, variant: str, batch: int) -> None:
  """One program in this process: JSON on stdout."""
  import jax
  print(json.dumps({**program(task, variant, batch), "jax": jax.__version__}))


def gpu_counts(task: str, variant: str, batch: int, model: dict) -> tuple[str, dict[str, float]]:
  """(jax version, counts of the program for an H100), in a process of its own; the convolutions' FLOP."""
  row = report.child("benchmarks.gpu_program", {"task": task, "variant": variant, "batch": batch,
                                                "model": model}, gpu_program.DEVICELESS)
  return row["jax"], {"kernels": len(row["kernels"]), "bytes": sum(k["bytes"] for k in row["kernels"]),
                      "flops": sum(k["flops"] for k in row["kernels"]), "scratch": row["scratch"]}


def gpu_programs() -> list[tuple[str, tuple[str, str, int], dict]]:
  """(name of the row, program, fields of config.model that it changes)."""
  return [(" ".join(map(str, (*p, *(f"{k}={v}" for k, v in model.items())))), p, model)
          for p, model in (*((p, {}) for p in PROGRAMS), *OF_GPUS)]


def key(kind: str, where: str, what: str) -> str:
  """Name of a row: only equal versions and processors are compared."""
  return f"{kind}, {where}: {what}"


def measured(torch_python: str) -> dict[str, dict[str, float]]:
  """{"CPU program, jax 0.10.2: dae bfloat16 16": {"kernels": ...}, ...}."""
  found, processor = {}, report.processor()
  cpu = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
  for task, variant, batch in PROGRAMS:
    name, argument = f"{task} {variant} {batch}", {"task": task, "variant": variant, "batch": batch}
    report.say(name)
    row = report.child("benchmarks.guard", argument, cpu)
    jax = f"jax {row.pop('jax')}"
    found[key("compile time", f"{jax}, {processor}", name)] = {"compile_s": row.pop("compile_s")}
    found[key("CPU program", jax, name)] = row
  for name, what, model in gpu_programs() if gpu_program.has_compiler() else ():
    report.say(f"GPU program: {name}")
    version, counts = gpu_counts(*what, model)
    found[key("GPU program", f"jax {version}", name)] = counts
  if torch_python:
    for task, row in ratios(torch_python).items():
      found[key("CPU against PyTorch", processor, task)] = row
  return found


def ratios(torch_python: str) -> dict[str, dict[str, float]]:
  """{task: {"ratio": our float32 rate over that of PyTorch's eager float32, flushed}}, in turn."""
  import subprocess
  import tempfile
  with tempfile.TemporaryDirectory() as folder:
    output = pathlib.Path(folder) / "compare.json"
    subprocess.run([sys.executable, "-m", "benchmarks.compare", "--tasks=dae,annotation,perceptual",
                    "--peers=eager float32 flushed", "--ours=float32", f"--torch-python={torch_python}",
                    f"--output={output}"], cwd=report.ROOT, check=True)
    runs = json.loads(output.read_text(encoding="utf-8"))["runs"]
  return {run["setting"]["task"]: {"ratio": run["rows"][-1]["ratio_to_first"]} for run in runs}


def compared(old: dict, new: dict) -> list[tuple[str, str, object, object, str]]:
  """(name, figure, before, now, verdict) of every figure: "worse", "better", "" or "new"."""
  rows = []
  for name, row in new.items():
    before = old.get(name, {})
    rows += [(name, k, before.get(k, ""), v, _verdict(k, before[k], v) if k in before else "new")
             for k, v in row.items()]
  return rows


def _verdict(key, before, now) -> str:
  limit, growth = GROWTH[key], now / before if before else (1.0 if now == before else float("inf"))
  if limit < 1:  # more is better
    return "worse" if growth < limit else "better" if growth > 1 / limit else ""
  return "worse" if growth > limit else "better" if growth < 1 / limit else ""


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--torch-python", default="", dest="torch_python")
  parser.add_argument("--write", action="store_true", help=f"keep the figures in {FILE.name}")
  args = parser.parse_args()
  old = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
  new = measured(args.torch_python)
  rows = compared(old, new)
  show = lambda v: f"{v:.4g}" if isinstance(v, float) else f"{v:,}" if isinstance(v, int) else v
  report.show(("what", "figure", "before", "now", "verdict"),
              [(*r[:2], show(r[2]), show(r[3]), r[4]) for r in rows], {})
  worse = [f"{r[0]}, {r[1]}: {show(r[2])} -> {show(r[3])}" for r in rows if r[4] == "worse"]
  print("\n".join([f"{len(worse)} of {len(rows)} figures are worse", *worse]))
  if args.write:
    kept = {**old, **new}
    FILE.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0
  return 1 if worse else 0


if __name__ == "__main__":
  if sys.argv[1:2] and sys.argv[1].startswith("{"):
    work(**json.loads(sys.argv[1]))
  else:
    sys.exit(main())
