"""What the comparison with PyTorch measures: with workers whose seconds are known."""

import argparse
import io
import json
import os
import subprocess
import sys
import types

import pytest

from benchmarks import compare, report, worker


class Fake(compare.Contender):
  """A contender whose worker takes `step` seconds a step and half of that on cores."""

  def __init__(self, name, setting=None, step=0.01, losses=(3.0, 2.0, 1.0), log=None):
    self.side, _, self.variant = name.partition(" ")
    self.name, self.setting, self.step, self.log = name, {"batch": 4, **(setting or {})}, step, log
    self.first, self.seconds, self.cpu_seconds, self.losses, self.memory = {}, [], [], [], 0
    self.units, self.error, self.program, self._losses = 1, None, None, list(losses)

  def note(self, what):
    if self.log is not None:
      self.log.append((self.name, what))

  def ask(self, command=None):
    if "program" in command:
      self.note("program")
    if "build" in command:
      return {"first_step_s": 9.0, "loss": self._losses[0], "versions": {"jax": "1"}}
    if "program" in command:
      return {"kernels": 3}
    n = command["steps"]
    return {"seconds": n * self.step, "cpu_seconds": n * self.step / 2, "memory": 7,
            "loss": self._losses[min(len(self.losses) + 1, 2)]}

  def measure(self):
    self.note("measure")
    super().measure()

  def stop(self):
    self.note("stop")


@pytest.mark.parametrize("step, units", [(0.01, 200), (0.7, 3), (0.6, 3), (10.0, 1), (1e-9, 4096 * 488281)])
def test_as_many_steps_as_fill_the_seconds(step, units):
  """Doubled until a third of them is filled, or at 4096: what is shorter is no time to go by."""
  found = Fake("ours float32", step=step)
  found.calibrate(2.0)
  assert found.units == pytest.approx(units, rel=1e-3)


def test_figures_are_of_an_image_and_a_step_and_the_median_is_taken():
  found = Fake("ours float32", {"batch": 4, "steps_per_call": 2})
  found.units = 5
  for step in (1.0, 4.0, 2.0):  # of one dispatch: 8 images, 2 steps
    found.step = step
    found.measure()
  row = found.row()
  assert (row["slowest"], row["images_per_s"], row["fastest"], row["repeats"]) == (2.0, 4.0, 8.0, 3)
  assert row["ms_per_step"] == 1000.0 and row["cpu_s_per_image"] == 1 / 8 and row["peak_bytes"] == 7
  assert row["images_per_dispatch"] == 8 and row["batch"] == 4
  found.count()
  assert found.program is None  # of a scan XLA counts one round
  assert "images_per_s" not in Fake("ours x").row()


@pytest.mark.parametrize("alone", [False, True])
def test_contenders_take_turns_and_ratios_are_to_the_first(monkeypatch, alone):
  log, made = [], []

  def make(side, variant, setting, device, python, limit):
    made.append((side, variant, setting.get("steps_per_call", 1), device, python, limit))
    return Fake(f"{side} {variant}", setting, {"peer": 0.02, "ours": 0.01}[side], log=log)
  monkeypatch.setattr(compare, "Contender", make)
  asked = argparse.Namespace(device="cpu", torch_python="torch", limit=5, alone=alone, seconds=2.0, repeats=2)
  rows = compare.contest("dae", {"batch": 4}, ("eager float32",), ("float32", "bfloat16 x8"), asked)
  assert made == [("peer", "eager float32", 1, "cpu", "torch", 5),
                  ("ours", "float32", 1, "cpu", sys.executable, 5),
                  ("ours", "bfloat16", 8, "cpu", sys.executable, 5)]
  assert [r["ratio_to_first"] for r in rows] == pytest.approx([1, 2, 16])
  assert [r["images_per_s"] for r in rows] == pytest.approx([200, 400, 3200])
  names = ["peer eager float32", "ours float32", "ours bfloat16"]
  turns = [name for name, what in log if what == "measure"]
  assert turns == ([n for n in names for _ in range(2)] if alone else names * 2)
  assert [n for n, what in log if what == "program"] == ["ours float32"]
  assert [n for n, what in log if what == "stop"] == names and (log[-1][1] == "stop")
  assert rows[0]["loss"] == [3.0, 2.0, 1.0]


@pytest.mark.parametrize("name, losses, steps, refused", [
    ("ours float32", (3.0, 2.0, 1.0), 1, False), ("ours float32", (3.003, 2.001, 1.001), 1, False),
    ("ours float32", (3.01, 2.0, 1.0), 1, True), ("ours float32", (3.0, 2.0, 0.99), 1, True),
    ("ours float32", (3.0, 2.01, 1.0), 1, True), ("ours bfloat16", (4.0, 3.0, 2.0), 1, False),
    ("ours float32", (4.0, 3.0, 2.0), 8, False)])
