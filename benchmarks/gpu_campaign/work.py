"""Measurements of the campaign that no other benchmark has; one a process.

  python -m benchmarks.gpu_campaign.work facts --device=gpu --output=facts.json
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks import compare, report, settings
from benchmarks.gpu_campaign import agreement, turns

FLAGS = {  # name: (XLA_FLAGS to add, our variant)
    "as it comes": ("", "bfloat16"),
    "cuDNN fusion of convolutions": ("--xla_gpu_experimental_enable_conv_fusion=true", "bfloat16"),
    "no autotuning": ("--xla_gpu_autotune_level=0", "bfloat16"),
    "no command buffers": ("--xla_gpu_enable_command_buffer=", "bfloat16"),
    "command buffers of all kinds": ("--xla_gpu_enable_command_buffer=FUSION,CUBLAS,CUBLASLT,CUDNN,"
                                     "CUSTOM_CALL,CONDITIONAL,WHILE,COLLECTIVES", "bfloat16"),
    "latency-hiding scheduler": ("--xla_gpu_enable_latency_hiding_scheduler=true", "bfloat16"),
    "8 steps a call": ("", "bfloat16 x8"), "32 steps a call": ("", "bfloat16 x32")}


def facts(args) -> dict:
  """The device, its driver, and rates measured now: products, copies, transfers, launches."""
  import jax
  import jax.numpy as jnp

  from medae_jax.core.device import memory, timing
  options = {"repeats": 5, "seconds": 0.02 if args.size == "tiny" else 0.3}
  if args.size == "tiny":
    timing.MATMUL_SIZES["cpu"] = (256,)
  found = {"device": timing.device(), "versions": timing.versions(), "memory_bytes": memory.free(),
           "products": {}}
  try:
    found["nvidia_smi"] = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit",
         "--format=csv,noheader"], capture_output=True, text=True, timeout=20, check=True).stdout.strip()
  except (OSError, subprocess.SubprocessError) as e:
    found["nvidia_smi"] = f"not there: {type(e).__name__}"
  for dtype, precision in (("bfloat16", None), ("float32", None), ("float32", "highest")):
    found["products"][f"{dtype} {precision or 'default'}"] = timing.matmul_peak(dtype, precision, options)
  count = 2**22 if args.size == "tiny" else 2**29  # 2 GiB of float32: far above any cache
  x = jax.random.normal(jax.random.key(0), (count,))
  add = jax.jit(lambda x: x + 1, donate_argnums=0)
  holder = [add(x)]

  def copies(n):
    for _ in range(n):
      holder[0] = add(holder[0])
    return holder[0]
  seconds = timing.measure(copies, options)
  found["copy_bytes_per_s"] = 8 * count / seconds["median"]
  host = np.ones(count // 8, np.float32)
  seconds = timing.measure(lambda n: [jax.device_put(host) for _ in range(n)], options)
  found["host_to_device_bytes_per_s"] = host.nbytes / seconds["median"]
  small = [jnp.zeros(8)]

  def launches(n):
    for _ in range(n):
      small[0] = add(small[0])
    return small[0]
  found["dispatch_us"] = 1e6 * timing.measure(launches, options)["median"]
  return found


def flags(args) -> dict:
  """The DAE step in bfloat16 under other flags of XLA, repeats in turn."""
  setting, contenders = turns.setting_of("dae", args), []
  shown = {k: v for k, v in FLAGS.items()
           if args.device == "gpu" or "--xla_gpu" not in v[0]}  # they do nothing elsewhere
  for name, (flag, variant) in shown.items():
    given = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    calls = int((variant.split(" x") + ["1"])[1])
    c = compare.Contender("ours", "bfloat16", {**setting, "steps_per_call": calls}, args.device,
                          sys.executable, 100, {"XLA_FLAGS": given})
    contenders.append((name, c))
  found = turns.in_turn(contenders, args)
  return {"setting": setting, "rows": {name: {**row, "flag": FLAGS[name][0]} for name, row in found.items()}}


def feed(args) -> dict:
  """Images/s of DAE training: one batch that lies on the device, data that live there, NumPy batches."""
  import jax

  from benchmarks import package_steps
  from medae_jax.core import method as method_lib, parallel
  from medae_jax.core.device import timing
  from medae_jax.training import feed as feed_lib
  setting = turns.setting_of("dae", args)
  size, options = setting["batch"], {"repeats": 3 if args.size == "tiny" else 5, "seconds": 0.3}
  method, state, batch = package_steps.prepare(setting, *settings.make(setting))
  stage = method_lib.stages_of(method)[-1]
  step = lambda s, b, r, axis: method.train_step(s, b, r, stage=stage, axis_name=axis)
  drawn = {k: v for k, v in batch.items() if k in ("image", "index")}  # the noise is the device's to draw
  rng = np.random.default_rng(0)
  pool = rng.random((8 * size, *drawn["image"].shape[1:]), np.float32)

  def host(n_calls):
    def stacks():
      while True:
        rows = [rng.integers(0, len(pool), size) for _ in range(n_calls)]
        yield {"image": np.stack([pool[r] for r in rows]),
               "index": np.tile(drawn["index"], (n_calls, 1))}
    return stacks()

  class Data:
    """What feed.resident_data reads of a data set."""
    @staticmethod
    def resident_arrays():
      return {"image": pool}
  config = package_steps.fields(setting, data={"resident": True})
  resident, sample = feed_lib.resident_data(Data, config, size, stage)
  found = {}
  for calls in (1, 8):
    plain = parallel.train_step_fn(step, jax.random.key(0))
    lives = parallel.train_step_fn(step, jax.random.key(0), resident=resident, sample=sample)
    there = jax.device_put(jax.tree.map(lambda x, k=calls: np.stack([x] * k), drawn))
    index = {"index": np.tile(drawn["index"], (calls, 1))}
    fed = host(calls)
    sources = {"a batch on the device": (plain, lambda there=there: there),
               "data resident": (lives, lambda index=index: index),
               "NumPy batches": (plain, lambda fed=fed: next(fed))}
    runs = []
    for train, source in sources.values():
      holder = [jax.tree.map(lambda x: x + 0, state)]

      def run(n, train=train, source=source, holder=holder):
        for _ in range(n):
          holder[0], metrics = train(holder[0], source())
        return metrics
      runs.append(run)
    for name, seconds in zip(sources, timing.measure_in_turn(runs, options)):
      found[f"{name}, {calls} a call"] = timing.rate(seconds, size * calls)
  return {"setting": setting, "rates": found}


_START = """
import time, sys, json
begin = time.time()
from benchmarks import settings, package_steps
imported = time.time()
setting = json.loads(sys.argv[1])
step = package_steps.build(setting, *settings.make(setting), sys.argv[2])
built = time.time()
float(step())
first = time.time()
float(step())
print(json.dumps({"import": imported - begin, "network": built - begin, "first step": first - begin,
                  "second step": time.time() - first}))
