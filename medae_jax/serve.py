"""Serving: one run behind a web page and an HTTP API on this computer; docs/serve.md.

An input goes through `predict` into a temporary folder: the numbers and files are those of --mode=predict.
Nothing is kept: the folder goes with the request, and what a killed server has left goes at the next start.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
import csv
import logging as std_logging
import os
import pathlib
import socket
import tempfile
from typing import Any

from absl import logging
import numpy as np

from data_pipelines.intake import find as finder
import medae_jax
from medae_jax import predict
from medae_jax.core import calibration as calibrate, scoring, scratch, trained
from medae_jax.core.errors import UserError
from medae_jax.core.exported import opened
from medae_jax.core.trained_on import record
from medae_jax.reporting import panels
from medae_jax.tasks import admit, base, score_of, view as views

MAX_MB, MAX_WAITING = 512, 8


def serve(workdir, overrides: Mapping[str, Any] | None = None, *, host: str = "127.0.0.1", port: int = 8000,
          host_names: Collection[str] = (), max_mb: int = MAX_MB) -> None:
  """Serves the run in `workdir`, or the export, until a signal comes.

  Args:
    overrides: on top of config.json. host, port: where to listen; port 0 = any free one.
    host_names: more names by which it is called, behind a proxy. max_mb: of a request, in MiB.

  Raises:
    UserError: the extra `serve` is not installed. FileNotFoundError: no run there. OSError: the port
    is taken.
  """
  uvicorn = _uvicorn()
  from medae_jax.serving import guard
  host = guard.address(host)
  application = make_app(workdir, overrides, host=host, host_names=host_names, max_mb=max_mb)
  try:
    listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
  except OSError as e:
    raise OSError(f"--host={host} --port={port}: {e.strerror or e}; choose another one, 0 takes any free "
                  "one") from e
  for handler in (logging.get_absl_handler(), *std_logging.getLogger().handlers):
    handler.setLevel(std_logging.CRITICAL + 1)  # names of scans are nobody's business: no log has them
  where = f"[{host}]" if ":" in host else host
  print(f"medae_jax: serving {workdir} on http://{where}:{listening.getsockname()[1]}/ (Ctrl-C ends it)",
        flush=True)
  server = uvicorn.Server(uvicorn.Config(application, log_level="critical", access_log=False,
                                         server_header=False, timeout_graceful_shutdown=30))
  try:
    server.run(sockets=[listening])
  except KeyboardInterrupt:  # uvicorn raises it again, once the requests are answered
    print("medae_jax: stopped")


def make_app(workdir, overrides: Mapping[str, Any] | None = None, *, host: str = "127.0.0.1",
             host_names: Collection[str] = (), max_mb: int = MAX_MB, parent: pathlib.Path | None = None):
  """The ASGI application of a run, its program compiled; `parent`: of temporary folders, None = the system's.

  What servers that were killed have left there is removed.
  """
  _uvicorn()
  from medae_jax.serving import app, guard
  run = opened.load(workdir, overrides)
  base.check(run.config, run.image_shape)  # as predict does: at the start, not in each request
  scoring.check_fields(run, pathlib.Path(workdir))
  scratch.remove_litter(pathlib.Path(parent or tempfile.gettempdir()), app.PREFIX)
  warm(run)
  return app.make(_scorer(pathlib.Path(workdir), run), _info(pathlib.Path(workdir), run, max_mb * 2**20),
                  guard.known_hosts(host, host_names), not guard.is_loopback(host), parent)


def warm(run: trained.Trained) -> None:
  """Compiles the score for the batches that predict makes; tiles of restoration have many sizes."""
  kind, shape = run.config.eval.kind, run.image_shape
  if kind in ("anomaly", "segmentation") and shape and tuple(run.method.score_needs) == ("image",):
    n = int(run.config.predict.batch_size) if kind == "anomaly" else 1
    run.score(np.zeros((n, *shape), np.float32))
  run.score_fn  # noqa: B018 - made here, one compiled program serves all requests


def _scorer(workdir: pathlib.Path, run: trained.Trained):
  """The function that the application calls: serving.app.Score."""
  from medae_jax.serving import answers, problems

  def score(source: pathlib.Path, out: pathlib.Path, changed: dict[str, Any], view: bool) -> answers.Scored:
    if not any(finder.kind_of(p) in ("nifti", "image", "dicom") for p in source.iterdir()):
      names = ", ".join(sorted(p.name for p in source.iterdir())[:3])
      raise problems.Problem(415, f"{names}: no scan and no image; send NIfTI, DICOM, PNG, JPEG or TIFF "
                             "under their usual endings")
    place = {"predict.input": os.fspath(source), "predict.output": os.fspath(out)}
    try:
      (row,) = predict.predict(workdir, {**changed, **place}, run=run, at_most=1)
    except UserError as error:
      if (out / "errors.log").is_file():
        raise RuntimeError((out / "errors.log").read_text(errors="replace")) from error
      line = (_reason(out) or str(error)).replace(admit.INSIST, "force=true insists")
      raise problems.Problem(422, line) from error
    found = score_of.files(out, row)
    shown = views.of(source, run.config, run.calibration, found) if view else None
    return answers.Scored(found, out, shown)
  return score


def _reason(out: pathlib.Path) -> str:
  """Why the one input failed, as its row of predictions.csv says; "" where there is no row."""
  if not (out / finder.RESULTS).is_file():
    return ""
  with open(out / finder.RESULTS, newline="", encoding="utf-8") as file:
    failed = [r for r in csv.DictReader(file) if r.get("error") and r.get("input")]
  if not failed:
    return ""
  name, line = failed[0]["input"], failed[0]["error"]
  return line if name in line else f"{name}: {line}"


def _info(workdir: pathlib.Path, run: trained.Trained, max_bytes: int):
  from medae_jax.serving import answers
  told, known = record.read(workdir), run.calibration or {}
  modalities = list(run.config.data.get("modalities", ()))
  kinds = ("nifti", "image", "dicom") if modalities else ("image", "dicom")
  return answers.Info(
      version=medae_jax.__version__, run=workdir.absolute().name, method=run.config.method.name,
      task=run.config.eval.kind, checkpoint=run.checkpoint,
      trained_on=told.mark if told else "", modalities=modalities,
      reads=[s for k in kinds for s in finder.SUFFIXES[k]],
      threshold=run.config.predict.get("threshold", 0) or known.get("threshold"),
      calibration=calibrate.explain(known) if known else "", max_bytes=max_bytes, max_waiting=MAX_WAITING,
      colours=panels.heat(np.linspace(0, 1, 256)[None], 1.0)[0].tolist())


def _uvicorn():
  try:
    import fastapi  # noqa: F401
    import python_multipart  # noqa: F401
    import uvicorn
  except ImportError as e:
    raise UserError(f"--mode=serve needs {e.name}: pip install \"medae-jax[serve]\"") from e
  return uvicorn
