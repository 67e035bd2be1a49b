"""One scan of the preparation, from its files to its record; runs in data_pipelines/workers.py."""

from __future__ import annotations

import dataclasses
import logging
import pathlib

from data_pipelines import workers
from data_pipelines.brains import labels, normalise, records, volumes
from data_pipelines.errors import UserError
from data_pipelines.ops import anatomy


def run(job: dict) -> dict:
  """Prepares one scan.

  Args:
    job: {"patient", "volumes": paths, "seg": path or None, "modalities", "size", "storage",
      "folder", "key", "orientation", "placement", "field_mm", "unit", "lesion_values"}.

  Returns:
    {"record": content}, {"bad": reason}, {"memory": reason} (it may fit alone) or {"fatal": reason};
    fatal = not the scan's fault (a full disk): the preparation must stop.
  """
  patient = job["patient"]
  try:
    read = volumes.read(dict(zip(job["modalities"], job["volumes"])), job["orientation"], job["seg"])
    seg = None if read.seg is None else labels.lesions(read.seg, job["lesion_values"])
    if seg is not None:
      anatomy.check_label(seg, read.arrays, 1.0 if job["lesion_values"] else anatomy.MOST)
    prepared = normalise.prepare(read.arrays, seg, tuple(job["size"]), read.spacing, job["placement"],
                                 job["field_mm"], job["unit"], job["modalities"])
  except (UserError, FileNotFoundError) as e:
    return {"bad": str(e)}
  except MemoryError:
    return {"memory": "out of memory"}
  flair = next((v for m, v in zip(job["modalities"], read.arrays) if m.lower() == "flair"), None)
  if seg is not None and flair is not None and not job["lesion_values"]:  # of one kind, a cavity is dark
    doubts = prepared.left_out, anatomy.mirrored(seg, flair)
    prepared = dataclasses.replace(prepared, left_out="; ".join(filter(None, doubts)))
  if prepared.left_out:
    logging.warning("%s: %s", patient, prepared.left_out)
  try:
    record = records.write_record(pathlib.Path(job["folder"]), patient, prepared, job["storage"],
                                  job["key"], read.spacing if read.grid.known else (),
                                  {} if read.seg is None else labels.counts(read.seg))
  except OSError as e:
    return {"fatal": f"cannot write to {job['folder']}: {e.strerror or e}"}
  return {"record": record}


if __name__ == "__main__":
  workers.serve(run)
