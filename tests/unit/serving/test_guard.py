"""Which requests get through, and what every answer carries."""

import asyncio
import json
import pathlib
import re

import pytest

from medae_jax.core.errors import UserError
from medae_jax.serving import guard
from tests.unit.serving import asking

TEMPLATES = pathlib.Path(guard.__file__).parent / "templates"


async def hello(scope, receive, send):
  await send({"type": "http.response.start", "status": 200, "headers": []})
  await send({"type": "http.response.body", "body": b"hello"})


@pytest.mark.parametrize("host,local,everywhere", [
    ("127.0.0.1:8000", 200, 200), ("localhost:9", 200, 200), ("LOCALHOST", 200, 200),
    ("[::1]:8000", 200, 200), ("evil.example", 421, 421), ("evil.example:8000", 421, 421),
    ("localhost.evil.example", 421, 421), ("", 421, 421),
    ("0.0.0.0:8000", 421, 200), ("::1", 200, 200),
    ("192.168.1.7:8000", 421, 200), ("[fe80::1]:8000", 421, 200), ("scans.clinic.example", 421, 200)])
def test_hosts(host, local, everywhere):
  here = guard.Guard(hello, guard.known_hosts("127.0.0.1"), False, 10)
  open_ = guard.Guard(hello, guard.known_hosts("0.0.0.0", ["scans.clinic.example"]), True, 10)
  assert asking.ask(here, "GET", "/", {"host": host})[0] == local
  assert asking.ask(open_, "GET", "/", {"host": host})[0] == everywhere


