"""A page in a headless Chromium, by its DevTools protocol over a pipe: no driver and no package needed."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
          "--disable-background-networking", "--disable-component-update", "--disable-sync",
          "--disable-dev-shm-usage", "--remote-debugging-pipe", "--hide-scrollbars")
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def program() -> str | None:
  """Path of a Chromium; MEDAE_CHROMIUM names another one."""
  return os.environ.get("MEDAE_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)


needed = pytest.mark.skipif(program() is None, reason="no Chromium here (MEDAE_CHROMIUM names one)")


class Page:
  """A page; `errors`: what its console, scripts and policy complained of."""

  def __init__(self, send, receive):
    self._send, self._receive, self._session, self._n, self.errors = send, receive, None, 0, []
    self._rest, self._loaded = b"", False
    target = self.call("Target.createTarget", url="about:blank")["targetId"]
    self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Log", "DOM"):
      self.call(f"{domain}.enable")

  def call(self, method: str, **params):
    """The result of a command."""
    self._n += 1
    message = {"id": self._n, "method": method, "params": params}
    if self._session:
      message["sessionId"] = self._session
    os.write(self._send, json.dumps(message).encode() + b"\0")
    while True:
      found = self._next()
      if found.get("id") == self._n:
        assert "error" not in found, (method, found["error"])
        return found["result"]

  def _next(self):
    while b"\0" not in self._rest:
      piece = os.read(self._receive, 2**20)
      assert piece, "Chromium has ended"
      self._rest += piece
    line, _, self._rest = self._rest.partition(b"\0")
    message = json.loads(line)
    kind, what = message.get("method", ""), message.get("params", {})
    self._loaded |= kind == "Page.loadEventFired"
    if kind == "Runtime.exceptionThrown":
      self.errors.append(json.dumps(what["exceptionDetails"]))
    elif kind == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
      self.errors.append(what["entry"]["text"] + " " + what["entry"].get("url", ""))
    elif kind == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
      self.errors.append(json.dumps(what["args"]))
    return message

  def open(self, url: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
    """Loads a page into a window of this size."""
    self.size(width, height)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    self.call("Emulation.setEmulatedMedia", features=scheme)
    self._loaded = False
    self.call("Page.navigate", url=url)
    while not self._loaded:
      self._next()

  def size(self, width: int, height: int = 900) -> None:
    """Changes the window."""
    self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
              mobile=False)

  def run(self, script: str):
    """The value of a JavaScript expression, promises awaited."""
    found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
    assert "exceptionDetails" not in found, found["exceptionDetails"]
    return found["result"].get("value")

  def until(self, script: str, seconds: float = 60):
    """Waits for an expression to be true; its value."""
    end = time.monotonic() + seconds
    while not (value := self.run(script)):
      assert time.monotonic() < end, (script, self.run("document.body.innerText"), self.errors)
      time.sleep(0.05)
    return value

  def drop(self, selector: str, files) -> None:
    """Drags files from a desktop onto an element."""
    box = self.run(f"(r => [r.x + r.width / 2, r.y + r.height / 2])"
                   f"(document.querySelector({selector!r}).getBoundingClientRect())")
    data = {"items": [], "files": [str(f) for f in files], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
      self.call("Input.dispatchDragEvent", type=kind, x=box[0], y=box[1], data=data)

  def press(self, key: str, code: int = 0) -> None:
    """A key of the keyboard, "ArrowRight", "Tab"."""
    for kind in ("keyDown", "keyUp"):
      self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

  def screenshot(self, path) -> None:
    """The whole page as PNG."""
    data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
    pathlib.Path(path).write_bytes(base64.b64decode(data))

  def wider_than_the_window(self) -> int:
    """Pixels by which the page is wider than its window: 0 where nothing must be scrolled sideways."""
    return self.run("document.documentElement.scrollWidth - document.documentElement.clientWidth")

  def without_words(self) -> list[str]:
    """Images without alt text, pictures and fields without a name."""
    return self.run("""[...document.querySelectorAll(
        'img:not([alt]), img[alt=""], svg[role=img]:not([aria-label]):not([aria-labelledby]), ' +
        'canvas:not([aria-label])')]
        .filter(e => e.checkVisibility()).map(e => e.outerHTML.slice(0, 120))
        .concat([...document.querySelectorAll('input, button')].filter(e => e.checkVisibility() &&
          !e.labels?.length && !e.textContent.trim() && !e.ariaLabel).map(e => e.outerHTML.slice(0, 120)))""")


@contextlib.contextmanager
def page(profile: pathlib.Path):
  """A page of a Chromium of its own, with an empty profile in that folder; gone at the end of the block."""
  to_read, send = os.pipe()
  receive, to_write = os.pipe()
  # Chromium reads commands from descriptor 3 and writes answers to 4, numbers that may be taken here.
  shell = f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}'
  process = subprocess.Popen(
      ["bash", "-c", shell, program(), *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
      pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
      start_new_session=True)
  os.close(to_read)
  os.close(to_write)
  try:
    yield Page(send, receive)
  finally:
    os.close(send)
    os.close(receive)
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()
