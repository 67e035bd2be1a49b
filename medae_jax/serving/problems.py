"""What goes wrong over HTTP, in one line with its status."""

from __future__ import annotations

import pathlib

from medae_jax.core.errors import UserError

WORDS = {400: "the request is incomplete", 403: "another site asks", 404: "nothing is there",
         405: "not by this method", 413: "too large", 415: "no scan or image", 421: "not this host",
         422: "cannot be scored", 500: "a fault of medae_jax", 503: "busy"}


class Problem(UserError):
  """An answer other than a result.

  Attributes:
    status: of HTTP. The text says what, where, what to do.
  """

  def __init__(self, status: int, line: str):
    super().__init__(line)
    self.status = status


def without_places(line: str, *folders: pathlib.Path) -> str:
  """A line without a request's folders: the user knows names of files, not where they lie for a second."""
  for folder in folders:
    line = line.replace(f"{folder}/", "").replace(str(folder), "the upload")
  return line


def body(status: int, line: str) -> dict[str, object]:
  """The JSON of an error: {"status", "error", "detail"}."""
  return {"status": status, "error": WORDS.get(status, "error"), "detail": line}
