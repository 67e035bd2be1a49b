"""Exact nearest neighbours in a memory bank: scores/nearest.py beside scikit-learn and faiss, in one run.

  python -m benchmarks.nearest                             (100,000 rows of 512: two cores, two minutes)
  python -m benchmarks.nearest --rows=1000000 --queries=4096         (a GPU, or a patient CPU; 3.2 GB)

The bank is a mixture: a thousand centres, rows around them, as patches of normal images lie; queries are
further rows of it. All see the same float32 arrays and return the k nearest; preparing the bank (ours: its
bfloat16 copy; faiss: adding it) is not counted. Repeats take turns. Rows:
  bfloat16, float32  ours, by the type of the products that propose
  difference         ours without proposals: float32 differences to the whole bank; 8 queries, times queries/8
  scikit-learn       NearestNeighbors(algorithm="brute") on the CPU
  faiss              IndexFlatL2 of faiss-cpu, where it is installed
Every distance of ours is compared with float64 brute force on `--checked` queries; "proven" is the share of
queries whose neighbours bfloat16 and the bound settled, without a look at the whole bank.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import report
from medae_jax.scores import nearest

COLUMNS = ("search", "processor", "seconds", "queries_per_s", "against_ours", "proven", "largest_error")


def mixture(rows: int, dims: int, queries: int) -> tuple[np.ndarray, np.ndarray]:
  """(bank [rows, dims], queries [queries, dims]), float32."""
  rng = np.random.default_rng(0)
  centres = rng.standard_normal((1000, dims), np.float32)
  draw = lambda n: centres[rng.integers(0, 1000, n)] + 0.5 * rng.standard_normal((n, dims), np.float32)
  return draw(rows), draw(queries)


def true_distances(queries, bank, k) -> np.ndarray:
  """In float64 and blocks: [Q,k]."""
  found = []
  for q in queries.astype(np.float64):
    squares = [((bank[i:i + 65536] - q)**2).sum(1) for i in range(0, len(bank), 65536)]
    found.append(np.sqrt(np.partition(np.concatenate(squares), k - 1)[:k]))
  return np.sort(found, 1)


def searches(bank, queries, k, block):
  """{name: () -> (distances [Q,k], proven [Q] or None)}, each compiled and prepared."""
  device_bank = jnp.asarray(bank)
  found = {}
  for dtype in (jnp.bfloat16, jnp.float32):
    index = jax.block_until_ready(jax.jit(functools.partial(nearest.index, dtype=dtype))(device_bank))
    found[jnp.dtype(dtype).name] = functools.partial(_ours, index, queries, k, block)
  whole = jax.jit(lambda q, b: jax.lax.map(lambda x: jax.lax.top_k(-((b - x)**2).sum(-1), k)[0], q))
  found["difference"] = lambda: (np.sqrt(-np.asarray(whole(queries[:8], device_bank))), None)
  from sklearn.neighbors import NearestNeighbors
  brute = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(bank)
  found["scikit-learn"] = lambda: (brute.kneighbors(queries)[0], None)
  try:
    import faiss
  except ImportError:
    report.say("faiss-cpu is not installed: no row of it")
    return found
  flat = faiss.IndexFlatL2(bank.shape[1])
  flat.add(bank)
  found["faiss"] = lambda: (np.sqrt(np.maximum(flat.search(queries, k)[0], 0)), None)
  return found


@functools.partial(jax.jit, static_argnames="k")
def _search(queries, index, k):
  distances, _, proven = nearest.search(queries, index, k)
  return distances, proven


def _ours(index, queries, k, block):
  parts = [_search(queries[i:i + block], index, k) for i in range(0, len(queries), block)]
  return tuple(np.concatenate([np.asarray(x) for x in each]) for each in zip(*parts))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  for name, value in (("rows", 100_000), ("dims", 512), ("queries", 1024), ("k", 1), ("block", 512),
                      ("repeats", 3), ("checked", 32)):
    parser.add_argument(f"--{name}", type=int, default=value)
  parser.add_argument("--output", default="", help="JSON file")
  args = parser.parse_args()
  bank, queries = mixture(args.rows, args.dims, args.queries)
  runs, machine = searches(bank, queries, args.k, args.block), report.machine()
  seconds, last = {name: [] for name in runs}, {}
  for turn in range(args.repeats + 1):  # the first one compiles
    for name, run in runs.items():
      report.say(f"{turn}/{args.repeats} {name}")
      begin = time.perf_counter()
      last[name] = run()
      share = args.queries / 8 if name == "difference" else 1
      if turn:
        seconds[name].append((time.perf_counter() - begin) * share)
  want = true_distances(queries[:args.checked], bank, args.k)
  median, rows = {name: statistics.median(spent) for name, spent in seconds.items()}, []
  device = jax.devices()[0].device_kind
  for name, spent in seconds.items():
    distances, proven = last[name]
    n = min(args.checked, len(distances))
    host = device == "cpu" or name in ("scikit-learn", "faiss")
    rows.append((name, machine["cpu"] if host else device, report.spread(spent),
                 f"{args.queries / median[name]:.4g}", f"{median[name] / median['bfloat16']:.2f}x",
                 "" if proven is None else f"{np.mean(proven):.4f}",
                 f"{np.max(np.abs(distances[:n] - want[:n])):.1e}"))
  report.show(COLUMNS, rows, {"settings": vars(args), "rows": rows}, args.output)


if __name__ == "__main__":
  main()
