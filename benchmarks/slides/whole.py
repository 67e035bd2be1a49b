"""Memory and time of predict on one slide of 100,000 x 200,000 pixels.

  python -m benchmarks.slides.whole [--workdir=RUN] [--tile=256] [--magnification=10]

The sparse slide of benchmarks/slides/sparse.py; without RUN a tiny network with random weights is fitted
first (configs/frozen_camelyon16.py:smoke), so that the memory is that of the slide and not of a network.
Three processes: one that only imports and starts JAX, one that scores the slide's smallest sibling, one
that scores the slide. Peaks count everything, Python and the libraries too; "beyond imports" is the peak
less what the process held when everything was imported.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks import report
from benchmarks.slides import sparse

_SMALL = 4096  # side of the sibling, pixels


def one(job: dict) -> dict:
  """What a process of its own measures; `job` names the slide ("" = imports alone) and the options."""
  import jax

  from medae_jax import predict
  jax.devices()
  imported, begin, used = _resident(), time.perf_counter(), time.process_time()
  row = predict.predict(job["workdir"], job["options"])[0] if job["options"] else {"tiles": 0}
  return {"imports": imported, "peak": report.peak_memory(), "tiles": row["tiles"],
          "clock": time.perf_counter() - begin, "processor": time.process_time() - used}


def _resident() -> int:
  """Bytes of this process in memory now (Linux)."""
  pages = int(pathlib.Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
  return pages * 4096


def _fitted(root: pathlib.Path) -> pathlib.Path:
  """A run with a tiny random network."""
  workdir = root / "run"
  done = subprocess.run(
      [sys.executable, "launch.py", f"--workdir={workdir}", "--config=configs/frozen_camelyon16.py:smoke"],
      cwd=report.ROOT, capture_output=True, text=True, check=False)
  if done.returncode:
    raise RuntimeError(done.stderr.strip()[-1500:])
  return workdir


def main() -> None:
  if sys.argv[1:2] and sys.argv[1].startswith("{"):
    print(json.dumps(one(json.loads(sys.argv[1]))))
    return
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--workdir", default="", help="a run on image patches")
  parser.add_argument("--tile", type=int, default=256, help="side of a tile, pixels at the magnification")
  parser.add_argument("--magnification", type=float, default=10)
  parser.add_argument("--batch_size", type=int, default=16)
  parser.add_argument("--output", default="", help="JSON file")
  args = parser.parse_args()
  with tempfile.TemporaryDirectory(prefix="medae_bench_") as temp:
    root = pathlib.Path(temp)
    workdir = args.workdir or str(_fitted(root))
    slides = {"imports alone": "", "4,096 x 4,096": str(root / "small.tif"),
              "100,000 x 200,000": str(root / "large.tif")}
    sparse.write_slide(root / "small.tif", _SMALL, _SMALL)
    sparse.write_slide(root / "large.tif")
    results = {}
    for name, slide in slides.items():
      options = {"predict.input": slide, "predict.output": str(root / "out" / name[:3]),
                 "predict.slide.tile": args.tile, "predict.slide.magnification": args.magnification,
                 "predict.batch_size": args.batch_size} if slide else {}
      results[name] = report.child("benchmarks.slides.whole", {"workdir": workdir, "options": options})
      report.say(f"{name}: {results[name]}")
    written = sum(f.stat().st_size for f in (root / "out" / "100").iterdir() if f.is_file())
  mb = lambda n: f"{n / 2**20:.0f}"
  report.show(("slide", "tiles", "peak, MB", "beyond imports, MB", "s of clock", "s of processor"),
              [(n, r["tiles"], mb(r["peak"]), mb(r["peak"] - r["imports"]), f"{r['clock']:.1f}",
                f"{r['processor']:.1f}") for n, r in results.items()], results, args.output)
  print(f"files written for the large slide: {written / 1e6:.1f} MB")


if __name__ == "__main__":
  main()
