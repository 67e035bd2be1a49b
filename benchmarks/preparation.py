"""Raw NIfTI volumes into records, against the published preparation; seconds a scan.

  python -m benchmarks.preparation

Copies of a synthetic scan of BraTS's size (240x240x155, four modalities and labels, int16, gzip). Reference:
benchmarks/peers/preparation.py, one process, as published. Ours: data_pipelines/brains/prepare.py with one
process and with one a core. All in turn; both results are compared slice by slice.
"""

from __future__ import annotations

import argparse
import pathlib
import shutil
import statistics
import tempfile
import time

import numpy as np

from benchmarks import report
from benchmarks.peers import preparation as peer
from data_pipelines.brains import fields, prepare, records
from data_pipelines.datasets import synthetic


def ours(source, output, workers):
  """The manifest of a fresh preparation."""
  cfg = {**fields.defaults(), "dir": str(source), "prepared_dir": str(output),
         "workers": workers}
  return prepare.prepare_set(fields.resolve(cfg))[1]


def check(manifest, folder, reference) -> int:
  """Slices compared; raises ValueError where the two sides differ."""
  compared = 0
  for record in manifest["scans"]:
    scan = records.scan_of(folder, record)
    for place, z in enumerate(scan.slices):
      file = np.load(reference / scan.patient / f"slice_{z}.npz", allow_pickle=False)
      image, mask = file["x"][0].transpose(1, 2, 0), file["y"][0, 0] > 0.5
      if np.abs(scan.image[place] - image).max() > 1e-5 or (scan.mask[place][..., 0] != mask).any():
        raise ValueError(f"{scan.patient}, slice {z}: not the same")
      compared += 1
  return compared


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--scans", type=int, default=6, help="up to 10")
  parser.add_argument("--repeats", type=int, default=3)
  parser.add_argument("--output", default="", help="JSON file")
  args = parser.parse_args()
  cores = prepare.default_count()
  with tempfile.TemporaryDirectory(prefix="medae_bench_") as temp:
    source, temp = pathlib.Path(temp) / "raw", pathlib.Path(temp)
    first, = synthetic.write_nifti(source, 1, shape=(240, 240, 155))
    for number in range(1, args.scans):  # making a scan takes longer than preparing it
      name = f"{first[:-1]}{number}"
      shutil.copytree(source / first, source / name, copy_function=lambda a, b, name=name: (
          shutil.copy(a, b.replace(first + "_", name + "_"))))
    raw = sum(f.stat().st_size for f in source.rglob("*.nii.gz")) / args.scans
    sides = {
        "reference, as published": lambda out: [
            peer.prepare(folder, out / folder.name) for folder in sorted(source.glob("BraTS*"))],
        "medae_jax, 1 process": lambda out: ours(source, out, 1),
        f"medae_jax, {cores} processes": lambda out: ours(source, out, cores)}
    spent, sizes = {name: [] for name in sides}, {}
    for repeat in range(args.repeats):
      for number, (name, run) in enumerate(sides.items()):
        out = temp / f"out{number}"
        shutil.rmtree(out, ignore_errors=True)
        begin = time.perf_counter()
        manifest = run(out)
        spent[name].append((time.perf_counter() - begin) / args.scans)
        sizes[name] = sum(f.stat().st_size for f in out.rglob("*") if f.is_file()) / args.scans
        report.say(f"repeat {repeat + 1}: {name}: {spent[name][-1]:.2f} s a scan")
        if number and not repeat:
          slices = check(manifest, out, temp / "out0")
    medians = {name: statistics.median(v) for name, v in spent.items()}
    first = medians["reference, as published"]
    report.show(("side", "s a scan", "times faster", "MB a scan"),
                [(name, report.spread(v), f"{first / medians[name]:.2f}",
                  f"{sizes[name] / 1e6:.1f}") for name, v in spent.items()],
                {"seconds": spent, "bytes": sizes, "raw_bytes": raw}, args.output)
    print(f"raw: {raw / 1e6:.1f} MB a scan; {slices} slices equal (images within 1e-5, masks exactly)")


if __name__ == "__main__":
  main()
