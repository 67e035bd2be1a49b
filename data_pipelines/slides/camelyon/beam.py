"""The slides of a preparation as an Apache Beam pipeline; needs apache-beam (the extra `beam`).

The same function a slide as in processes (slide_job.run): equal files. The target must be a folder that all
workers see under one name (NFS, Lustre, a mounted bucket).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import json
import logging
from typing import Any

from data_pipelines import store as stores
from data_pipelines.errors import UserError
from data_pipelines.slides.camelyon import slide_job


def run_job(text: str) -> str:
  """slide_job.run of a job and its result in JSON; {"job", "result"}."""
  job = json.loads(text)
  return json.dumps({"job": job, "result": slide_job.run(job)})


def pool(target, options: Sequence[str]):
  """What run.prepare takes as its pool.

  Args:
    target: of the preparation; the results lie in it while the pipeline runs.
    options: of Beam: ["--runner=DirectRunner", "--direct_num_workers=2", ...], Dataflow's or Flink's own.

  Raises:
    UserError: apache-beam is not installed.
  """
  try:
    import apache_beam
    from apache_beam.options.pipeline_options import PipelineOptions
  except ModuleNotFoundError:
    raise UserError("--runner needs Apache Beam: pip install 'medae-jax[beam]'") from None
  logging.getLogger("apache_beam").setLevel(logging.WARNING)

  def run(jobs: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    with stores.Store(target).scratch_folder() as results:
      with apache_beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        (pipeline | apache_beam.Create([json.dumps(j) for j in jobs]) | apache_beam.Reshuffle()
         | apache_beam.Map(run_job) | apache_beam.io.WriteToText(str(results / "part")))
      for file in sorted(results.glob("part*")):
        for line in file.read_text(encoding="utf-8").splitlines():
          done = json.loads(line)
          yield done["job"], done["result"]
  return run
