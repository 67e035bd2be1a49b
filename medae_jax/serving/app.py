"""The application: one page, three addresses of an API, one model at work for one request at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
import concurrent.futures
import math
import pathlib
import sys
import time
import traceback
from typing import Any

import fastapi
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from medae_jax.core import scratch
from medae_jax.core.errors import UserError
from medae_jax.serving import answers, guard, problems, uploads
from medae_jax.serving.problems import Problem

PREFIX = "medae_serve_"  # of temporary folders, by which the next start knows those of a killed one
_PAGE = pathlib.Path(__file__).parent / "templates"
_STATIC = {"/": ("page.html", "text/html"), "/page.js": ("page.js", "text/javascript"),
           "/page.css": ("page.css", "text/css"), "/icon.svg": ("icon.svg", "image/svg+xml")}
_INCLUDE = ("files", "view")
_ASKED = ("threshold", "include", "answer", "force")
_FAULT = "the server's terminal has the traceback; please report it"
_BODY = {"required": True, "content": {"multipart/form-data": {"schema": {
    "type": "object", "required": ["file"], "properties": {"file": {
        "type": "array", "items": {"type": "string", "format": "binary"},
        "description": "the files of one scan or image: NIfTI (a file a modality), a DICOM file or series, "
                       "PNG, JPEG, TIFF; or one .zip of them"}}}}}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": answers.Error, "description": problems.WORDS[status]}
    for status in (400, 403, 413, 415, 421, 422, 500, 503)}

# (folder of one input, folder to write, changed fields of the config, whether a view is asked for)
Score = Callable[[pathlib.Path, pathlib.Path, dict[str, Any], bool], answers.Scored]


def make(score: Score, info: answers.Info, hosts: set[str], numbers: bool = False,
         parent: pathlib.Path | None = None) -> guard.Guard:
  """The application behind its guard.

  Args:
    score: raises Problem or UserError where an input cannot be scored; one call at a time, always in
      the same thread.
    info: what /api/info says; `max_bytes` and `max_waiting` are the limits.
    hosts, numbers: of guard.Guard. parent: of temporary folders; None = the system's.
  """
  worker = concurrent.futures.ThreadPoolExecutor(1, "medae_score")
  queue = _Queue(worker, info.max_waiting)

  app = fastapi.FastAPI(
      title="medae_jax", version=info.version, docs_url=None, redoc_url=None,
      description="Anomaly maps of one run. Not a medical device: it computes maps and makes no diagnosis.")
  _add_errors(app)

  @app.get("/health", summary="ready, once the model is loaded")
  async def health() -> dict[str, Any]:
    return {"status": "ready", "waiting": queue.waiting}

  @app.get("/api/info", summary="the run, what it reads, and the limits", responses={403: _ERRORS[403]})
  async def about() -> answers.Info:
    return info

  @app.post("/api/score", response_model=answers.Result, responses=_ERRORS,
            openapi_extra={"requestBody": _BODY},
            summary="map, mask, score, p-value and verdict of one scan or image")
  async def scored(request: fastapi.Request, threshold: float = 0.0, include: str = "",
                   answer: str = "json", force: bool = False) -> Response:
    """`threshold`: of the map, 0 = that of validation. `include`: of files,view. `answer`: json or zip.
    `force`: also what does not fit what the run was trained on."""
    wanted = {w for w in include.split(",") if w}
    if wanted - set(_INCLUDE) or answer not in ("json", "zip") or not math.isfinite(threshold):
      raise Problem(400, "include is files, view or both with a comma; answer is json or zip; threshold a "
                    "number")
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
      raise Problem(415, "send multipart/form-data with the files of one scan in the field file: "
                    "curl -F file=@scan.nii.gz http://.../api/score")
    _check_asked(request)
    changed: dict[str, Any] = {"predict.threshold": threshold} if threshold else {}
    changed |= {"predict.force": True} if force else {}
    queue.check()  # before megabytes are read
    async with request.form(max_files=uploads.MOST_FILES, max_fields=10) as form:
      files = [(f.filename, f.file) for f in form.getlist("file") if not isinstance(f, str)]
      for name, value in form.multi_items():  # other texts may be there
        if name in _ASKED or not (name == "file" or isinstance(value, str)):
          raise Problem(400, f"nothing reads the field {name[:60]!a}: files go into the field file, "
                        "parameters into the address, ?threshold=0.2")
      if not files:
        raise Problem(400, "no file: send it in the field file, with its name")
      data = await queue.run(_job, score, files, changed, wanted, answer, parent,
                             info.max_bytes)
    if answer == "json":
      return Response(data, media_type="application/json")
    return Response(data, media_type="application/zip",
                    headers={"content-disposition": 'attachment; filename="results.zip"'})

  for address, (name, kind) in _STATIC.items():
    app.add_api_route(address, _static(name, kind), include_in_schema=False, methods=["GET"])
  return guard.Guard(app, hosts, numbers, info.max_bytes)


def _check_asked(request) -> None:
  """Refuses parameters of the address that nothing reads, misspelt perhaps, and what is there twice."""
  names = [name for name, _ in request.query_params.multi_items()]
  if wrong := next((name for name in names if name not in _ASKED or names.count(name) > 1), ""):
    raise Problem(400, f"{wrong[:60]!a} is there twice" if wrong in _ASKED else
                  f"nothing reads {wrong[:60]!a}: {', '.join(_ASKED)} are known")


class _Queue:
  """Requests in the order of their coming, one at work."""

  def __init__(self, worker, most: int):
    self._worker, self._most, self.waiting = worker, most, 0

  def check(self) -> None:
    """Raises Problem 503 where too many wait."""
    if self.waiting > self._most:
      raise Problem(503, f"{self.waiting} requests are at work or waiting: ask again in a few seconds")

  async def run(self, job, *args):
    """The job's result, once its turn has come."""
    self.check()
    self.waiting += 1
    try:
      return await asyncio.get_running_loop().run_in_executor(self._worker, job, *args)
    finally:
      self.waiting -= 1


