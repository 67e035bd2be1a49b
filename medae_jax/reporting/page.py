"""The frame of every HTML page: one file that needs no other, out of templates/*.html."""

from __future__ import annotations

import base64
from collections.abc import Iterable
import functools
import pathlib

import jinja2
from markupsafe import Markup

from medae_jax.reporting.plots import number

SYNTHETIC = ("<div class='warn'>SYNTHETIC DATA: computer-generated images. These numbers say "
             "that the program works, and nothing about patients.</div>")
_FOLDER = pathlib.Path(__file__).parent / "templates"


@functools.cache
def _templates() -> jinja2.Environment:
  # Everything is escaped; a field that a template reads and nobody gives is a mistake of the program.
  found = jinja2.Environment(loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, trim_blocks=True,
                             lstrip_blocks=True, undefined=jinja2.StrictUndefined)
  found.filters["number"] = lambda value, missing="&ndash;": Markup(number(value, missing))
  found.filters["png"] = lambda data: Markup(f"data:image/png;base64,{base64.b64encode(data).decode()}")
  found.globals.update(style=Markup((_FOLDER / "style.css").read_text(encoding="utf-8")),
                       synthetic_warning=Markup(SYNTHETIC))
  return found


def render(template: str, **values) -> bytes:
  """A page from templates/<template>; `values` are escaped unless they are Markup."""
  return _templates().get_template(template).render(**values).encode("utf-8", "backslashreplace")


def page(title: str, body: Iterable[str]) -> bytes:
  """A whole page of parts that are HTML already."""
  return render("parts.html", title=title, parts=[Markup(p) for p in body])
