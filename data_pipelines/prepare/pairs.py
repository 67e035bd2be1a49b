"""Draws annotations on clean frames and stores the pairs, for `paired` or for other programs.

  python -m data_pipelines.prepare pairs --dir=FOLDER --out=PAIRS --copies=3

FOLDER holds clean/ (or the frames themselves); PAIRS gets clean/, annotated/, mask/ (with the folders
of FOLDER, which may name patients) and marks.json (seed, options, and the kinds and boxes of the marks
of every frame). Without --dir the frames are synthetic. 8 bit, PNG. The options are those of
config.data.marks: --set=count=2,4 --set=jpeg=0.3
"""

from __future__ import annotations

import argparse
import ast
import json
import pathlib
import zlib

import numpy as np

from data_pipelines import whole_folder
from data_pipelines.datasets import annotations as annotation_set
from data_pipelines.errors import UserError
from data_pipelines.formats import images
from data_pipelines.intake import find, names
from data_pipelines.marks import catalogue, layers, reference
from data_pipelines.marks.options import check, check_fonts
from data_pipelines.pairs import frames as frame_files, ultrasound


def write(out, frames, options, *, seed: int = 0, copies: int = 1) -> dict:
  """Writes pairs, all or none.

  Args:
    out: folder, new or empty.
    frames: iterable of (name without ending, perhaps with folders, float32 [H,W,C] in [0,1]), no two alike.
    options: config.data.marks.
    seed: with a frame's name and the number of the copy it decides about its marks.
    copies: differently annotated pairs of each frame, named NAME_c0, NAME_c1 ...; the copies of a
      frame share the part before the last "_", by which `paired` groups.

  Returns:
    What marks.json holds.

  Raises:
    FileExistsError: the folder holds files. UserError: two frames have one name, in whatever capitals.
  """
  with whole_folder.filled(out) as folder:
    return _write(folder, frames, options, seed, copies)


def _write(out: pathlib.Path, frames, options, seed: int, copies: int) -> dict:
  for name in ("clean", "annotated", "mask"):
    (out / name).mkdir(parents=True, exist_ok=True)
  listed, taken = [], dict[str, str]()
  for name, clean in frames:
    if names.same(name) in taken:
      raise UserError(f"two frames are called {taken[names.same(name)]} and {name}: their pairs would be one")
    taken[names.same(name)] = name
    for copy in range(copies):
      rng = np.random.default_rng([seed, zlib.crc32(name.encode()), copy])
      found = reference.draw(rng, clean) if options["style"] == "reference" else (
          catalogue.draw(rng, clean, options))
      blur = 0.0 if options["style"] == "reference" else rng.uniform(*options["blur"])
      annotated, mask = layers.compose(clean, found, blur)
      target = clean
      if rng.random() < options["jpeg"]:
        quality = rng.integers(options["jpeg_quality"][0], options["jpeg_quality"][1] + 1)
        annotated, target = layers.jpeg(annotated, quality), layers.jpeg(clean, quality)
      file = f"{name}_c{copy}.png"
      for folder, image in (("clean", target), ("annotated", annotated), ("mask", mask)):
        target_file = out / folder / file
        target_file.parent.mkdir(parents=True, exist_ok=True)
        images.write_array(target_file, np.round(image * 255).astype(np.uint8))
      listed.append({"file": file, "marks": [_describe(m) for m in found],
                     "mask_share": float(mask.mean())})
  result = {"seed": seed, "copies": copies, "options": options, "frames": listed}
  (out / "marks.json").write_text(json.dumps(result, indent=1, default=list))
  return result


def _describe(mark):
  """Kind and bounding box (top, left, bottom, right) of a mark."""
  boxes = [(y.top, y.left, y.top + y.alpha.shape[0], y.left + y.alpha.shape[1])
           for y in mark.layers]
  low, high = np.min(boxes, 0)[:2], np.max(boxes, 0)[2:]
  return {"kind": mark.kind, "box": [int(v) for v in (*low, *high)]}


def _frames(folder, channels, count, size, window):
  """(name, frame) of a folder's images, or of `count` synthetic frames."""
  if not folder:
    for i in range(count):
      grey = ultrasound.frame(np.random.default_rng([20240, i]), size)
      yield f"synthetic{i:05d}", np.repeat(grey[..., None], channels, -1)
    return
  root = pathlib.Path(folder)
  root = root / "clean" if (root / "clean").is_dir() else root
  files = frame_files.list_frames(root)
  for name, path in zip(names.unique([_below(path, root) for path in files], folders=True), files):
    yield name, images.read_unit(path, channels, window)


def _below(path, root):
  """The frame's name with its folders, which may name a patient; "_" parts it from the number of the copy."""
  *folders, file = path.relative_to(root).parts
  return "/".join([*folders, find.stem_of(file).replace("_", "-")])


def main(argv: list[str]) -> None:
  """Writes the pairs, then says how many."""
  parser = argparse.ArgumentParser(prog="prepare pairs", description=__doc__.splitlines()[0])
  parser.add_argument("--dir", default="", help="folder of clean frames; empty = synthetic frames")
  parser.add_argument("--out", required=True)
  parser.add_argument("--copies", type=int, default=1)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--channels", type=int, default=3, choices=(1, 3))
  parser.add_argument("--window", type=float, nargs=2, default=(0, 0), metavar=("BLACK", "WHITE"),
                      help="of files deeper than 8 bits; 0 0 = by the rule of docs/formats.md")
  parser.add_argument("--synthetic", type=int, default=20, help="number of synthetic frames")
  parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE",
                      help="a field of config.data.marks")
  args = parser.parse_args(argv)
  options = annotation_set.defaults().marks
  for entry in args.set:
    field, _, value = entry.partition("=")
    if field not in options:
      raise UserError(f"--set={field}: the fields are {', '.join(sorted(options))}")
    try:
      options[field] = _value(value, options[field])
    except (ValueError, SyntaxError):
      raise UserError(f"--set={entry}: give it as {options[field]!r} is given") from None
  if args.copies < 1 or args.synthetic < 1:
    raise UserError(f"--copies={args.copies}, --synthetic={args.synthetic}: both are at least 1")
  check(options)
  check_fonts(options.fonts)
  frames = _frames(args.dir, args.channels, args.synthetic, (128, 128), tuple(args.window))
  found = write(args.out, frames, options.to_dict(), seed=args.seed, copies=args.copies)
  print(f"{len(found['frames'])} pairs in {args.out}")


def _value(text, like):
  """A value of the type of `like`; tuples are written with commas."""
  if isinstance(like, tuple):
    parts = [p for p in text.split(",") if p]
    return tuple(ast.literal_eval(p) for p in parts) if like and not isinstance(like[0], str) else (
        tuple(parts))
  return type(like)(text)


if __name__ == "__main__":
  from data_pipelines.prepare import program
  program(main)
