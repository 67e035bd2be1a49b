"""Requests to an ASGI application in this process, and a real server of it for a browser."""

import asyncio
import contextlib
import json
import socket
import threading

import uvicorn

HOST = {"host": "127.0.0.1:8000"}


def ask(app, method, path, headers=None, pieces=(b"",)):
  """(status, headers, body) of one request; `pieces`: of its body."""
  return asyncio.run(_ask(app, method, path, headers or {}, pieces))


async def _ask(app, method, path, headers, pieces):
  path, _, query = path.partition("?")
  scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
           "raw_path": path.encode(), "query_string": query.encode(), "root_path": "", "scheme": "http",
           "headers": [(k.encode(), v.encode()) for k, v in {**HOST, **headers}.items()]}
  left, sent = list(pieces), []

  async def receive():
    if not left:
      return {"type": "http.disconnect"}
    return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

  async def send(message):
    sent.append(message)
  await app(scope, receive, send)
  assert [m["type"] for m in sent].count("http.response.start") == 1
  found = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
  return sent[0]["status"], found, b"".join(m.get("body", b"") for m in sent[1:])


def form(files):
  """(headers, body) of multipart/form-data with (name, content) in the field file."""
  head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="%s"\r\n\r\n'
  parts = [head % name.encode() + content + b"\r\n" for name, content in files]
  body = b"".join(parts) + b"--x--\r\n"
  return {"content-type": "multipart/form-data; boundary=x", "content-length": str(len(body))}, body


def post(app, files, query="", **headers):
  """(status, JSON or bytes) of /api/score."""
  given, body = form(files)
  status, found, data = ask(app, "POST", f"/api/score{query}", {**given, **headers}, [body])
  return status, json.loads(data) if found["content-type"] == "application/json" else data


@contextlib.contextmanager
def server(app):
  """Its address, served by uvicorn on a free port."""
  listening = socket.create_server(("127.0.0.1", 0))
  running = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False))
  thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
  thread.start()
  try:
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
  finally:
    running.should_exit = True
    thread.join()
    listening.close()
