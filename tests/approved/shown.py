"""Outputs as text that can be read and compared: pages, tables, trees, arrays, pictures, folders of them."""

from __future__ import annotations

import base64
import difflib
import io
import json
import pathlib
import re

import numpy as np
from PIL import Image

_NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")
_LONG = re.compile(r"-?\d+\.\d{5,}(?:e[+-]?\d+)?")
_TOLERANCE = 1e-4  # relative: where processors agree
_SIDE = 12  # of the grid that a picture is averaged on


def rounded(text: str) -> str:
  """Numbers with five decimals and more to five digits."""
  return _LONG.sub(lambda m: f"{float(m[0]):.5g}", text)


def page(html: str | bytes) -> str:
  """HTML or SVG, a tag a line, without its style sheet; pictures inside it as `picture`."""
  text = html.decode() if isinstance(html, bytes) else str(html)
  text = re.sub(r"<style>.*?</style>", "", text, flags=re.S)
  text = re.sub(r"data:image/\w+;base64,([\w+/=]+)", lambda m: "PICTURE " + picture(
      base64.b64decode(m[1]), "/"), text)
  lines = (line.strip() for line in re.sub(r"(?=<)|(?<=>)", "\n", text).splitlines())
  joined: list[str] = []
  for line in filter(None, lines):  # what is between tags stands behind the one that opens it
    if joined and not line.startswith("<") and joined[-1].startswith("<") and len(joined[-1]) < 200:
      joined[-1] += " " + line
    elif line.startswith("</") and joined and not line.startswith(("</t", "</s", "</d", "</u", "</m")):
      joined[-1] += line
    else:
      joined.append(line)
  return rounded("\n".join(line for line in joined if line not in ("</td>", "</th>", "</tr>", "</text>")))


def tree(value) -> str:
  """Nested dicts and lists as JSON; arrays as `array`."""
  def plain(v):
    if isinstance(v, dict):
      return {str(k): plain(x) for k, x in v.items()}
    if isinstance(v, (list, tuple)):
      return [plain(x) for x in v]
    if isinstance(v, (np.floating, np.integer, np.bool_)):
      return v.item()
    if hasattr(v, "shape"):
      return array(v)
    return v if isinstance(v, (str, int, float, bool, type(None))) else str(v)
  text = json.dumps(plain(value), indent=1, ensure_ascii=False)
  # a list of numbers or words stands in a line
  return rounded(re.sub(r"\[[^\[\]{}]*\]", lambda m: " ".join(m[0].split()), text))


def array(value) -> str:
  """Type, shape, and sums that change with every exchange of axes or places."""
  value = np.asarray(value)
  flat = value.astype(np.float64).ravel() if value.dtype.kind in "biuf" else np.zeros(0)
  known = flat[np.isfinite(flat)]
  place = np.arange(1, flat.size + 1)[np.isfinite(flat)] % 9973
  return (f"{value.dtype}{list(value.shape)} sum {known.sum():.5g} "
          f"by place {(known * place).sum() / max(1, flat.size):.5g}")


def picture(data, line: str = "\n") -> str:
  """Size and mean colours on a grid: bytes of a file, or an array."""
  pixels = np.asarray(Image.open(io.BytesIO(data))) if isinstance(data, bytes) else np.asarray(data)
  pixels = pixels[..., None] if pixels.ndim == 2 else pixels
  rows, columns = (np.unique(np.linspace(0, n, min(n, _SIDE) + 1).astype(int)) for n in pixels.shape[:2])
  cells = [[pixels[a:b, c:d].reshape(-1, pixels.shape[-1]).mean(0) for c, d in zip(columns, columns[1:])]
           for a, b in zip(rows, rows[1:])]
  shown = [" ".join(",".join(f"{v:.0f}" for v in cell) for cell in row) for row in cells]
  return line.join(["x".join(map(str, pixels.shape)), *shown])


def folder(path: pathlib.Path, replace=(), skip=(), sizes=(), brief=()) -> str:
  """Every file below a folder, in the order of names.

  Args:
    replace: (pattern, words) for what differs between machines. skip: patterns of files left out.
    sizes: patterns of pictures of which the size alone is shown: they hold letters. brief: patterns of those
      that are shown as `array`.
  """
  parts = []
  for file in sorted(p for p in path.rglob("*") if p.is_file()):
    name = file.relative_to(path).as_posix()
    if any(re.search(s, name) for s in skip):
      continue
    data = file.read_bytes()
    if any(re.search(s, name) for s in sizes):
      text = "x".join(map(str, np.asarray(Image.open(io.BytesIO(data))).shape))
    elif file.suffix == ".json":
      text = tree(json.loads(data))
    elif file.suffix in (".html", ".svg"):
      text = page(data)
    elif any(re.search(s, name) for s in brief):
      text = array(np.asarray(Image.open(io.BytesIO(data))))
    elif file.suffix == ".png":
      text = picture(data)
    elif file.suffix in (".npz", ".npy"):
      held = np.load(file)
      text = array(held) if file.suffix == ".npy" else "\n".join(f"{k}: {array(held[k])}" for k in held.files)
    elif file.name.endswith((".nii", ".nii.gz")):
      import nibabel
      image = nibabel.load(file)
      text = f"{array(image.dataobj)}\naffine {np.round(image.affine, 4).tolist()}"
    else:
      text = rounded(data.decode())
    for pattern, words in replace:
      text = re.sub(pattern, words, text)
    parts.append(f"==== {name}\n{text.strip()}\n")
  return "\n".join(parts)


def same(old: str, new: str) -> bool:
  """Whether texts are equal but for the last digits of numbers that are no whole ones."""
  if old == new:
    return True
  if _NUMBER.sub("#", old) != _NUMBER.sub("#", new):
    return False
  for a, b in zip(_NUMBER.findall(old), _NUMBER.findall(new)):
    if a != b and (not ({*".e"} & {*a}) or abs(float(a) - float(b)) > _TOLERANCE * max(
        abs(float(a)), abs(float(b)), 1e-9)):
      return False
  return True


def difference(old: str, new: str) -> str:
  """What changed, line by line; "" where nothing did."""
  before, after = old.splitlines(), new.splitlines()
  if len(before) == len(after):  # last digits alone are no difference
    after = [a if same(a, b) else b for a, b in zip(before, after)]
  lines = list(difflib.unified_diff(before, after, "approved", "now", lineterm="", n=2))
  return "\n".join(line[:400] for line in lines[:80])
