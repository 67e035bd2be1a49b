"""A folder as people have it, for every search: names, links, twins, system files, what is no file."""

import os
import pathlib
import socket
import unicodedata

# Names of inputs, without ending: each must be used by each search.
USED = ("plain", "with blank ", "dots..", "name.with.dots", "-dash", "=sum(A1)", "[1]*?", "a%20b",
        "comma, quote\"", unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café"),
        "Twin", "twin", "l" * 200, "\udcff\udcfe", "日本語", "<tag>", "con", "1.2.826.0.1",
        "sub/plain", "sub/deep/er/x", "Sub/plain", "x.png/inside", "empty_name/ ", "real/one")
# Never looked at, only counted: files and folders of operating systems.
SYSTEM = ("._plain", ".hidden/plain", "__MACOSX/plain", ".git/annex/plain", "@eaDir/plain")
SYSTEM_FILES = ("Thumbs.db", "desktop.ini", ".DS_Store")
OTHERS = ("notes.txt", "sub/predictions.csv", "table.xlsx", "archive.zip", "README", "sub/notes.md")


def fill(folder: pathlib.Path, ending: str, outside: pathlib.Path) -> set[str]:
  """Writes the folder; returns the paths below it that a search must use.

  Args:
    ending: of inputs, ".png".
    outside: a folder beside it, into which links lead.
  """
  used = {f"{name}{ending}" for name in USED} | {f"CAPITALS{ending.upper()}"}
  for name in used | {f"{name}{ending}" for name in SYSTEM} | {*SYSTEM_FILES, *OTHERS}:
    _write(folder / name)
  _write(outside / "store" / f"linked{ending}")
  _write(outside / "store" / "sub" / f"linked too{ending}")
  (folder / "to_store").symlink_to(outside / "store")  # a linked folder
  used |= {f"to_store/linked{ending}", f"to_store/sub/linked too{ending}"}
  (folder / "again").symlink_to("sub")                 # a second way to a folder: used once
  (folder / "sub" / "up").symlink_to(folder)           # loops
  (outside / "store" / "back").symlink_to(folder / "real")
  (folder / "above").symlink_to(folder.parent)
  (folder / f"link{ending}").symlink_to(folder / f"plain{ending}")  # a linked file is a file
  (folder / "nothing here").mkdir()
  _write(folder / "older results" / "predictions.csv")
  (folder / "older results" / "predictions.csv").write_text("input,error\n")
  _write(folder / "older results" / f"plain_anomaly{ending}")
  return used | {f"link{ending}"}


def _write(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(b"x")


def dangling(path):
  """A link to nothing: what git-annex and moved folders leave."""
  path.symlink_to("../gone/away")


def looping(path):
  """A link to itself."""
  path.symlink_to(path.name)


def pipe(path):
  """A FIFO: whoever opens it waits for ever."""
  os.mkfifo(path)


def socket_file(path):
  """A socket."""
  here = os.getcwd()
  os.chdir(path.parent)  # a socket's path is short
  try:
    with socket.socket(socket.AF_UNIX) as s:
      s.bind(path.name)
  finally:
    os.chdir(here)


BROKEN = {"dangling": (dangling, "does not exist"), "looping": (looping, "leads back to itself"),
          "pipe": (pipe, "FIFO"), "socket": (socket_file, "socket")}
