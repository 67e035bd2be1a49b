"""A preparation of Camelyon16: many slides in processes of this machine, beside other machines.

As many processes and machines as one likes run the same command on one target: a slide is worked on by
whoever claims it first, and each of them ends when all slides are done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import logging
from typing import Any

from data_pipelines import claims, store as stores, workers
from data_pipelines.errors import UserError
from data_pipelines.slides.camelyon import colours, finish, settings as fields, slide_job, source

_MEMORY = 1e9  # bytes a process takes: TensorFlow is not loaded; thumbnails, a patch, its densities

Pool = Callable[[list[dict[str, Any]]], Iterator[tuple[dict[str, Any], dict[str, Any]]]]


def prepare(settings: fields.Settings, steps: Sequence[str] = fields.STEPS, count: int = 0,
            strict: bool = False, stale: float = claims.STALE, pool: Pool | None = None) -> dict[str, Any]:
  """Does what is missing of the steps.

  Args:
    settings: of settings.resolve.
    steps: of settings.STEPS, in any order.
    count: processes; 0 = as many as there are cores and memory.
    strict: a slide that is left out is an error, after all others are done.
    stale: seconds without a sign of life after which another machine's claim is void.
    pool: (job, result) of jobs, in any order; None = `count` processes (beam.pool: Apache Beam).

  Returns:
    The report: report.json where the lists are among the steps, else {"left_out": {slide: reason}}.

  Raises:
    UserError: no slide can be prepared; the target holds a preparation with other settings; strict.
    FileNotFoundError: source or lists. OSError: the target cannot be written.
  """
  entries, left_out = source.find(settings)
  total = len(entries) + len(left_out)
  store = stores.Store(settings.target)
  try:
    listed = [name for e in entries for name in e.names or ()]
    store.settle({**settings.matters(), "names": stores.digest(listed)})
    store.clear()
    if settings.stain and {"target", "stain"} & {*steps}:
      every = source.find(dataclasses.replace(settings, names="", left_out=()))[0]
      colours.target(next((e for e in every if e.name == settings.target_slide), None), settings, store)
    wanted = [s for s in steps if s not in ("target", "lists")]
    if wanted:
      left_out.update(_work(entries, settings, wanted, stale, pool or _processes(count)))
    report = finish.write(entries, left_out, settings, store) if "lists" in steps else {
        "left_out": dict(sorted(left_out.items()))}
  finally:
    store.close()
  _say(left_out, total, strict)
  return report


def _processes(count):
  return lambda jobs: workers.run(slide_job, jobs, count or workers.default_count(_MEMORY))


def jobs(entries, settings, steps, stale) -> list[dict[str, Any]]:
  """One a slide, as slide_job.run takes them."""
  return [{"settings": settings.as_json(), "entry": dataclasses.asdict(e), "steps": list(steps),
           "stale": stale} for e in entries]


def _work(entries, settings, steps, stale, pool) -> dict[str, str]:
  """{slide: why it is left out} after all slides are done, here or elsewhere."""
  wanted = jobs(entries, settings, steps, stale)
  bad: dict[str, str] = {}
  progress = workers.Progress(len(wanted), "slide", "prepared")
  try:
    for job, result in claims.until_done(wanted, pool, lambda job: f"slide {job['entry']['name']}"):
      if "bad" in result:
        bad[job["entry"]["name"]] = result["bad"]
      progress.step(len(bad))
  finally:
    progress.close()
  return bad


def _say(left_out, total, strict):
  """Names what is left out in the log; raises where nothing is left, or nothing may be left out."""
  for slide, reason in sorted(left_out.items()):
    logging.warning("slide %s left out: %s", slide, reason)
  named = "; ".join(f"{s}: {r}" for s, r in sorted(left_out.items())[:3])
  named += f"; and {len(left_out) - 3} more" if len(left_out) > 3 else ""
  if left_out and len(left_out) >= total:
    raise UserError(f"none of the {len(left_out)} slides can be prepared ({named})")
  if left_out and strict:
    raise UserError(f"{len(left_out)} of {total} slides are left out and --strict is set ({named})")
