"""A whole evaluation, network included, against the reference procedure; the same test slices.

  python -m benchmarks.evaluation --torch-python=PYTHON_WITH_TORCH

Reference (Kascenas 2022, public code): the network in PyTorch runs over the split for AP and thresholds and
again for the component filter; median filter in SciPy, scikit-learn's AP, a pass a threshold. Ours: the
test split in --mode=evaluate with everything it writes (both intensity baselines, bootstrap
intervals, tables, pictures, report), timed at its second run, when its programs are compiled; the
first run is shown too. Synthetic brains, weights as initialised: neither changes the work.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import tempfile
import time

import numpy as np

from benchmarks import report, settings


def config_of(patients: int, slices: int, depth: int, wf: int, size: int):
  """configs/dae_brats.py with synthetic test patients."""
  from configs import dae_brats
  config = dae_brats.get_config()
  with config.unlocked():
    config.model.update(depth=depth, wf=wf)
    config.data.update(n_patients=(1, 1, patients), n_slices=slices, image_size=(size, size))
  return config.lock()


def write_inputs(folder: str, **sizes) -> None:
  """weights.npz, and images.npy, masks.npy, scan.npy of the test split."""
  from data_pipelines import dataset
  config, folder = config_of(**sizes), pathlib.Path(folder)
  weights, _ = settings.make({**settings.DAE, "depth": sizes["depth"], "wf": sizes["wf"],
                              "batch": 1})
  np.savez(folder / "weights.npz", **weights)
  source = dataset.open_dataset(config.data, config.seed).split("test")
  data = source.read(np.arange(len(source)))
  np.save(folder / "images.npy", data["image"])
  np.save(folder / "masks.npy", data["mask"][..., 0] > 0)
  patients = [source.meta(i)["patient"] for i in range(len(source))]
  np.save(folder / "scan.npy", np.unique(patients, return_inverse=True)[1])
  print(json.dumps({"slices": len(source)}))


def reference(folder: str, forward) -> None:
  """What the reference does on the host, given the seconds of its two forward passes."""
  from benchmarks.peers import anomaly
  folder = pathlib.Path(folder)
  images, recon, masks, scan = (np.load(folder / f"{name}.npy", allow_pickle=False)
                                for name in ("images", "recon", "masks", "scan"))
  spent, times = {"forward": forward[0]}, [time.perf_counter()]

  def lap(name):
    times.append(time.perf_counter())
    spent[name] = spent.get(name, 0) + times[-1] - times[-2]
  maps = np.stack([anomaly.score_map(a, b) for a, b in zip(images, recon)])
  lap("median filter")
  scores, labels = maps.astype(np.float16).ravel(), masks.ravel()
  ap = anomaly.average_precision(scores, labels)
  lap("AP")
  best, threshold = anomaly.best_dice(scores, labels)
  lap("1000 Dices")
  spent["forward again"] = forward[1]
  maps = np.stack([anomaly.score_map(a, b) for a, b in zip(images, recon)])
  lap("median filter again")
  scans = [(maps[scan == i], masks[scan == i]) for i in range(scan.max() + 1)]
  components = anomaly.component_dice(scans, threshold)
  lap("components")
  print(json.dumps({"seconds": spent, "figures": [ap, best, threshold, components],
                    "peak_bytes": report.peak_memory()}))


def ours(folder: str, **sizes) -> None:
  """`convert` and two evaluations, as launch.py does them."""
  from medae_jax import convert, evaluate
  workdir = pathlib.Path(folder) / "workdir"
  convert.convert(pathlib.Path(folder) / "weights.npz", config_of(**sizes), workdir)
  spent = []
  for _ in range(2):
    begin = time.perf_counter()
    found = evaluate.evaluate(workdir)["test"]
    spent.append((time.perf_counter() - begin, found["seconds"]))
  figures = [found[k] for k in ("pixel_ap", "dice_best", "dice_best_threshold", "dice_components")]
  print(json.dumps({"seconds": {"evaluate, second run": spent[1][0]}, "first_run": spent[0][0],
                    "figures": figures, "peak_bytes": report.peak_memory()}))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
  parser.add_argument("--patients", type=int, default=3)
  parser.add_argument("--slices", type=int, default=80, help="of a patient")
  parser.add_argument("--depth", type=int, default=4)
  parser.add_argument("--wf", type=int, default=6)
  parser.add_argument("--size", type=int, default=128)
  parser.add_argument("--torch-python", default=sys.executable, dest="torch_python")
  parser.add_argument("--output", default="", help="JSON file")
  args = parser.parse_args()
  sizes = {k: getattr(args, k) for k in ("patients", "slices", "depth", "wf", "size")}
  env = {**report.HUGE_PAGES, **({"JAX_PLATFORMS": "cpu"} if args.device == "cpu" else {})}
  with tempfile.TemporaryDirectory(prefix="medae_bench_") as folder:
    run = lambda side, **more: report.child(
        "benchmarks.evaluation", {"side": side, "folder": folder, **more},
        {**env, "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"})
    count = run("write_inputs", **sizes)["slices"]
    torch = report.child("benchmarks.peers.scoring", {
        "folder": folder, "depth": args.depth, "wf": args.wf, "passes": 2,
        "device": args.device}, env, args.torch_python)
    found = {"reference": run("reference", forward=torch["seconds"]), "medae_jax": run(
        "ours", **sizes)}
  seconds = {name: sum(f["seconds"].values()) for name, f in found.items()}
  rows = [(name, ", ".join(f"{k} {v:.3g}" for k, v in f["seconds"].items()),
           f"{seconds[name]:.4g}", f"{count / seconds[name]:.3g}",
           ", ".join(f"{v:.5f}" for v in f["figures"])) for name, f in found.items()]
  report.show(("side", "seconds", "in all", "slices/s",
               "AP, best Dice, threshold, Dice after the filter"), rows,
              {"found": found, "slices": count, "torch": torch["torch"]}, args.output)
  print(f"{count} slices; reference / ours: {seconds['reference'] / seconds['medae_jax']:.2f} times; "
        f"our first run, compiling: {found['medae_jax']['first_run']:.1f} s")
  difference = np.abs(np.subtract(*(f["figures"] for f in found.values())))
  if difference.max() > 2e-3:
    raise ValueError(f"the two sides do not agree: {[f['figures'] for f in found.values()]}")


if __name__ == "__main__":
  if sys.argv[1:2] and sys.argv[1].startswith("{"):
    argument = json.loads(sys.argv[1])
    {"write_inputs": write_inputs, "reference": reference, "ours": ours}[argument.pop("side")](
        **argument)
  else:
    main()
