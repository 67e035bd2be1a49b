r"""Peers in PyTorch and the package's own steps, interleaved on one machine.

  python -m benchmarks.compare --device=cpu
  python -m benchmarks.compare --device=gpu --tasks=dae --sweep --output=gpu.json

Runs with jax and torch alone (--torch-python names another interpreter where torch lives apart).
Every contender is a process of its own that holds its network and waits; repeats go round in turn,
so that clocks, heat and neighbours strike all alike; the first second of each turn is not timed, since
a process that has waited begins cold. Equal work is checked: from equal weights and
batch, float32 contenders must report equal losses. Rates are medians with minimum and maximum.
On a CPU all get huge pages (GLIBC_TUNABLES), and PyTorch runs with denormal numbers kept, its
default, and flushed.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
from typing import Any

from benchmarks import report, settings

WARM = 1.0  # seconds of each turn that are not timed
ROOT = pathlib.Path(__file__).resolve().parent.parent
CPU_PEERS = ("eager float32", "eager float32 flushed", "eager channels_last flushed",
             "eager bf16 flushed")  # compiled takes minutes to start and is no faster here
GPU_PEERS = ("eager float32", "eager tf32", "eager bf16", "compiled bf16", "compiled bf16 graphs")


class Contender:
  """A worker process and what it reported."""

  def __init__(self, side: str, variant: str, setting: dict[str, Any], device: str, python: str,
               limit: float = 600, env_more: dict[str, str] | None = None):
    self.side, self.variant, self.setting = side, variant, setting
    calls = setting.get("steps_per_call", 1)
    self.name = (f"{'PyTorch' if side == 'peer' else 'medae_jax'} {variant}"
                 + (f" x{calls}" if calls > 1 else ""))
    argument = {**setting, "side": side, "variant": variant, "device": device}
    env = {**os.environ, **report.python_path(), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if device == "cpu":
      env.update(JAX_PLATFORMS="cpu", CUDA_VISIBLE_DEVICES="", **report.HUGE_PAGES)
    env.update(env_more or {})
    self.limit = limit
    self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - an unread pipe would fill up and block
    self.process = subprocess.Popen(
        [python, "-m", "benchmarks.worker", json.dumps(argument)], cwd=ROOT, env=env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)
    self.first, self.seconds, self.cpu_seconds, self.losses, self.memory = {}, [], [], [], 0
    self.units, self.error, self.program = 1, None, None

  @property
  def images(self) -> int:
    """Images of one dispatch."""
    return self.setting["batch"] * self.setting.get("steps_per_call", 1)

  def ask(self, command: dict | None = None) -> dict | None:
    """Sends a command and waits for the answer; None (with `error` set) where the worker died."""
    if self.error:
      return None
    timer = threading.Timer(self.limit, self.process.kill)
    timer.start()
    try:
      if command is not None:
        print(json.dumps(command), file=self.process.stdin, flush=True)
      line = self.process.stdout.readline()
    except OSError:
      line = ""
    over = timer.finished.is_set()
    timer.cancel()
    if not line:
      self.process.wait()
      if over:
        self.error = f"took longer than {self.limit:.0f} s"
        return None
      self.log.seek(0)
      text = self.log.read().strip().splitlines()
      self.error = " ".join(text[-1:])[:300] or f"exit code {self.process.returncode}"
      return None
    return json.loads(line)

  def start(self) -> None:
    """Compiles, checks the first losses, and finds how many dispatches fill `--seconds`."""
    self.first = self.ask({"build": True}) or {}
    for _ in range(2):
      answer = self.ask({"steps": 1})
      if answer:
        self.losses.append(answer["loss"])

  def calibrate(self, seconds: float) -> None:
    spent = (self.ask({"steps": 1}) or {}).get("seconds", seconds)
    while not self.error and spent < seconds / 3 and self.units < 4096:
      self.units *= 2
      spent = (self.ask({"steps": self.units}) or {}).get("seconds", seconds)
    self.units = max(1, round(self.units * seconds / max(spent, 1e-9)))

  def measure(self) -> None:
    answer = self.ask({"steps": self.units, "warm_s": WARM})
    if answer:
      self.seconds.append(answer["seconds"] / self.units)
      self.cpu_seconds.append(answer["cpu_seconds"] / self.units)
      self.memory = answer["memory"]

  def count(self) -> None:
    """What XLA says of our program."""
    # Of a scan XLA counts one round, the kernels of the loop not at all.
    if self.side == "ours" and not self.error and self.setting.get("steps_per_call", 1) == 1:
      self.program = self.ask({"program": True})

  def stop(self) -> None:
    """Ends this worker."""
    if self.process.poll() is None:
      self.process.stdin.close()
      try:
        self.process.wait(timeout=20)
      except subprocess.TimeoutExpired:
        self.process.kill()

  def row(self) -> dict[str, Any]:
    """Plain figures of this contender."""
    row = {"name": self.name, "batch": self.setting["batch"], "error": self.error,
           "versions": self.first.get("versions"), "first_step_s": self.first.get("first_step_s"),
           "loss": [self.first.get("loss"), *self.losses], "peak_bytes": self.memory,
           "program": self.program, "images_per_dispatch": self.images}
    if self.seconds:
      rates = sorted(self.images / s for s in self.seconds)
      row.update(images_per_s=statistics.median(rates), slowest=rates[0], fastest=rates[-1],
                 ms_per_step=1e3 * statistics.median(self.seconds) * self.setting["batch"]
                 / self.images, cpu_s_per_image=statistics.median(self.cpu_seconds) / self.images,
                 repeats=len(rates))
    return row


def contest(task: str, base: dict, peers, ours, args) -> list[dict[str, Any]]:
  """One interleaved run of all contenders on one setting; rows with ratios to the first peer."""
  makers = [functools.partial(Contender, "peer", v, base, args.device, args.torch_python, args.limit)
            for v in peers]
  makers += [functools.partial(Contender, "ours", v.split(" x")[0],
                               {**base, "steps_per_call": int((v.split(" x") + ["1"])[1])},
                               args.device, sys.executable, args.limit) for v in ours]
  contenders = []
  for group in [[m] for m in makers] if args.alone else [makers]:
    contenders += _in_turn(task, [make() for make in group], base["batch"], args)
  _check_losses(task, contenders)
  rows = [c.row() for c in contenders]
  first = rows[0].get("images_per_s") if rows else None
  for row in rows:
    row["ratio_to_first"] = row["images_per_s"] / first if first and "images_per_s" in row else None
  return rows


def _in_turn(task, contenders, batch, args):
  """Starts, measures in turn and ends some contenders."""
  try:
    for c in contenders:  # one after the other: compiling is not what is compared
      c.start()
      c.calibrate(args.seconds)
      report.say(f"{task}: {c.name} batch {batch}: "
                 + (f"failed: {c.error}" if c.error else f"first step {c.first['first_step_s']:.1f} s"))
    for _ in range(args.repeats):
      for c in contenders:
        c.measure()
    for c in contenders:
      c.count()
  finally:
    for c in contenders:
      c.stop()
  return contenders


def _check_losses(task, contenders) -> None:
  """The first losses of all float32 contenders agree: they do the same work.

  Raises:
    ValueError: they do not.
  """
  exact = [c for c in contenders if not c.error and ("float32" in c.variant)
           and c.setting.get("steps_per_call", 1) == 1]
  for c in exact[1:]:
    for a, b in zip([exact[0].first["loss"], *exact[0].losses], [c.first["loss"], *c.losses]):
      if abs(a - b) > 2e-3 * abs(a):  # TF32 products on GPUs; on CPUs they agree to 1e-5
        raise ValueError(f"{task}: {c.name} has losses {[c.first['loss'], *c.losses]}, "
                         f"{exact[0].name} {[exact[0].first['loss'], *exact[0].losses]}: "
                         "not the same work")


def table(rows) -> str:
  """Markdown."""
  lines = ["| contender | batch | images/s (slowest to fastest) | ms/step | ratio | peak memory |",
           "|---|---|---|---|---|---|"]
  for r in rows:
    if "images_per_s" not in r:
      lines.append(f"| {r['name']} | {r['batch']} | failed: {r['error']} | | | |")
      continue
    lines.append(
        f"| {r['name']} | {r['batch']} | {r['images_per_s']:.4g} ({r['slowest']:.4g} to "
        f"{r['fastest']:.4g}) | {r['ms_per_step']:.4g} | {r['ratio_to_first'] or 0:.2f} | "
        f"{r['peak_bytes'] / 2**20:,.0f} MiB |")
  return "\n".join(lines)


def main(argv=None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
  parser.add_argument("--tasks", default="dae,annotation,perceptual,features,geometric,noisy")
  parser.add_argument("--size", choices=("full", "tiny"), default="full")
  parser.add_argument("--batch", default="", help="batch sizes instead of the setting's: 16,64")
  parser.add_argument("--sweep", action="store_true", help="GPU: batches 16 to 512")
  parser.add_argument("--peers", default="", help="comma-separated variants; none = no peer")
  parser.add_argument("--ours", default="", help="float32,bfloat16; 'bfloat16 x8': 8 steps a call")
  parser.add_argument("--repeats", type=int, default=5)
  parser.add_argument("--seconds", type=float, default=2.0, help="least length of a repeat")
  parser.add_argument("--alone", action="store_true",
                      help="one contender at a time has the memory; clocks may drift between them")
  parser.add_argument("--limit", type=float, default=600, help="seconds that an answer may take")
  parser.add_argument("--torch-python", default=sys.executable, dest="torch_python")
  parser.add_argument("--output", default="", help="JSON file")
  args = parser.parse_args(argv)
  chosen = {**settings.CONFIGS[args.size], **(settings.TINY if args.size == "tiny" else {
      "cpu": settings.CPU, "gpu": settings.GPU}[args.device])}
  peers = args.peers.split(",") if args.peers else (CPU_PEERS if args.device == "cpu"
                                                    else GPU_PEERS)
  peers = () if args.peers == "none" else peers
  ours = args.ours.split(",") if args.ours else (
      ("float32", "bfloat16") if args.device == "cpu" else ("float32", "bfloat16", "bfloat16 x8"))
  result = {"device": args.device, **report.machine(), "runs": []}
  for task in report.listed(parser, "--tasks", args.tasks, chosen):
    sizes = [int(b) for b in args.batch.split(",") if b] or (
        [16, 32, 64, 128, 256, 512] if args.sweep else [chosen[task]["batch"]])
    for batch in sizes:
      setting = {**chosen[task], "batch": batch}
      rows = contest(task, setting, peers, ours, args)
      result["runs"].append({"setting": setting, "rows": rows})
      print(f"\n{task}, {setting}\n\n{table(rows)}\n\n{result['cpu']}, {result['cores']} core(s), "
            f"{result['date']}, {[r['versions'] for r in (rows[0], rows[-1])]}", flush=True)
      if args.output:
        pathlib.Path(args.output).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
  main()
