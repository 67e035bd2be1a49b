"""What a run costs, said before it is paid: memory by XLA's plan, time by the first steps."""

from __future__ import annotations

import datetime

from absl import logging
import jax

from medae_jax.core.device import memory


def announce(step, state, batches, size: int, config) -> None:
  """Compiles the step ahead (its first call then compiles nothing) and logs what it needs of memory.

  Args:
    step: of parallel.train_step_fn, called with state and batches next. size: images of the global batch.
  """
  plan = planned(step, state, batches, size)
  if plan is None:
    return
  logging.info("%s", plan.line())
  if plan.fits is False:
    logging.warning("That is more than there is. If it runs out: %s", remedies(config, plan.largest_batch))


def planned(step, state, batches, size: int) -> memory.Plan | None:
  """The plan of a step; None with several processes, where lowering would take the state's memory (pmap
  makes global arrays of donated ones), and where the backend has none."""
  if jax.process_count() > 1:
    return None
  return memory.plan(step.lower(state, batches).compile(), state, size)


def remedies(config, largest_batch: int | None = None) -> str:
  """The fields of this config that lower the memory of a step, with values to try."""
  t, model = config.train, config.get("model", {})
  size = int(t.batch_size)
  smaller = largest_batch if largest_batch and largest_batch < size else max(size // 2, 1)
  found = [f"config.train.batch_size={smaller} instead of {size}"] if size > 1 else []
  if size // max(int(t.accum), 1) > 1:
    found.append(f"config.train.accum={2 * int(t.accum)} (slices a batch is cut into; now {int(t.accum)})")
  if model.get("remat", None) is False:
    found.append("config.model.remat=True (activations computed twice instead of kept)")
  if model.get("dtype", None) == "float32":
    found.append("config.model.dtype=bfloat16")
  if config.data.get("resident", False):
    found.append("config.data.resident=False")
  return "set " + ", or ".join(found) if found else "use a device with more memory"


def expected(steps: int, seconds_a_step: float, now: datetime.datetime | None = None) -> str:
  """"900 steps of 120 ms: about 1 min 48 s, until 14:03" """
  each = f"{1e3 * seconds_a_step:.3g} ms" if seconds_a_step < 1 else f"{seconds_a_step:.3g} s"
  return f"{steps:,} steps of {each}: {_about(steps * seconds_a_step, now)}, without validation and saving"


def left(runs: int, done: int, seconds: float, now: datetime.datetime | None = None) -> str:
  """"3 of 9 runs done, 5 min 30 s each; the others: about 33 min 0 s, until 14:36"

  Args:
    runs: to do when this process began; done: of these, in `seconds`.
  """
  each = seconds / done
  rest = f"; the others: {_about((runs - done) * each, now)}" if done < runs else ""
  return f"{done} of {runs} runs done, {_duration(each)} each{rest}"


def _about(seconds: float, now: datetime.datetime | None) -> str:
  end = (now or datetime.datetime.now()) + datetime.timedelta(seconds=seconds)
  day = f"{end:%Y-%m-%d %H:%M}" if seconds > 12 * 3600 else f"{end:%H:%M}"
  return f"about {_duration(seconds)}, until {day}"


def _duration(seconds: float) -> str:
  units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
  parts, rest = [], max(round(seconds), 1)
  for size, name in units:
    if rest >= size or parts:
      parts.append(f"{rest // size} {name}")
    rest %= size
  return " ".join(parts[:2])