"""


def start(args) -> dict:
  """Seconds from a new process to the end of step 1; with and without what XLA keeps between runs."""
  setting, found = turns.setting_of("dae", args), {}
  with tempfile.TemporaryDirectory() as temp:
    for name, cache, kept in (("cold", "a", "all"), ("warm", "a", "all"), ("warm again", "a", "all"),
                              ("warm, autotuning alone kept", "b", "all")):
      if cache == "b":  # the programs are gone, the choice of kernels is there
        shutil.copytree(f"{temp}/a", f"{temp}/b")
        for file in filter(pathlib.Path.is_file, pathlib.Path(temp, "b").iterdir()):
          file.unlink()
      env = {**os.environ, **report.python_path(), "JAX_COMPILATION_CACHE_DIR": f"{temp}/{cache}",
             "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": kept,
             "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
      begin = time.perf_counter()
      done = subprocess.run([sys.executable, "-c", _START, json.dumps(setting), args.device], env=env,
                            cwd=report.ROOT, capture_output=True, text=True, check=False)
      if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
      found[name] = {**json.loads(done.stdout.splitlines()[-1]), "whole": time.perf_counter() - begin}
      report.say(f"{name}: {found[name]}")
  return {"setting": setting, "starts": found}


def kernels(args) -> dict:
  """The profile; see benchmarks/gpu_campaign/kernels.py."""
  from benchmarks.gpu_campaign import kernels as profile
  return profile.profile(turns.setting_of(args.task, args), args.device)


def norm(args) -> dict:
  """The forms of Swish + GroupNorm; see benchmarks/gpu_campaign/norm.py."""
  from benchmarks.gpu_campaign import norm as forms
  return forms.norm(args)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  what = {f.__name__: f for f in (facts, agreement.precision, agreement.parity, flags, feed, start, kernels,
                              norm)}
  parser.add_argument("what", choices=what)
  parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
  parser.add_argument("--size", choices=("full", "tiny"), default="full")
  parser.add_argument("--families", default="dae", help=", ".join(agreement.families()))
  parser.add_argument("--task", default="dae", choices=settings.GPU)
  parser.add_argument("--output", required=True)
  args = parser.parse_args()
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  if args.device == "cpu":
    os.environ["JAX_PLATFORMS"] = "cpu"
  found = what[args.what](args)
  pathlib.Path(args.output).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
  main()