def test_contenders_of_one_precision_do_the_same_work(monkeypatch, name, losses, steps, refused):
  both = [Fake("peer eager float32 flushed"), Fake(name, {"steps_per_call": steps}, losses=losses)]
  for contender in both:
    contender.start()
  if refused:
    with pytest.raises(ValueError, match="not the same work"):
      compare._check_losses("dae", both)
  else:
    compare._check_losses("dae", both)
    both[1].error = "gone"
    compare._check_losses("dae", both)


def test_a_worker_that_dies_or_hangs_is_said_and_the_others_go_on(monkeypatch):
  seen = []
  starter = subprocess.Popen

  def popen(command, env, **how):
    seen.append((command, env))
    script = {"answer": "import sys; [print('{\"seconds\": 1}', flush=True) for _ in sys.stdin]",
              "die": "import sys; sys.stdin.readline(); raise SystemExit('no memory')",
              "hang": "import sys; sys.stdin.read()"}[json.loads(command[3])["variant"]]
    return starter([sys.executable, "-S", "-c", script], env=env, **how)
  monkeypatch.setattr(compare.subprocess, "Popen", popen)
  make = lambda variant, limit, device="cpu": compare.Contender(
      "ours", variant, {"batch": 1}, device, "python", limit, {"MORE": "1"})
  answer, die, hang = make("answer", 60), make("die", 60), make("hang", 0.2, "gpu")
  assert answer.ask({"steps": 1}) == {"seconds": 1} and answer.error is None
  assert die.ask({"steps": 1}) is None and die.error == "no memory" and die.ask() is None
  assert hang.ask({"steps": 1}) is None and hang.error == "took longer than 0 s"
  for contender in (answer, die, hang):
    contender.stop()
    assert contender.process.poll() is not None
  command, env = seen[0]
  assert command[:3] == ["python", "-m", "benchmarks.worker"]
  assert json.loads(command[3]) == {"batch": 1, "side": "ours", "variant": "answer", "device": "cpu"}
  wanted = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "MORE": "1", **report.HUGE_PAGES,
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
  assert wanted.items() <= env.items() and str(report.ROOT) in env["PYTHONPATH"]
  assert seen[2][1].get("GLIBC_TUNABLES") == os.environ.get("GLIBC_TUNABLES")


def test_a_worker_times_the_steps_asked_for_and_not_the_one_before(monkeypatch):
  """Each step takes a second more than the last one, half of it on cores; fetching the result counts."""
  clock, losses, out = {"now": 100.0, "steps": 0}, [], io.StringIO()
  lines = io.StringIO('{"build": true}\n{"steps": 1}\n{"steps": 3}\n{"steps": 1, "warm_s": 10}\n'
                      '{"program": true}\n')

  class Loss(float):
    def __float__(self):
      clock["now"] += 0.25  # waits for the device
      return super().__float__()

  def build(setting, tensors, batch, device):
    assert (setting["task"], tensors, batch, device) == ("x", "t", "b", "cpu") and lines.tell() == 16

    def step():
      clock["steps"] += 1
      clock["now"] += clock["steps"]
      losses.append(Loss(clock["steps"]))
      return losses[-1]
    return step
  monkeypatch.setattr(sys, "argv", ["worker", json.dumps({"side": "ours", "device": "cpu", "task": "x"})])
  monkeypatch.setattr(sys, "stdin", lines)
  monkeypatch.setattr(os, "dup", lambda _: -1)
  monkeypatch.setattr(os, "dup2", lambda *_: None)
  monkeypatch.setattr(os, "fdopen", lambda *_: out)
  monkeypatch.setitem(sys.modules, "benchmarks.package_steps", types.SimpleNamespace(build=build))
  from benchmarks import settings
  monkeypatch.setattr(settings, "make", lambda setting: ("t", "b"))
  monkeypatch.setattr(worker.time, "perf_counter", lambda: clock["now"])
  monkeypatch.setattr(worker.time, "process_time", lambda: clock["now"] / 2)
  worker.main()
  first, one, three, warm, program = map(json.loads, out.getvalue().splitlines())
  assert first["first_step_s"] == 1.25 and first["loss"] == 1 and "jax" in first["versions"]
  assert (one["seconds"], one["cpu_seconds"], one["loss"]) == (3.25, 1.625, 3)  # step 2 is not timed
  assert (three["seconds"], three["loss"]) == (5 + 6 + 7 + 0.25, 7) and three["memory"] > 2**20
  assert (warm["seconds"], warm["loss"]) == (10.25, 10)  # 8 and 9 take 10 s and more
  assert program is None
