"""Stain normalisation of 768 x 768 patches on one core, beside torchstain and the published procedure.

  python -m benchmarks.slides.stain --images=FOLDER     # tissue images; patches are mosaics of them

All sides in turn in one process on one core. torchstain's NumPy back end has the method of Macenko; the
published procedure is benchmarks/peers/stain.py, which learns for one second of the clock.
"agrees" says how far our result lies from the published one: grey levels, and the angle between stains.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pathlib
import statistics
import time

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
  os.environ[_name] = "1"  # before NumPy: one core is one thread

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from benchmarks import report  # noqa: E402
from benchmarks.peers import stain as published  # noqa: E402
from data_pipelines.slides import stain  # noqa: E402

SIDE = 768


def patches(folder: pathlib.Path, count: int) -> list[np.ndarray]:
  """uint8 [768,768,3]: mosaics of the first images of a folder, mirrored at their borders."""
  files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[:count]
  found = []
  for file in files:
    image = np.asarray(Image.open(file).convert("RGB"))
    whole = np.concatenate([image, image[:, ::-1]], 1)
    whole = np.concatenate([whole, whole[::-1]])
    times = [-(-SIDE // n) for n in whole.shape[:2]]
    found.append(np.ascontiguousarray(np.tile(whole, (*times, 1))[:SIDE, :SIDE]))
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--images", required=True, help="folder of tissue images")
  parser.add_argument("--count", type=int, default=8, help="patches")
  parser.add_argument("--repeats", type=int, default=3)
  parser.add_argument("--output", default="", help="JSON file")
  args = parser.parse_args()
  if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  images = patches(pathlib.Path(args.images), args.count)
  target, aim = images[0], stain.find_stains(images[0])
  sides = {"medae_jax": lambda image: stain.normalize(image, aim),
           "medae_jax, parity (all pixels)": lambda image: stain.normalize(image, aim, parity=True),
           "published procedure": lambda image: published.normalize(image, aim.matrix)}
  with_peer = importlib.util.find_spec("torchstain") is not None
  if with_peer:
    macenko = importlib.import_module("torchstain.numpy.normalizers").NumpyMacenkoNormalizer()
    macenko.fit(target)
    sides["torchstain, Macenko"] = lambda image: macenko.normalize(image, stains=False)[0]
  wall, cpu = {n: [] for n in sides}, {n: [] for n in sides}
  for _ in range(args.repeats):
    for image in images:
      for name, run in sides.items():
        begin, used = time.perf_counter(), time.process_time()
        run(image)
        wall[name].append(time.perf_counter() - begin)
        cpu[name].append(time.process_time() - used)
  report.show(("side", "s of processor a patch", "s of clock", "times the published time (processor)"),
              [(n, report.spread(cpu[n]), report.spread(wall[n]),
                f"{statistics.median(cpu[n]) / statistics.median(cpu['published procedure']):.3f}")
               for n in sides], {"processor_seconds": cpu, "clock_seconds": wall}, args.output)
  angles, levels = agreement(images, aim)
  print(f"agrees: stains {np.mean(angles):.3f} degrees apart (at most {max(angles):.3f}), images "
        f"{np.mean(levels):.2f} grey levels (at most {max(levels):.2f} on average of one)")
  if not with_peer:
    print("torchstain is not installed: pip install torchstain")


def agreement(images, aim) -> tuple[list[float], list[float]]:
  """Angles in degrees between our stains and the published ones, mean distances of images in grey levels."""
  angles, levels = [], []
  for image in images:
    ours = stain.find_stains(image, parity=True).matrix
    theirs = published.stain_matrix(published.standardize(image), 3.0)
    angles += np.degrees(np.arccos(np.clip((ours * theirs).sum(1), -1, 1))).tolist()
    distance = stain.normalize(image, aim).astype(int) - published.normalize(image, aim.matrix, 3.0)
    levels.append(float(np.abs(distance).mean()))
  return angles, levels


if __name__ == "__main__":
  main()
