"""One slide of Camelyon16 through its steps, under a claim; runs in data_pipelines/workers.py and in Beam."""

from __future__ import annotations

from typing import Any

from data_pipelines import claims, store as stores, workers
from data_pipelines.errors import UserError
from data_pipelines.slides.camelyon import colours, settings as fields, steps
from data_pipelines.slides.camelyon.source import Entry

# In the order of work. The two kinds of patches are one step: a slide has one of them.
WORK = {"annotations": steps.annotate, "masks": steps.mask, "cut": steps.cut, "stain": colours.normalise,
        "merge": colours.merge, "resize": colours.resize}


def run(job: dict) -> dict[str, Any]:
  """Does what is missing of a slide.

  Args:
    job: {"settings": of Settings.as_json, "entry": fields of Entry, "steps": some of settings.STEPS,
      "stale": seconds after which the claim of another machine is void}.

  Returns:
    {"done": steps that were missing}; {"bad": reason}, the slide is left out; {"held": who else is at it};
    {"fatal": reason}, the target cannot be written: all must stop.
  """
  settings = fields.from_json(job["settings"])
  entry = Entry(**{**job["entry"], "names": None if job["entry"]["names"] is None
                   else tuple(job["entry"]["names"])})
  store = stores.Store(settings.target)
  try:
    with claims.claimed(store.folder / stores.LOCKS, entry.name, job["stale"]) as holder:
      if holder:
        return {"held": holder}
      return _claimed(entry, settings, store, job["steps"])
  except OSError as error:  # of the claim itself
    return {"fatal": f"cannot write to {settings.target}: {error.strerror or error}"}
  finally:
    store.close()


def _claimed(entry, settings, store, wanted):
  slide = steps.Slide(entry, settings, store)
  reason = ""
  try:
    return {"done": [step for step in _steps(slide, wanted) if _step(slide, step)]}
  except stores.CannotWrite as error:
    return {"fatal": error.strerror or str(error)}
  except MemoryError:
    reason = "out of memory"
  except (UserError, OSError) as error:
    reason = " ".join(str(error).split())
  finally:
    slide.close()
  return {"bad": reason}


def _steps(slide, wanted):
  """Of the steps asked for, those that this slide has."""
  kind = slide.entry.kind
  for step in WORK:
    asked = (kind if step == "cut" else step) in wanted
    # Slides cut by a list need no annotation: they may have one.
    annotated = kind == "tumor" and (bool(slide.entry.xml) or slide.entry.names is None)
    if asked and (annotated or step not in ("annotations", "masks")) and (
        slide.settings.stain or step != "stain"):
      yield step


def _step(slide, step) -> bool:
  """Does a step where its record is missing or of another key; whether it was."""
  key, work = WORK[step](slide)
  if slide.store.record(slide.entry.name, step, key):
    return False
  slide.store.write_record(slide.entry.name, step, {"key": key, **work()})
  return True


if __name__ == "__main__":
  workers.serve(run)
