"""One self-contained HTML page from what evaluate wrote."""

from __future__ import annotations

import pathlib


def write(workdir) -> pathlib.Path:
  """Writes <workdir>/report.html and returns its path."""
  path = pathlib.Path(workdir) / "report.html"
  path.write_text("<!doctype html><title>medae_jax</title>\n", encoding="utf-8")
  return path
