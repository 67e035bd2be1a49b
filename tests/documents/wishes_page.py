"""docs/wishes.md: what users of like programs ask for, and what answers it here."""

from __future__ import annotations

from tests.wishes import table

HEAD = """# Wishes

What users of programs like this one ask for in public, in our words, with the command or call that answers it
and the tests that run it. Made by `python -m tests.documents.write` from `tests/wishes/table.py`; tests check
that every named test exists and is not skipped unsaid.
"""


def page() -> str:
  """The text of docs/wishes.md."""
  parts = [HEAD, f"**{table.summary()}.**"]
  for title, wishes in table.SECTIONS.items():
    rows = ["| | wish | answer | tests | not shown |", "|---|---|---|---|---|"]
    for w in wishes:
      tests = ", ".join(f"`{t.removeprefix('tests/')}`" for t in w.tests)
      answer = w.answer.replace("|", "\\|")
      limit = w.limit or (f"skipped without `{w.needs}` (`make test` installs it)" if w.needs else "")
      rows.append(f"| {w.number} | {w.wish} | `{answer}` | {tests} | {limit} |")
    parts.append(f"## {title}\n\n" + "\n".join(rows))
  return "\n\n".join(parts) + "\n"
