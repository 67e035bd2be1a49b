"""Cells of the tables that are written: no text of a user's file becomes a formula of a spreadsheet.

A leaf, for both packages: medae_jax.core.files imports it.
"""

from __future__ import annotations

import re

# What a spreadsheet takes for a formula; numbers with a sign are none.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


def inert(text: str) -> str:
  """The text, with a ' in front where a spreadsheet would compute it: it then shows it as it is."""
  return "'" + text if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text
