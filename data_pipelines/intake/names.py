"""The one rule for names of results: safe on every file system, and no two alike.

A name is short where that is clear: `case1`; two inputs that would share it (in any capitals, in any
Unicode form) get their folders and then their endings into the name: `case1_png`, `case1_jpg`.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
import hashlib
import pathlib
import re
import unicodedata

from data_pipelines.intake import find, mask_words

# A name gets endings such as _anomaly.nii.gz.tmp; file systems allow 255 bytes.
LONGEST = 200
_NEAR = 200  # files of a folder among which another image is looked for
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # of Windows


def safe(text: str) -> str:
  """One path component out of any text: never empty, hidden, "..", absolute, or over LONGEST bytes.

  What file systems refuse, and what is no character (names that are not UTF-8), becomes "_".
  Different texts can become equal: `result_names` and `unique` keep them apart.
  """
  name = unicodedata.normalize("NFC", _UNSAFE.sub("_", text)).strip().rstrip(". ")
  name = re.sub(r"^[.\s_]*(?=\.)[.\s]*_*", "", name) or "_"  # no leading dots, nor ".._" of "../"
  if _DEVICES.fullmatch(name):
    name = "_" + name
  if len(name.encode()) > LONGEST:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    name = name.encode()[:LONGEST - 11].decode("utf-8", "ignore").rstrip(". ") + "-" + digest
  return name


def result_names(files: Sequence[pathlib.Path], root, flat: bool = False
                 ) -> dict[pathlib.Path, str]:
  """{file: relative name without ending}, "/" between folders; no two are equal in any capitals.

  Args:
    root: the folder that was searched, or the file that was given.
    flat: no folders; those of the file go into the name only where two files share it.
  """
  choices = []
  for file in files:
    *folders, _ = parts = _below(file, pathlib.Path(root))
    stem, whole = find.stem_of(parts[-1]), parts[-1].replace(".", "_")
    if flat:
      joined = "_".join(folders + [stem]), "_".join(folders + [whole])
      choices.append([safe(stem), *map(safe, joined)])
    else:
      lead = "".join(safe(f) + "/" for f in folders)
      choices.append([lead + safe(stem), lead + safe(whole)])
  return dict(zip(files, _distinct(choices)))


def beside_its_image(path: pathlib.Path, files: Sequence[pathlib.Path]) -> str:
  """Why a_mask.png, a_mask_1.png, mask_a.tif or a-overlay.tif is no input where a.png lies beside it, and
  P1/mask.png where P1/image.png does; "" for other names.

  Args:
    files: of the search, sorted.
  """
  stem = find.stem_of(path)
  gaps = mask_words.BETWEEN.finditer(stem)
  for at in (k for found in gaps for k in range(*found.span())):  # all in "a (1)_mask"
    for image, rest in ((stem[:at], stem[at:]), (stem[at + 1:], stem[:at])):
      if image and mask_words.is_mark(rest) and (file := _beside(path.with_name(image), files)):
        return f"{mask_words.BESIDE} of {file.name}, which lies beside it"
  if mask_words.is_mark(stem, whole=True) and (file := _other(path, files)):
    return f"{mask_words.BESIDE}, and lies in the folder of {file.name}"
  return ""


def marked(files: Sequence[pathlib.Path], root: pathlib.Path) -> dict[pathlib.Path, str]:
  """{file: why it is no clean frame} of masks beside their image or in a folder of masks, and of files in a
  folder of annotated ones.

  Args:
    files: of the search, sorted. root: the folder that was searched.
  """
  found = {}
  for path in files:
    folders = {part.lower() for part in path.relative_to(root).parts[:-1]}
    reason = ("lies in a folder of masks" if folders & set(mask_words.FOLDERS) else
              "lies in a folder of annotated frames" if folders & mask_words.ANNOTATED else
              beside_its_image(path, files))
    if reason:
      found[path] = reason
  return found


def _beside(place: pathlib.Path, files):
  """The file of that name without ending, None where there is none."""
  first, depth = bisect.bisect_left(files, place), len(place.parts)
  for file in files[first:]:
    # What lies in a folder a/ comes before a.png.
    if file.parts[:depth - 1] != place.parts[:-1] or not file.parts[depth - 1].startswith(place.name):
      return None
    if len(file.parts) == depth and find.stem_of(file) == place.name:
      return file
  return None


def _other(path: pathlib.Path, files):
  """The first file of the folder, but for folders in it, that is no mark by its whole name, or None."""
  first, depth = bisect.bisect_left(files, path.parent), len(path.parts)
  for file in files[first:first + _NEAR]:
    if file.parts[:depth - 1] != path.parts[:-1]:
      return None
    if len(file.parts) == depth and not mask_words.is_mark(find.stem_of(file), whole=True):
      return file
  return None


def unique(texts: Sequence[str], folders: bool = False) -> list[str]:
  """A safe name for each text (patients, ids of a table), no two equal in any capitals.

  Args:
    folders: a "/" in a text stays one between folders; "..", "." and empty parts go.
  """
  parts = [[p for p in t.split("/") if p.strip(". ")] if folders else [t] for t in texts]
  return _distinct([["/".join(map(safe, p)) or "_"] for p in parts])


def same(name: str) -> str:
  """The form in which names are compared: one for all capitals and Unicode forms."""
  return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _below(file, root):
  """Parts of the file's path below the root; of a file elsewhere its name alone."""
  if file == root:
    return [file.name]
  try:
    return list(file.relative_to(root).parts)
  except ValueError:
    return [file.name]


def _distinct(choices: list[list[str]]) -> list[str]:
  """The first choice of each that no other has; numbers where the last ones are still alike."""
  level = [0] * len(choices)
  while True:
    keys = [same(c[at]) for c, at in zip(choices, level)]
    count: dict[str, int] = {}
    for key in keys:
      count[key] = count.get(key, 0) + 1
    raised = [i for i, key in enumerate(keys) if count[key] > 1 and level[i] + 1 < len(choices[i])]
    if not raised:
      break
    for i in raised:
      level[i] += 1
  names, taken, first = [], set(keys), set[str]()
  for c, at in zip(choices, level):
    name, number = c[at], 1
    while same(name) in first or (number > 1 and same(name) in taken):
      number += 1
      name = f"{c[at]}_{number}"
    first.add(same(name))
    names.append(name)
  return names
