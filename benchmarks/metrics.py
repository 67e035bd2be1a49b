"""Figures of an evaluation as large as the BraTS test split, scores given, against the reference.

  python -m benchmarks.metrics
  taskset -c 0 python -m benchmarks.metrics --scans=25 --share=1     (the reference on all of it)

250 scans of 144 slices of 128x128 (36,000 slices). Both sides find AP over all pixels, the Dices of
1000 thresholds and the Dice after the component filter. The reference (benchmarks/peers/anomaly.py)
sees one scan in `--share`, its seconds are multiplied: its passes are linear and its sort is slower
than linear, so this flatters it. Ours sees everything, with what --mode=evaluate runs; then once
more the reference's scans, where all figures must agree: Dices and threshold bit for bit, AP (sums
of the same fractions in another order) to 1e-12. Nothing is hidden in bins: the reference
itself rounds scores to float16, and each of the 31,745 non-negative float16 has a bin of its own.
The time to make the synthetic scores is not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np
from scipy import ndimage

from benchmarks import report

SLICES, SIDE, CHUNK = 144, 128, 48


class Scans:
  """Synthetic score maps: speckle inside a brain, brighter in a tumour; a few shapes, many scales."""

  def __init__(self):
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[-1:1:SLICES * 1j, -1:1:SIDE * 1j, -1:1:SIDE * 1j].astype(np.float32)
    brain = (x**2 + y**2 < 0.72) & (abs(z) < 0.95)
    self.maps, self.masks = [], []
    for _ in range(3):
      noise = rng.standard_normal(brain.shape, np.float32)
      speckle = np.abs(ndimage.gaussian_filter(noise, (0.5, 1.5, 1.5)))
      a, b, c = rng.uniform(-0.4, 0.4, 3)
      tumour = (x - a)**2 + (y - b)**2 + (z - c)**2 < rng.uniform(0.03, 0.12)
      maps = speckle / speckle.std() * 0.04 * (1 + 2.5 * ndimage.gaussian_filter(
          tumour.astype(np.float32), 2))
      self.maps.append(maps * brain)
      self.masks.append(tumour & brain)

  def __getitem__(self, i):
    """(float32 [n,H,W], bool [n,H,W]) of scan i."""
    k, turn = i % 3, i // 3 % 4
    maps = self.maps[k] * np.float32(1 + 0.37 * np.sin(i))
    return (np.ascontiguousarray(np.rot90(maps, turn, (1, 2))),
            np.ascontiguousarray(np.rot90(self.masks[k], turn, (1, 2))))


def reference(numbers) -> dict:
  """The peer on the scans `numbers`."""
  from benchmarks.peers import anomaly
  source, spent = Scans(), {}
  scans = [source[i] for i in numbers]
  times = [time.perf_counter()]

  def lap(name):
    times.append(time.perf_counter())
    spent[name] = times[-1] - times[-2]
  scores = np.concatenate([maps.astype(np.float16).ravel() for maps, _ in scans])
  labels = np.concatenate([mask.ravel() for _, mask in scans])
  lap("rounding")
  ap = anomaly.average_precision(scores, labels)
  lap("AP")
  best, threshold = anomaly.best_dice(scores, labels)
  lap("1000 Dices")
  components = anomaly.component_dice(scans, threshold)
  lap("components")
  return {"seconds": spent, "figures": [ap, best, threshold, components]}


def ours(numbers) -> dict:
  """The package on the scans `numbers`, fed in batches as an evaluation is."""
  from medae_jax.metrics import detection
  from medae_jax.tasks.anomaly import kept_maps
  source, spent = Scans(), {"histograms": 0.0, "store": 0.0}
  histograms = detection.Histograms(len(numbers), 80 * 2**20)
  store = kept_maps.MapStore(len(numbers) * SLICES, (SIDE, SIDE))
  valid = np.ones(CHUNK, bool)
  for place, number in enumerate(numbers):
    maps, mask = source[number]
    for start in range(0, SLICES, CHUNK):
      begin, part = time.perf_counter(), slice(start, start + CHUNK)
      store.put(place * SLICES + start + np.arange(CHUNK), maps[part], mask[part])
      middle = time.perf_counter()
      histograms.add(maps[part], mask[part], valid, np.full(CHUNK, place, np.int32))
      histograms.counts()  # waits, so that the work shows here
      spent["store"] += middle - begin
      spent["histograms"] += time.perf_counter() - middle
  begin = time.perf_counter()
  counts = histograms.counts()
  ap = float(detection.average_precision(counts))
  best, threshold = detection.best_dice(counts)
  spent["AP and 1000 Dices"] = time.perf_counter() - begin
  begin = time.perf_counter()
  rows = np.arange(len(numbers) * SLICES).reshape(len(numbers), SLICES)
  overlap = kept_maps.overlap_counts(store, [[r] for r in rows], {"best": threshold}, 20)
  components = float(kept_maps.pooled_dice(overlap["best_components"]))
  spent["components"] = time.perf_counter() - begin
  store.close()
  return {"seconds": spent, "figures": [ap, best, threshold, components]}


def work(side, numbers) -> None:
  """One side in this process: JSON on stdout."""
  result = {"reference": reference, "ours": ours}[side](numbers)
  print(json.dumps({**result, "peak_bytes": report.peak_memory()}))


def check(reference_figures, our_figures) -> None:
  """Raises ValueError unless both found the same."""
  (ap, *exact), (our_ap, *our_exact) = reference_figures, our_figures
  if exact != our_exact or abs(ap - our_ap) > 1e-12:
    raise ValueError(f"not the same figures: {reference_figures} and {our_figures}")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--scans", type=int, default=250)
  parser.add_argument("--share", type=int, default=40, help="the reference sees one scan in so many")
  parser.add_argument("--output", default="", help="JSON file")
  args = parser.parse_args()
  everything, part = list(range(args.scans)), list(range(0, args.scans, args.share))
  run = lambda side, numbers: report.child("benchmarks.metrics", {"side": side, "numbers": numbers},
                                           {"JAX_PLATFORMS": "cpu"})
  found = {"ours": run("ours", everything)}
  report.say(f"ours: {found['ours']}")
  found["reference"] = run("reference", part)
  report.say(f"reference: {found['reference']}")
  found["ours, same part"] = run("ours", part)
  check(found["reference"]["figures"], found["ours, same part"]["figures"])
  scale = {"ours": 1, "reference": len(everything) / len(part), "ours, same part": 1}
  seconds = {k: scale[k] * sum(v["seconds"].values()) for k, v in found.items()}
  rows = []
  for name, part_of in (("reference", part), ("ours, same part", part), ("ours", everything)):
    one = found[name]
    parts = ", ".join(f"{k} {v:.3g}" for k, v in one["seconds"].items())
    rows.append((name, len(part_of) * SLICES, parts, f"{seconds[name]:.4g}",
                 f"{one['peak_bytes'] / 2**20:,.0f} MiB",
                 ", ".join(repr(v) for v in one["figures"])))
  report.show(("side", "slices", "seconds measured", f"seconds (reference: x {scale['reference']:g})",
               "peak memory", "AP, best Dice, threshold, Dice after the filter"), rows, found,
              args.output)
  difference = abs(found["reference"]["figures"][0] - found["ours, same part"]["figures"][0])
  print(f"reference / ours on {args.scans * SLICES:,} slices: "
        f"{seconds['reference'] / seconds['ours']:.0f} times; figures of the shared part equal "
        f"(AP differs by {difference:.1e})")


if __name__ == "__main__":
  if sys.argv[1:2] and sys.argv[1].startswith("{"):
    work(**json.loads(sys.argv[1]))
  else:
    main()
