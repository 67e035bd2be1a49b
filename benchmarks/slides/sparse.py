"""Memory and time of preparing one slide of 100,000 x 200,000 pixels: annotation to patches at three scales.

  python -m benchmarks.slides.sparse

The slide is a sparse file: a pyramid of nine levels whose tiles are shared, 60 GB of pixels in 10 MB. An
ellipse is tissue, in it lies an annotated lesion of 5,000 vertices with a hole. Each form of mask runs in a
process of its own; its peak of memory counts everything, Python and the libraries too.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import struct
import sys
import tempfile
import time
import zlib

import numpy as np

from benchmarks import report
from data_pipelines.slides.camelyon import settings as fields, slide_job

TILE, WIDTH, HEIGHT = 256, 100_000, 200_000
LEVELS = tuple(2 ** i for i in range(9))
_DRAWN = 16  # levels from this downsample on are drawn tile by tile, finer ones take tiles from a pool
STEPS = ("annotations", "masks", "tumor", "merge", "resize")


def write_slide(path: pathlib.Path, width: int = WIDTH, height: int = HEIGHT) -> None:
  """A BigTIFF whose tiles of background are one, and whose tiles of tissue are eight."""
  rng = np.random.default_rng(0)
  pool = [_tissue(rng, np.ones((TILE, TILE), bool)) for _ in range(8)]
  blank = _tissue(rng, np.zeros((TILE, TILE), bool))
  with path.open("wb") as file:
    file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
    link = 8  # where the next directory's place is written
    shared = [_append(file, tile) for tile in (blank, *pool)]
    for scale in LEVELS:
      size = -(-width // scale), -(-height // scale)
      places = []
      for row in range(-(-size[1] // TILE)):
        for column in range(-(-size[0] // TILE)):
          if scale >= _DRAWN:
            y, x = (np.arange(TILE) + TILE * n for n in (row, column))
            places.append(_append(file, _tissue(rng, _inside(x / size[0], y[:, None] / size[1]))))
          else:
            middle = _inside((column + 0.5) * TILE / size[0], (row + 0.5) * TILE / size[1])
            places.append(shared[1 + (7 * row + column) % 8] if middle else shared[0])
      link = _directory(file, link, size, places, scale)


def _inside(x, y):
  """Of the ellipse of tissue; x and y in parts of the slide."""
  return ((x - 0.5) / 0.3) ** 2 + ((y - 0.5) / 0.3) ** 2 < 1


def _tissue(rng, mask):
  """A deflated tile: pink with noise where `mask`, else nearly white."""
  tile = np.where(mask[..., None], np.array([206, 130, 190]), 243)
  grain = rng.integers(-40, 41, (TILE // 8, TILE // 8, 1)).repeat(8, 0).repeat(8, 1)
  return zlib.compress(np.clip(tile + grain * mask[..., None], 0, 255).astype(np.uint8).tobytes(), 1)


def _append(file, content):
  place = file.tell()
  file.write(content)
  return place, len(content)


def _directory(file, link, size, places, scale):
  """Writes a directory and the arrays it points to; returns where the place of the next one goes."""
  offsets, counts = (np.array(v) for v in zip(*places))
  arrays = {324: (16, offsets.astype("<u8")), 325: (4, counts.astype("<u4")),
            258: (3, np.array([8, 8, 8], "<u2")), 282: (5, np.array([10**4 * 4, scale], "<u4")),
            283: (5, np.array([10**4 * 4, scale], "<u4"))}
  entries = {254: (4, 1, int(scale > 1)), 256: (4, 1, size[0]), 257: (4, 1, size[1]), 259: (3, 1, 8),
             262: (3, 1, 2), 277: (3, 1, 3), 284: (3, 1, 1), 296: (3, 1, 3),
             322: (3, 1, TILE), 323: (3, 1, TILE)}
  for tag, (kind, array) in arrays.items():
    count = 1 if kind == 5 else len(array)
    content = array.tobytes()
    entries[tag] = (kind, count, int.from_bytes(content.ljust(8, b"\0"), "little") if len(content) <= 8
                    else _append(file, content)[0])
  start = file.tell()
  file.write(struct.pack("<Q", len(entries)))
  for tag in sorted(entries):
    file.write(struct.pack("<HHQQ", tag, *entries[tag]))
  file.write(struct.pack("<Q", 0))
  end = file.tell()
  file.seek(link)
  file.write(struct.pack("<Q", start))
  file.seek(end)
  return end - 8


def annotation(vertices: int = 5000) -> str:
  """XML of a wavy lesion and a hole in it."""
  outlines = []
  for group, size in (("_0", 0.12), ("_2", 0.03)):
    angle = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    radius = size * WIDTH * (1 + 0.1 * np.sin(40 * angle))
    x, y = WIDTH / 2 + radius * np.cos(angle), HEIGHT / 2 + radius * np.sin(angle)
    points = "".join(f'<Coordinate X="{u:.3f}" Y="{v:.3f}"/>' for u, v in zip(x, y))
    outlines.append(f'<Annotation Name="{group}" Type="Polygon" PartOfGroup="{group}"><Coordinates>{points}'
                   "</Coordinates></Annotation>")
  return f"<A><Annotations>{''.join(outlines)}</Annotations></A>"


def one(job: dict) -> dict:
  """What a process of its own measures."""
  begin, used = time.perf_counter(), time.process_time()
  result = slide_job.run(job)
  return {**result, "clock": time.perf_counter() - begin, "processor": time.process_time() - used,
          "peak": report.peak_memory()}


def main() -> None:
  if sys.argv[1:2] and sys.argv[1].startswith("{"):
    print(json.dumps(one(json.loads(sys.argv[1]))))
    return
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--patches", type=int, default=50)
  parser.add_argument("--output", default="", help="JSON file")
  args = parser.parse_args()
  results = {}
  with tempfile.TemporaryDirectory(prefix="medae_bench_") as temp:
    root = pathlib.Path(temp)
    slide = root / "source" / "training" / "tumor" / "tumor_001.tif"
    xml = root / "source" / "training" / "lesion_annotations" / "tumor_001.xml"
    for path in (slide, xml):
      path.parent.mkdir(parents=True)
    begin = time.perf_counter()
    write_slide(slide)
    xml.write_text(annotation())
    report.say(f"slide written: {slide.stat().st_size / 1e6:.1f} MB in {time.perf_counter() - begin:.1f} s")
    for mask in ("area", "nearest", "bicubic"):
      settings = fields.resolve(fields.Settings(
          str(root / "source"), str(root / mask), mask=mask, per_slide=args.patches, stain=False))
      entry = {"name": "tumor_001", "part": "train", "kind": "tumor", "names": None,
               "file": str(slide.relative_to(root / "source")), "xml": str(xml.relative_to(root / "source"))}
      results[mask] = report.child("benchmarks.slides.sparse", {
          "settings": settings.as_json(), "entry": entry, "steps": STEPS, "stale": 600})
      results[mask]["patches"] = len(list((root / mask / "x10").glob("*")))
      if "done" not in results[mask]:
        raise RuntimeError(f"mask {mask}: {results[mask]}")
  report.show(("mask", "peak memory, MB", "s of clock", "s of processor", "patches"),
              [(m, f"{r['peak'] / 2**20:.0f}", f"{r['clock']:.1f}", f"{r['processor']:.1f}", r["patches"])
               for m, r in results.items()], results, args.output)


if __name__ == "__main__":
  main()