def _job(score: Score, files, changed, wanted, answer: str, parent, most_bytes: int) -> bytes:
  """Saves, scores, packs; whatever happens, nothing stays on the disk."""
  with scratch.folder(parent, PREFIX) as folder:
    source, out = folder / "scan", folder / "results"
    source.mkdir()
    try:
      uploads.save(files, source, most_bytes)
      began = time.monotonic()
      found = score(source, out, changed, "view" in wanted)
      seconds = round(time.monotonic() - began, 3)
      return answers.as_zip(found) if answer == "zip" else answers.as_json(found, seconds, "files" in wanted)
    except (UserError, OSError, EOFError, MemoryError) as error:
      status = error.status if isinstance(error, Problem) else 422
      line = " ".join(str(error).split()) or type(error).__name__
      raise Problem(status, problems.without_places(line, source, out, folder)) from error


def _static(name: str, kind: str):
  data = (_PAGE / name).read_bytes()

  async def page() -> Response:
    return Response(data, media_type=kind)
  return page


def _add_errors(app: fastapi.FastAPI) -> None:
  """Every error as one line of JSON with its status."""
  answer = lambda status, line, headers=None: JSONResponse(problems.body(status, line), status, headers)

  @app.exception_handler(Problem)
  async def known(request, error):
    return answer(error.status, str(error), {"retry-after": "5"} if error.status == 503 else None)

  @app.exception_handler(HTTPException)
  async def http(request, error):
    words = {404: f"{request.url.path} is nothing here: /, /api/score, /api/info, /health, /openapi.json",
             405: f"{request.method} is not for {request.url.path}: see /openapi.json"}
    return answer(error.status_code, words.get(error.status_code, str(error.detail)), error.headers)

  @app.exception_handler(fastapi.exceptions.RequestValidationError)
  async def invalid(request, error):
    first = error.errors()[0]
    return answer(400, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}; see /openapi.json")

  @app.exception_handler(ClientDisconnect)
  async def gone(request, error):
    return answer(400, "the connection was closed before the end of the files")  # nobody reads it

  @app.exception_handler(Exception)
  async def fault(request, error):
    traceback.print_exception(error, file=sys.stderr)
    return answer(500, f"{type(error).__name__}: {_FAULT}")
