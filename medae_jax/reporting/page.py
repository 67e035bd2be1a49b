"""The frame of every HTML page: one file that needs no other."""

from __future__ import annotations

from collections.abc import Iterable

from medae_jax.reporting.plots import text

SYNTHETIC = ("<div class='warn'>SYNTHETIC DATA: computer-generated images. These numbers say "
             "that the program works, and nothing about patients.</div>")
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1280px;margin:24px auto;padding:0 20px;
color:#1b1b1b}
h1{font-size:24px;margin:0}h2{font-size:19px;margin:32px 0 8px;border-bottom:1px solid #ccc}
table{border-collapse:collapse;margin:8px 0}td,th{padding:4px 12px;text-align:right;
border-bottom:1px solid #e3e3e3}td:first-child,th:first-child{text-align:left}
th{background:#f4f4f4}.what{color:#666;font-size:13px;text-align:left}.ci{color:#666;font-size:13px}
.warn{background:#b00020;color:#fff;padding:8px 14px;font-weight:600;margin:12px 0}
.say{background:#eef4fb;padding:10px 14px;margin:12px 0}img{max-width:100%;height:auto;
border:1px solid #ddd}.charts{display:flex;flex-wrap:wrap;gap:16px}details{margin:8px 0}
pre{background:#f6f6f6;padding:10px;overflow:auto;font-size:12px}footer{color:#777;margin:32px 0}
.none{background:#f3eeee;color:#8a4040;font-size:13px}.some{background:#fdf6e3}.wide{overflow-x:auto}
.paper{color:#1f5a8a;font-size:13px}.best{font-weight:700}
"""


def page(title: str, body: Iterable[str]) -> bytes:
  """A whole page of parts that are HTML already."""
  return ("<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' "
          f"content='width=device-width'><title>{text(title)}</title><style>{_STYLE}</style></head><body>"
          + "\n".join(body) + "</body></html>\n").encode()
