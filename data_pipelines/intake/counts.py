"""What became of every file that was found: a table of counts that add up, and the names left out."""

from __future__ import annotations

from collections.abc import Sequence
import logging
import pathlib

from data_pipelines.intake.find import Found, LeftOut

NAMED = 20  # names in the log; all of them are in the report that the caller writes


def shown(path, root) -> str:
  """The path below the root, with what is no character spelt out: fit for logs and tables."""
  path, root = pathlib.Path(path), pathlib.Path(root)
  below = path.relative_to(root) if path != root and path.is_relative_to(root) else path
  return below.as_posix().encode("utf-8", "backslashreplace").decode()


def table(found: Found) -> str:
  """Lines "number  what": files used, left out by reason, system files; the last line is the sum."""
  reasons: dict[str, list[LeftOut]] = {}
  for item in found.left_out:
    reasons.setdefault(_kind(item.reason), []).append(item)
  lines = [(len(found.files), "used")]
  lines += [(len(items), "left out: " + reason) for reason, items in reasons.items()]
  if found.ignored:
    lines.append((found.ignored, "ignored: hidden and system files"))
  lines.append((sum(n for n, _ in lines), f"found in {shown(found.root, found.root)}"))
  width = len(str(lines[-1][0]))
  return "\n".join(f"  {number:{width}}  {what}" for number, what in lines)


def say(found: Found) -> None:
  """Logs the table, and the names of what is left out, where anything is."""
  if not found.left_out:
    return
  logging.info("Files:\n%s", table(found))
  for line in names(found):
    logging.warning("%s", line)


def names(found: Found) -> list[str]:
  """One line for each file left out, at most NAMED and the number of the others."""
  lines = [f"left out: {shown(item.path, found.root)} {item.reason}"
           for item in found.left_out[:NAMED]]
  if len(found.left_out) > NAMED:
    lines.append(f"left out: {len(found.left_out) - NAMED} more")
  return lines


def rows(found: Found) -> Sequence[dict[str, str]]:
  """What is left out as rows of a table: columns file, reason."""
  return [{"file": shown(item.path, found.root), "reason": item.reason} for item in found.left_out]


def _kind(reason):
  """The reason without the names in it, so that alike ones are counted together."""
  for start in ("is a link", "cannot be read", "is searched already"):
    if reason.startswith(start):
      return "cannot be followed" if start == "is a link" and "does not exist" in reason else start
  return reason
