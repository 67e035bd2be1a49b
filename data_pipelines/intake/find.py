"""The one search for files: every data set and every predictor looks for its inputs with `find`.

Every file below the root is in exactly one of three places: `files` (of a kind that was asked for),
`left_out` (named, with the reason) or `ignored` (counted: what operating systems leave behind).
Linked folders are entered once, so that no loop of links hangs the search; a real folder goes before
the links to it. Endings count in any capitals; a DICOM file without a known ending is told by its
content (UID names, IM000001). Pipes, sockets, devices and links to nothing are never opened.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
import dataclasses
import errno
import os
import pathlib
import stat

from data_pipelines.errors import UserError
from data_pipelines.intake import foreign

SUFFIXES = {
    "nifti": (".nii.gz", ".nii"),
    "image": (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".btf", ".bmp",
              ".jp2", ".j2k", ".j2c", ".jpc", ".jpx"),
    "dicom": (".dcm", ".dicom", ".dic", ".ima"),
    "table": (".csv", ".tsv"),
    "slide": (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi"),
}
WHAT = {"image": "image", "dicom": "DICOM file", "nifti": "NIfTI volume",
         "table": "table", "slide": "whole slide"}
# What operating systems and network drives put into folders; names that begin with "." as well.
_SYSTEM = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "#recycle",
           "$recycle.bin", "system volume information", "lost+found"}
_NO_FILES = {stat.S_IFIFO: "a named pipe (FIFO)", stat.S_IFSOCK: "a socket",
             stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
RESULTS = "predictions.csv"  # a folder below the root with this table of predict is not searched


@dataclasses.dataclass(frozen=True)
class LeftOut:
  """A file or folder that is not used.

  Attributes:
    reason: why; reads on after the name.
    broken: True where it would have been an input, were it readable (a link to nothing, ...).
  """

  path: pathlib.Path
  reason: str
  broken: bool = False


@dataclasses.dataclass
class Found:
  """What a search found, files sorted; `ignored`: number of system files and folders."""

  root: pathlib.Path
  files: list[pathlib.Path] = dataclasses.field(default_factory=list)
  left_out: list[LeftOut] = dataclasses.field(default_factory=list)
  ignored: int = 0

  def leave_out(self, reasons: Mapping[pathlib.Path, str], broken: bool = False) -> None:
    """Moves files from `files` to `left_out`."""
    self.files = [f for f in self.files if f not in reasons]
    self.left_out += [LeftOut(path, reason, broken) for path, reason in reasons.items()]

  @property
  def broken(self) -> list[LeftOut]:
    """Those that would have been inputs."""
    return [item for item in self.left_out if item.broken]


def suffix_of(path) -> str:
  """The known ending as the name spells it (".NII.GZ", ".png"), "" where it has none.

  "1.2.826.0.1" has none: the last number of a UID is no ending.
  """
  name = pathlib.PurePath(path).name
  endings = [s for known in SUFFIXES.values() for s in known if name.lower().endswith(s)]
  length = max((len(s) for s in endings if len(s) < len(name)), default=0)
  return name[len(name) - length:] if length else ""


def stem_of(path) -> str:
  """The name without its known ending."""
  name = pathlib.PurePath(path).name
  return name[:len(name) - len(suffix_of(path))]


def without_ending(path) -> str:
  """The path, with "/", without its known ending: a/P1/x of a/P1/x.nii.gz."""
  return (pathlib.PurePath(path).parent / stem_of(path)).as_posix()


def kind_of(path, by_content: bool = True) -> str:
  """"image", "dicom", "nifti", "table", or "" for something else; never raises.

  Args:
    by_content: opens regular files without a known ending, to see whether they are DICOM.
  """
  ending = suffix_of(path).lower()
  named = next((kind for kind, known in SUFFIXES.items() if ending in known), "")
  if named or not by_content or _is_index(path):
    return named
  return "dicom" if foreign.begins_as_dicom(path) else ""


def is_system_file(name: str) -> bool:
  """True for names of what operating systems leave behind, and for hidden ones."""
  return name.startswith(".") or name.lower() in _SYSTEM


def find(root, kinds: Collection[str], deep: bool = True) -> Found:
  """All files of some kinds: `root` itself where it is a file, else what lies below it.

  Args:
    deep: False looks into the folder itself only.

  Raises:
    FileNotFoundError: no such file or folder. UserError: the folder cannot be read.
  """
  root, wrong = pathlib.Path(root), sorted(set(kinds) - set(SUFFIXES))
  if wrong or not kinds:
    raise ValueError(f"kinds {wrong or kinds}: use some of {', '.join(SUFFIXES)}")
  search = _Search(root, frozenset(kinds), deep)
  try:
    info = os.stat(root)
  except OSError as error:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
      raise FileNotFoundError(f"{root} does not exist") from None
    raise UserError(f"{root} cannot be read ({_why(error)})") from None
  if stat.S_ISDIR(info.st_mode):
    search.folders(info)
  else:
    search.file(root, info)
  found = search.found
  found.files.sort()
  found.left_out.sort(key=lambda item: item.path)
  return found


class _Search:
  """State of one search: folders seen, links to folders that still have to be followed."""

  def __init__(self, root, kinds, deep):
    self.deep = deep
    self.root, self.kinds, self.found = root, kinds, Found(root)
    self.links: list[pathlib.Path] = []
    self.seen: dict[tuple[int, int], pathlib.Path] = {}
    self.what = " or ".join(WHAT[k] for k in SUFFIXES if k in kinds)

  def folders(self, info):
    """The root, then linked folders, each with what lies below it."""
    self.above = _above(self.root)
    self._tree(self.root, info)
    while self.links:
      batch, self.links = sorted(self.links), []
      for link in batch:
        info = os.stat(link)
        first = self.seen.get(_id(info))
        if first is not None:
          self._leave(link, f"is a link to {_shown(first, self.root)}, which is searched already")
        elif _id(info) in self.above:
          self._leave(link, "is a link to a folder that this one lies in")
        elif why := _made_here(link):
          self._leave(link, why)
        else:
          self._tree(link, info)

  def file(self, path, info):
    """Puts one file where it belongs."""
    form = stat.S_IFMT(info.st_mode)
    if form != stat.S_IFREG:
      kind = _NO_FILES.get(form, "no regular file")
      self._leave(path, f"is {kind}, not a file", kind_of(path, False) in self.kinds)
      return
    if _is_index(path):
      self._leave(path, "is an index of DICOM files, not an image")
      return
    stands_for, reason = foreign.not_here(path.name)
    if kind_of(stands_for, False) in self.kinds:
      self._leave(path, reason, path.suffix == ".aria2" or not (path.parent / stands_for).exists())
    elif kind_of(path, "dicom" in self.kinds) in self.kinds:
      self.found.files.append(path)
    else:
      self._leave(path, f"is no {self.what}{foreign.advice(path.name, self.kinds)}")

  def _tree(self, folder, info):
    """Everything below a folder, real folders only; links to folders are kept for later."""
    waiting = [(folder, info)]
    while waiting:
      folder, info = waiting.pop()
      if _id(info) in self.seen:
        if folder != self.root:
          self._leave(folder, f"is searched already as {_shown(self.seen[_id(info)], self.root)}")
        continue
      self.seen[_id(info)] = folder
      try:
        with os.scandir(folder) as entries:
          listed = sorted(entries, key=lambda e: e.name)
      except OSError as error:
        if folder == self.root:
          raise UserError(f"{folder} cannot be read ({_why(error)})") from None
        self._leave(folder, f"cannot be read ({_why(error)})", True)
        continue
      for entry in listed:
        below = self._entry(folder / entry.name, entry)
        if below is not None:
          waiting.append(below)

  def _entry(self, path, entry):
    """(path, stat) of a real folder to search, None where nothing is left to do."""
    if is_system_file(entry.name) and not foreign.not_here(entry.name)[0]:
      self.found.ignored += 1
      return None
    try:
      info = entry.stat()
    except OSError as error:
      self._unreadable(path, entry, error)
      return None
    if not stat.S_ISDIR(info.st_mode):
      self.file(path, info)
    elif not self.deep:
      return None
    elif entry.is_symlink():
      self.links.append(path)
    elif why := _made_here(path):
      self._leave(path, why)
    else:
      return path, info
    return None

  def _unreadable(self, path, entry, error):
    expected = kind_of(path, False) in self.kinds or not path.suffix
    if not entry.is_symlink():
      reason = f"cannot be read ({_why(error)})"
    elif error.errno == errno.ELOOP:
      reason = "is a link that leads back to itself"
    elif error.errno in (errno.ENOENT, errno.ENOTDIR):
      reason = f"is a link to {os.readlink(path)}, which does not exist"
    else:
      reason = f"is a link that cannot be followed ({_why(error)})"
    self._leave(path, reason, expected)

  def _leave(self, path, reason, broken=False):
    self.found.left_out.append(LeftOut(path, reason, broken))


def _made_here(folder) -> str:
  """Why a folder below the root is not searched: it holds what predict, or a training, has made; else ""."""
  if holds_results(folder):
    return f"holds {RESULTS}: results of a prediction"
  run = os.path.isfile(folder / "config.json") and os.path.isdir(folder / "checkpoints")
  return "is the folder of a run, whose pictures are no inputs" if run else ""


def holds_results(folder) -> bool:
  """Whether predict wrote there; somebody else's predictions.csv begins with another column."""
  try:
    with open(folder / RESULTS, "rb") as table:
      return stat.S_ISREG(os.fstat(table.fileno()).st_mode) and table.read(6) == b"input,"
  except OSError:
    return False


def holds_names(folder, start: str) -> bool:
  """Whether something whose name begins so lies there: what a known layout is told by."""
  try:
    return any(name.startswith(start) for name in os.listdir(folder))
  except OSError:  # the search itself says so
    return False


def like(folder, *patterns: str):
  """What lies at places of these glob patterns: a layout is told by it."""
  return (p for pattern in patterns for p in pathlib.Path(folder).glob(pattern))


def _id(info):
  return info.st_dev, info.st_ino


def _above(root):
  """Identities of the folders in which the root lies."""
  real = pathlib.Path(os.path.realpath(root))
  return {_id(os.stat(folder)) for folder in real.parents if os.access(folder, os.X_OK)}


def _shown(path, root):
  return path.relative_to(root).as_posix() if path != root else str(root)


def _why(error):
  return error.strerror or str(error)


def _is_index(path) -> bool:
  return pathlib.PurePath(path).name.lower().partition(".")[0] == "dicomdir"
