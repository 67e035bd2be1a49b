"""Where a result comes from: the command, the commit of the program, its version."""

from __future__ import annotations

import functools
import pathlib
import shlex
import subprocess
import sys

import medae_jax


def command() -> str:
  """The command line of this process; "" where there is none (a notebook, a test)."""
  words = getattr(sys, "orig_argv", sys.argv)
  if not any("--mode" in w or "--config" in w or "--workdir" in w for w in words):
    return ""
  return shlex.join([pathlib.Path(words[0]).name, *words[1:]])


@functools.cache
def commit() -> str:
  """Short hash of the checkout that this package runs from, with "+" where files were changed; else ""."""
  root = pathlib.Path(medae_jax.__file__).resolve().parents[1]
  if not (root / ".git").exists():
    return ""
  run = lambda *words: subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True,
                                      timeout=10, check=True).stdout.strip()
  try:
    return run("rev-parse", "--short=12", "HEAD") + ("+" if run("status", "--porcelain", "-uno") else "")
  except (OSError, subprocess.SubprocessError):
    return ""


def about() -> dict[str, str]:
  """{"command", "commit"} for evaluation/<split>.json."""
  return {"command": command(), "commit": commit()}
