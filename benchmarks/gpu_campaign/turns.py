"""Contenders of the campaign at one setting, measured in turn."""

from __future__ import annotations

from benchmarks import report, settings


def setting_of(task: str, args, **more) -> dict:
  """The task at its own batch, in bfloat16 where `more` says nothing else."""
  chosen = settings.TINY if args.size == "tiny" else settings.GPU
  return {**chosen[task], "variant": "bfloat16", **more}


def in_turn(contenders, args) -> dict:
  """{name: row} of contenders [(name, compare.Contender)], repeats in turn."""
  repeats, seconds = (2, 0.05) if args.size == "tiny" else (5, 0.4)
  try:
    for name, c in contenders:
      c.start()
      c.calibrate(seconds)
      report.say(f"{name}: {c.error or c.first['first_step_s']}")
    for _ in range(repeats):
      for _, c in contenders:
        c.measure()
    for _, c in contenders:
      c.count()
    return {name: c.row() for name, c in contenders}
  finally:
    for _, c in contenders:
      c.stop()
