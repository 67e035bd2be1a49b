"""Who may ask, and how much: Host and Origin of every request, the size of its body, headers of the answer.

A page of any site can send requests to a server on this computer. A browser names the site in Origin
and Sec-Fetch-Site; a site whose name was made to point here (DNS rebinding) is told by its Host.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
import ipaddress
import json
import re
import socket

from medae_jax.core.errors import UserError
from medae_jax.serving import problems

_NAME = re.compile(r"[^\W_]([\w.-]{0,252}[^\W_])?")  # of a computer, or an IPv4 address
_TAIL = 300  # bytes from the end of a body in which the end of a form is looked for
_CUT = "the files end in the middle: send them again"
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' "
                               "blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
                               "frame-ancestors 'none'",
    "x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin", "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()", "cache-control": "no-store"}


def known_hosts(host: str, names: Iterable[str] = ()) -> set[str]:
  """Names by which this server may be called, without ports.

  Args:
    host: address it listens on. names: more of them, of the user.
  """
  known = {"localhost", "127.0.0.1", "::1", host.lower(), *(n.strip().lower() for n in names if n.strip())}
  return known if is_loopback(host) else known | {socket.gethostname().lower(), socket.getfqdn().lower()}


def is_loopback(host: str) -> bool:
  """Whether an address is reached from this computer alone."""
  try:
    return host == "localhost" or ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False


def address(host: str) -> str:
  """An address to listen on as sockets take it: without blanks and the brackets of IPv6, in small letters.

  Raises:
    UserError: it is no name and no address: empty, an URL, with a port.
  """
  found = host.strip().lower()
  found = found[1:-1] if found.startswith("[") and found.endswith("]") else found
  if not _NAME.fullmatch(found.partition("%")[0]) and ":" not in found:
    raise UserError(f"--host={host!r} is no address: give one such as 127.0.0.1 or localhost, without "
                    "http:// and port")
  if ":" in found:
    try:
      ipaddress.IPv6Address(found.partition("%")[0])
    except ValueError:
      raise UserError(f"--host={host!r} is no address: the port has a flag of its own, --port") from None
  return found


def check_address(host: str, open_to_network: bool = False, names: Iterable[str] = ()) -> None:
  """Raises UserError where an address is reached by other computers, which nobody has allowed, or where it or
  one of the further names is none."""
  host = address(host)
  for name in filter(None, map(str.strip, names)):
    if not _NAME.fullmatch(name):
      raise UserError(f"--host_names: {name!r} is no name: give names alone, such as scans.example, without "
                      "http://, port and *")
  if not open_to_network and not is_loopback(host):
    raise UserError(f"--host={host} is reached by other computers, and whoever reaches it may use the model: "
                    "--open_to_network says that this is meant")


class Guard:
  """ASGI middleware; refuses with a Problem's JSON before the application sees a request.

  Args:
    hosts: of `known_hosts`. numbers: True = any IP address is a good Host as well: rebinding needs a name.
    most: bytes of a body.
  """

  def __init__(self, app, hosts: Collection[str], numbers: bool, most: int):
    self._app, self._hosts, self._numbers, self._most = app, hosts, numbers, most

  async def __call__(self, scope, receive, send):
    if scope["type"] == "websocket":
      await send({"type": "websocket.close", "code": 1008})
      return
    if scope["type"] != "http":
      await self._app(scope, receive, send)
      return
    headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
    started, closed = False, False

    async def answer(message):
      nonlocal started
      if closed:  # the refusal was sent already
        return
      if message["type"] == "http.response.start":
        started = True
        message = {**message, "headers": [*message.get("headers", ()), *_encoded(HEADERS)]}
      await send(message)

    refused = self._refusal(scope, headers)
    if refused:
      await _refuse(answer, *refused)
      return
    read, tail, end = 0, b"", _end_of_form(headers)

    async def counted():
      nonlocal read, closed, tail
      message = await receive()
      body = message.get("body", b"")
      read, tail = read + len(body), (tail + body[-_TAIL:])[-_TAIL:]
      whole = message["type"] != "http.request" or message.get("more_body") or not read or end in tail
      if (read > self._most or not whole) and not started:  # without Content-Length, or without its end
        await _refuse(answer, *((400, _CUT) if not whole else (413, self._too_large())))
        closed = True
        return {"type": "http.disconnect"}
      return message

    await self._app(scope, counted, answer)

  def _refusal(self, scope, headers) -> tuple[int, str] | None:
    """(status, line) where the request must not go on."""
    host = headers.get("host", "")
    if not self._is_known(_name(host)):
      return 421, (f"Host {host[:100]!r} is no name of this server: open it by its address, or start it "
                   "with --host_names=NAME")
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
      return 403, f"Origin {origin[:100]!r} is another site than {host}: only its own page may ask"
    if site not in ("none", "same-origin") and scope["path"] != "/":
      return 403, "a page of another site asks: only its own page may ask this server"
    length = headers.get("content-length", "0")
    if not length.isdecimal():
      return 400, "Content-Length is no number"
    return (413, self._too_large()) if int(length) > self._most else None

  def _is_known(self, name: str) -> bool:
    if name in self._hosts:
      return True
    try:
      return self._numbers and bool(ipaddress.ip_address(name))
    except ValueError:
      return False

  def _too_large(self) -> str:
    return (f"more than {self._most // 2**20} MiB: start the server with a larger --max_mb, or use "
            "--mode=predict, which has no limit")


def _end_of_form(headers) -> bytes:
  """What the body of multipart/form-data ends with, b"" of others: without it the last files are missing."""
  kind, _, options = headers.get("content-type", "").partition(";")
  boundary = re.search(r'\bboundary="?([^";]+)', options)
  if kind.strip().lower() != "multipart/form-data" or boundary is None:
    return b""
  return b"--" + boundary[1].strip().encode("latin-1", "replace") + b"--"


def _name(host: str) -> str:
  """The Host header without its port."""
  if host.startswith("["):
    return host[1:].partition("]")[0].lower()
  return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()


def _encoded(headers):
  return [(k.encode(), v.encode()) for k, v in headers.items()]


async def _refuse(send, status: int, line: str) -> None:
  data = json.dumps(problems.body(status, line)).encode()
  headers = {"content-type": "application/json", "content-length": str(len(data)), "connection": "close"}
  await send({"type": "http.response.start", "status": status, "headers": _encoded(headers)})
  await send({"type": "http.response.body", "body": data})
