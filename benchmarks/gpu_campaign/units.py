"""What the campaign measures: units in order of value, each a command with its own time limit."""

from __future__ import annotations

import dataclasses

from benchmarks.gpu_campaign import agreement

PARTS = {
    "a": "device facts and measured peaks",
    "b": "training steps against PyTorch",
    "c": "XLA's flags and steps a call, in turn",
    "d": "resident data against feeding from the host",
    "e": "whole evaluation and metrics",
    "f": "parity tests on the device; TF32 and bfloat16 against float32",
    "g": "start to the first step, cold and warm",
    "h": "the most expensive kernels",
    "i": "Swish + GroupNorm: the plain form against kernels of our own (model.norm_kernel)"}
BEST = "compiled bf16 graphs"  # of PyTorch


@dataclasses.dataclass(frozen=True)
class Unit:
  """One process: its name, part, module and arguments (without --output).

  Attributes:
    limit: seconds after which it is killed and has failed.
    least: seconds that must be left to begin it; else the next run of the command does.
  """
  name: str
  part: str
  module: str
  args: tuple[str, ...]
  limit: float
  least: float


def plan(size: str, device: str, torch_python: str) -> list[Unit]:
  """All units, the most valuable first."""
  tiny = size == "tiny"
  torch = f"--torch-python={torch_python}"
  found: list[Unit] = []

  def add(name, part, module, *args, limit=120.0, least=60.0):
    found.append(Unit(name, part, module, args, limit, 10.0 if tiny else least))

  def work(name, part, what, *args, **limits):
    add(name, part, "benchmarks.gpu_campaign.work", what, f"--device={device}", f"--size={size}", *args,
        **limits)

  def steps(task, batch, peers, ours, *more, limit=240.0):
    repeats = ("--repeats=2", "--seconds=0.1") if tiny else ("--repeats=5", "--seconds=0.6")
    add(f"{task} {batch}", "b", "benchmarks.compare", f"--device={device}", f"--size={size}",
        f"--tasks={task}", f"--peers={','.join(peers) or 'none'}", f"--ours={','.join(ours)}",
        *(() if tiny else (f"--batch={batch}",)), torch, *repeats, "--limit=120", *more, limit=limit,
        least=100.0)

  eager = ("eager float32",) if tiny else ("eager float32", "eager tf32", "eager bf16")
  best = () if tiny else ("eager bf16", BEST)
  ours, fast = ("float32", "bfloat16", "bfloat16 x8"), ("bfloat16", "bfloat16 x8")
  families = sorted(agreement.families(), key=lambda f: f not in ("dae", "noisy", "dpa", "annotation"))
  # Every part has something within two runs of nine minutes.
  work("facts", "a", "facts")
  steps("dae", 16, (*eager, *best[1:]), ours, limit=300)
  work("parity 1", "f", "parity", f"--families={','.join(families[:4])}", limit=200, least=120)
  if not tiny:
    steps("dae", 64, best, fast, "--alone")
  work("kernels dae", "h", "kernels", "--task=dae", limit=150)
  work("flags", "c", "flags", limit=300, least=100)
  work("norm kernels", "i", "norm", limit=300, least=120)
  work("feed", "d", "feed", limit=120)
  sizes = ("--patients=2", "--slices=6", "--depth=2", "--wf=2", "--size=32") if tiny else (
      "--patients=8", "--slices=155")
  add("evaluation", "e", "benchmarks.evaluation", f"--device={device}", *sizes, torch, limit=240, least=120)
  work("start", "g", "start", limit=240, least=90)

  steps("annotation", 4, (*eager, *best[1:]), ours, limit=300)
  steps("perceptual", 128, (*eager, *best[1:]), ours, limit=300)
  steps("noisy", 16, eager, ours[:2])
  if not tiny:
    steps("dae", 256, best, fast, "--alone")
  work("parity 2", "f", "parity", f"--families={','.join(families[4:])}", limit=240, least=120)
  work("low precision", "f", "precision", limit=240, least=120)
  scans = ("--scans=4", "--share=2") if tiny else ("--scans=100", "--share=50")
  add("metrics", "e", "benchmarks.metrics", *scans, limit=150)
  steps("morphaeus", 64, (), ours[:2])
  steps("piad", 64, (), ours[:2])
  steps("geometric", 128, (*eager, *best[1:]), ours, limit=300)
  steps("features", 128, (*eager, *best[1:]), ours[:2], limit=300)
  work("kernels annotation", "h", "kernels", "--task=annotation", limit=150)
  if not tiny:
    for task, batch in (("dae", 512), ("dae", 128), ("dae", 32), ("annotation", 16), ("perceptual", 512),
                        ("perceptual", 16), ("noisy", 64), ("geometric", 512)):
      steps(task, batch, eager[2:] if task == "noisy" else best, ("bfloat16",), "--alone")
  return found