@pytest.mark.parametrize("headers,path,status", [
    ({}, "/api/score", 200),  # curl
    ({"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}, "/api/score", 200),
    ({"origin": "http://127.0.0.1:9000"}, "/api/score", 403), ({"origin": "null"}, "/api/score", 403),
    ({"origin": "https://evil.example"}, "/api/score", 403), ({"origin": ""}, "/", 403),
    ({"origin": "http://27.0.0.1:8000"}, "/", 403), ({"content-length": "10"}, "/api/score", 200),
    ({"sec-fetch-site": "cross-site"}, "/api/info", 403), ({"sec-fetch-site": "same-site"}, "/page.js", 403),
    ({"sec-fetch-site": "cross-site"}, "/", 200),  # a link to the page
    ({"content-length": "11"}, "/api/score", 413), ({"content-length": "-1"}, "/api/score", 400)])
def test_other_sites_and_sizes(headers, path, status):
  app = guard.Guard(hello, guard.known_hosts("127.0.0.1"), False, 10)
  got, sent, body = asking.ask(app, "POST", path, headers)
  assert got == status
  for name, value in guard.HEADERS.items():
    assert sent[name] == value
  if status != 200:
    assert json.loads(body)["status"] == status


def test_the_page_has_nothing_inline(app):
  kinds = {}
  for path in ("/", "/page.js", "/page.css", "/icon.svg"):
    status, sent, body = asking.ask(app, "GET", path)
    assert status == 200 and "'unsafe" not in sent["content-security-policy"]
    kinds[path] = sent["content-type"]
    assert body == (TEMPLATES / (path.strip("/") or "page.html")).read_bytes()
    assert not re.search(rb"https?://(?!www\.w3\.org)", body)  # nothing is fetched from elsewhere
    if path == "/":
      assert not re.search(rb"<style|<script(?![^>]*src=)|\sstyle=|\son\w+=", body)
  assert [k.partition(";")[0] for k in kinds.values()] == [
      "text/html", "text/javascript", "text/css", "image/svg+xml"]


def test_a_body_of_just_the_limit_is_taken_whether_its_length_was_said_or_not():
  app = guard.Guard(reading([]), guard.known_hosts("127.0.0.1"), False, 10)
  for headers in ({}, {"content-length": "10"}):
    assert asking.ask(app, "POST", "/", headers, [b"12345", b"67890"])[0] == 200


def test_only_who_listens_to_others_is_called_by_the_machine_s_name(monkeypatch):
  monkeypatch.setattr(guard.socket, "gethostname", lambda: "Workstation")
  monkeypatch.setattr(guard.socket, "getfqdn", lambda: "workstation.clinic.example")
  assert guard.known_hosts("127.0.0.1", ["Mine"]) == {"localhost", "127.0.0.1", "::1", "mine"}
  assert guard.known_hosts("10.0.0.1") - guard.known_hosts("127.0.0.1") == {
      "10.0.0.1", "workstation", "workstation.clinic.example"}


def test_addresses():
  for host in ("127.0.0.1", "localhost", "::1", "127.8.0.1", "LOCALHOST", " 127.0.0.1", "[::1]"):
    guard.check_address(host)
  for host in ("0.0.0.0", "::", "192.168.0.2", "clinic.example", "localhost.clinic.example"):
    with pytest.raises(UserError, match="--open_to_network"):
      guard.check_address(host)


@pytest.mark.parametrize("host", [
    "", " ", "a\0b", "http://localhost", "localhost:8000", "a b", "-1", "*", "1:2", "a" * 300, "ü b"])
def test_what_is_no_address_is_said(host):
  """Some were called reached by other computers, one was a fault of ours, and none listens on all of them."""
  with pytest.raises(UserError, match="is no address"):
    guard.check_address(host, open_to_network=True)
  assert guard.address(" [FE80::1%lo] ") == "fe80::1%lo" and guard.address("Scans.Example") == "scans.example"


def test_further_names_are_names():
  """A name with a port, or *, was taken and never fitted."""
  for wrong in ("http://x/", "scans.example:8000", "*", "a b"):
    with pytest.raises(UserError, match="is no name: give names alone"):
      guard.check_address("127.0.0.1", False, ["good.example", wrong])
  guard.check_address("127.0.0.1", False, ["", " scans.example ", "10.0.0.1"])
  assert "" not in guard.known_hosts("127.0.0.1", ["", " "])


def test_a_page_may_do_no_more_than_it_needs():
  """Nothing from elsewhere, no form sent off, no frame around it, nothing in caches and referrers."""
  policy = dict(part.strip().split(" ", 1) for part in guard.HEADERS["content-security-policy"].split(";"))
  none = {"default-src", "base-uri", "form-action", "frame-ancestors"}
  assert {k for k, v in policy.items() if v == "'none'"} == none
  assert {k: v for k, v in policy.items() if k not in none} == {
      "script-src": "'self'", "style-src": "'self'", "connect-src": "'self'", "img-src": "'self' blob: data:"}
  assert {"x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "no-referrer",
          "cross-origin-resource-policy": "same-origin", "cross-origin-opener-policy": "same-origin",
          "cache-control": "no-store"}.items() <= guard.HEADERS.items()


def test_a_websocket_is_closed_before_the_application_sees_it():
  sent = []

  async def send(message):
    sent.append(message)
  app = guard.Guard(None, guard.known_hosts("127.0.0.1"), False, 10)
  asyncio.run(app({"type": "websocket", "headers": []}, None, send))
  assert sent == [{"type": "websocket.close", "code": 1008}]


def reading(seen):
  """An application that reads the body, then answers."""
  async def app(scope, receive, send):
    while True:
      message = await receive()
      seen.append(message)
      if message["type"] != "http.request" or not message["more_body"]:
        break
    await hello(scope, receive, send)
  return app


@pytest.mark.parametrize("size", [1, 7, 73, 1000])
def test_the_end_of_a_form_is_found_across_pieces_and_before_what_follows_it(size):
  """A boundary of 70 characters, the longest there is, and spaces after it; no body is an empty form."""
  boundary = "b" * 70
  body = f"--{boundary}\r\n\r\nhello\r\n--{boundary}--\r\n{' ' * 100}".encode()
  cut = lambda data: [data[i:i + size] for i in range(0, len(data), size)] or [b""]
  app = guard.Guard(reading([]), guard.known_hosts("127.0.0.1"), False, 1000)
  for option in (f"boundary={boundary}", f'a=b; boundary="{boundary}"', f"boundary={boundary} ; a=b"):
    kind = {"content-type": f"multipart/form-data; {option}"}
    for sent, status in ((body, 200), (b"", 200), (body[:-105], 400)):
      assert asking.ask(app, "POST", "/", kind, cut(sent))[0] == status


def test_what_is_refused_midway_does_not_reach_the_application():
  seen = []
  app = guard.Guard(reading(seen), guard.known_hosts("127.0.0.1"), False, 10)
  status, _, body = asking.ask(app, "POST", "/", {}, [b"12345", b"67890", b"1"])
  assert status == 413 and json.loads(body)["status"] == 413
  assert [m.get("body") for m in seen] == [b"12345", b"67890", None] and seen[-1]["type"] == "http.disconnect"


def test_what_is_no_request_reaches_the_application():
  """Starting and ending of the server."""
  seen = []

  async def app(scope, receive, send):
    seen.append((scope["type"], receive, send))
  asyncio.run(guard.Guard(app, set(), False, 10)({"type": "lifespan"}, 1, 2))
  assert seen == [("lifespan", 1, 2)]
