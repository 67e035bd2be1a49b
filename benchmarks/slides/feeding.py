"""Training patches a second: straight from slides, beside the same patches prepared as files.

  python -m benchmarks.slides.feeding --patches=FOLDER      # tissue images with labels.csv, one size

A slide (JPEG tiles of 256 x 256, levels 1, 4, 16) is laid out of the patches. Sides, in turn in one process,
each through its own training stream (random place and mirror image, float32 batches):

  slide            windows cut from the slide at the level that fits, stains varied
  slide, no stain  the same without stain augmentation
  PNG, JPEG        the same windows as files, read for every batch
  PNG in memory    the same, decoded once and kept (config.data.cache)

Ratios are to the PNG files: what a prepared set would give that does not fit in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import pathlib
import statistics
import tempfile
import time

import numpy as np
from PIL import Image

from benchmarks import report
from benchmarks.slides import mosaic
from data_pipelines import stream
from data_pipelines.datasets import camelyon, slides
from data_pipelines.slides import writer

CROP, JITTER, MPP = 64, 64, 0.25
_FILES = (("PNG", "png", False), ("JPEG", "jpg", False), ("PNG in memory", "p.png", True))
_WAYS = {"slide": {"stain": 0.05}, "slide, no stain": {"stain": 0.0}}


def laid_out(folder: pathlib.Path, path: pathlib.Path, side: int) -> None:
  """A slide of side x side patches, each shown four times as large: x10 is the patches' own pixels."""
  import tifffile
  image, _ = mosaic.mosaic(folder, side)
  levels = [image.repeat(4, 0).repeat(4, 1), image]
  levels.append(image[::4, ::4])
  with tifffile.TiffWriter(path, bigtiff=True) as file:
    for number, level in enumerate(levels):
      file.write(level, tile=(writer.TILE, writer.TILE), photometric="rgb", compression="jpeg",
                 resolution=(1e4 / MPP / 4 ** number,) * 2, resolutionunit="CENTIMETER",
                 subfiletype=int(number > 0), metadata=None)


def _table(root: pathlib.Path, rows) -> None:
  with open(root / "labels.csv", "w", encoding="utf-8", newline="") as file:
    writer_ = csv.writer(file)
    writer_.writerows([("file", "split", "label"), *rows])


def _of_slides(root: pathlib.Path, **more):
  """The data set of slides."""
  cfg = slides.defaults()
  cfg.update(root=str(root), magnification=10.0, crop_size=CROP, jitter=JITTER, own_mpp=MPP,
             tissue_dir=str(root / "tissue"), per_slide=0, **more)
  return slides.build(cfg, 0), cfg


def _of_files(source, root: pathlib.Path, ending: str, cache: bool):
  """The windows of a data set of slides as files, and the data set of them."""
  root.mkdir()
  rows = []
  for number, item in enumerate(source.items):
    window = Image.fromarray(source.load(item))
    window.save(root / f"{number}.{ending}", **({"quality": 90} if ending == "jpg" else {}))
    rows.append((f"{number}.{ending}", "train", "normal"))
  for split, label in (("test", "normal"), ("test", "tumour")):
    name = f"{split}_{label}.{ending}"
    window.save(root / name)
    rows.append((name, split, label))
  _table(root, rows)
  cfg = camelyon.defaults()
  cfg.update(layout="folder", root=str(root), crop_size=CROP, random_crop=True, random_flip=True, cache=cache)
  return camelyon.build(cfg, 0), cfg


def _speed(batches, size: int, seconds: float) -> float:
  """Patches a second."""
  begin, n = time.perf_counter(), 0
  while (spent := time.perf_counter() - begin) < seconds:
    next(batches)
    n += size
  return n / spent


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--patches", required=True, help="folder with labels.csv")
  parser.add_argument("--side", type=int, default=12, help="patches along the slide")
  parser.add_argument("--batch_size", type=int, default=64)
  parser.add_argument("--repeats", type=int, default=5)
  parser.add_argument("--seconds", type=float, default=3.0, help="of a side in a repeat")
  parser.add_argument("--output", default="", help="JSON file")
  args = parser.parse_args()
  with tempfile.TemporaryDirectory(prefix="medae_bench_") as temp:
    root = pathlib.Path(temp) / "slides"
    root.mkdir()
    for name in ("train", "normal", "tumour"):
      laid_out(pathlib.Path(args.patches), root / f"{name}.tif", args.side if name == "train" else 7)
    _table(root, [("train.tif", "train", "normal"), ("normal.tif", "test", "normal"),
                  ("tumour.tif", "test", "tumour")])
    sets = {name: _of_slides(root, **more) for name, more in _WAYS.items()}
    source = sets["slide"][0].train()
    for name, ending, cache in _FILES:
      sets[name] = _of_files(source, pathlib.Path(temp) / name, ending, cache)
    report.say(f"{len(source)} windows of {CROP + JITTER} pixels")
    with contextlib.ExitStack() as stack:
      streams = {}
      for name, (data, cfg) in sets.items():
        streams[name] = stream.train_stream(data, cfg, batch_size=args.batch_size, first_step=0, seed=0)
        stack.callback(streams[name].close)
        for _ in range(-(-len(source) // args.batch_size) + 2):  # an epoch: caches and programs are there
          next(streams[name])
      speeds = {name: [] for name in streams}
      for _ in range(args.repeats):
        for name, batches in streams.items():
          speeds[name].append(_speed(batches, args.batch_size, args.seconds))
  _check(speeds)
  base = speeds["PNG"]
  report.show(("side", "patches/s", "times PNG files (median of pairs)"),
              [(n, report.spread(v), f"{statistics.median(np.divide(v, base)):.2f}")
               for n, v in speeds.items()], {"speeds": speeds, "windows": len(source)}, args.output)


def _check(speeds) -> None:
  if not all(v > 0 for found in speeds.values() for v in found):
    raise RuntimeError(f"a stream gave nothing: {speeds}")


if __name__ == "__main__":
  main()
