"""One process of the preparation: a job a line on stdin, a result a line on stdout.

A process of its own rather than multiprocessing: it does not import the program that started it
(nor TensorFlow, nor JAX), and it ends by itself when that program is killed, because stdin closes.
"""

from __future__ import annotations

import json
import pathlib
import sys

from data_pipelines.brains import normalise, records
from data_pipelines.formats import nifti


def run(job: dict) -> dict:
  """Prepares one scan.

  Args:
    job: {"patient", "volumes": paths, "seg": path or None, "modalities", "size", "storage",
      "folder", "key"}.

  Returns:
    {"patient", "record": content} or {"patient", "bad": reason} or {"patient", "fatal": reason};
    fatal = not the scan's fault (a full disk): the preparation must stop.
  """
  patient = job["patient"]
  try:
    arrays = [nifti.read_volume(p) for p in job["volumes"]]
    seg = nifti.read_volume(job["seg"]) if job["seg"] else None
    try:
      prepared = normalise.prepare(arrays, seg, tuple(job["size"]))
    except normalise.BadScan as e:
      reason = str(e)
      for i, name in enumerate(job["modalities"]):
        reason = reason.replace(f"modality {i} ", f"{name} ")
      raise normalise.BadScan(reason) from e
  except normalise.BadScan as e:
    return {"patient": patient, "bad": str(e)}
  except MemoryError:
    return {"patient": patient, "fatal": "out of memory; lower config.data.workers"}
  try:
    record = records.write_record(pathlib.Path(job["folder"]), patient, prepared, job["storage"],
                                  job["key"])
  except OSError as e:
    return {"patient": patient, "fatal": f"cannot write to {job['folder']}: {e.strerror or e}"}
  return {"patient": patient, "record": record}


def main():
  """Jobs until stdin closes."""
  for line in sys.stdin:
    print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
  main()
