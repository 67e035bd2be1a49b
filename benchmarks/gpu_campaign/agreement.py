"""Does the device compute what the CPU and the published code compute? Parity tests, and low precision."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
from xml.etree import ElementTree

import numpy as np

from benchmarks import report, settings

PARITY = report.ROOT / "tests" / "parity"


def families() -> dict[str, list[str]]:
  """{family: its test files}: a folder of tests/parity, or the first word of a file ("dae", "dpa")."""
  found: dict[str, list[str]] = {}
  for path in sorted(PARITY.rglob("test_*.py")):
    name = path.parent.name if path.parent != PARITY else path.stem.split("_")[1]
    found.setdefault(name, []).append(str(path))
  return found


def precision(args) -> dict:
  """Losses and update of ten steps in the device's default float32 and in bfloat16, against "highest"."""
  import jax

  from benchmarks import package_steps
  from medae_jax.core import method as method_lib, parallel
  found = {}
  for task in ("dae", "annotation", "perceptual", "noisy"):
    runs = {}
    for name, variant, matmul in (("highest", "float32", "highest"), ("float32", "float32", None),
                                  ("bfloat16", "bfloat16", None)):
      # One at its own depth; of the others small ones: a device compiles and tunes twelve programs here.
      full = args.size == "full" and task == "dae"
      setting = {**(settings.CPU if full else settings.TINY)[task], "variant": variant}
      with jax.default_matmul_precision(matmul):
        method, state, batch = package_steps.prepare(setting, *settings.make(setting))
        stage = method_lib.stages_of(method)[-1]
        train = parallel.train_step_fn(
            lambda s, b, r, axis, m=method, g=stage: m.train_step(s, b, r, stage=g, axis_name=axis),
            jax.random.key(0))
        before = jax.tree.map(np.asarray, state.params)
        stacked, losses = jax.tree.map(lambda x: np.asarray(x)[None], batch), []
        for _ in range(10):
          state, metrics = train(state, stacked)
          losses.append(float(metrics["loss"][0]))
      update = np.concatenate([(np.asarray(b) - a).ravel() for a, b in zip(
          jax.tree.leaves(before), jax.tree.leaves(state.params))]).astype(np.float64)
      runs[name] = (np.array(losses), update)
    exact, found[task] = runs.pop("highest"), {}
    for name, (losses, update) in runs.items():
      angle = update @ exact[1] / (np.linalg.norm(update) * np.linalg.norm(exact[1]))
      worst = float(np.max(np.abs(losses / exact[0] - 1)))
      # Adam's first updates are signs, and of annotation's small gradients (norms of 1e-5 in the middle of
      # the network) bfloat16 turns one in twelve: 0.86 to 0.91 on CPUs, the gradients themselves 0.99.
      limit = (2e-3, 0.99) if name == "float32" else (3e-2, 0.8)
      found[task][name] = {"loss": worst, "cosine": float(angle),
                           "within": bool(worst <= limit[0] and angle >= limit[1]), "limit": limit}
  return found


def parity(args) -> dict:
  """tests/parity of some families on this device, products in full float32."""
  files = [file for family in args.families.split(",") for file in families()[family]]
  spread = []
  if importlib.util.find_spec("xdist") and (os.cpu_count() or 1) >= 8:
    spread = ["-n", "8", "--dist", "loadfile"]  # mostly compiling; they share the device
  with tempfile.TemporaryDirectory() as temp:
    xml = pathlib.Path(temp) / "results.xml"
    env = {**os.environ, **report.python_path(), "JAX_DEFAULT_MATMUL_PRECISION": "highest",
           "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
           "JAX_PLATFORMS": "cpu" if args.device == "cpu" else "cuda,cpu"}
    only = ["-k", "not training and not trajectory"] if args.size == "tiny" else []
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *spread, *only,
                           f"--junitxml={xml}", *files], cwd=report.ROOT, env=env, check=False, text=True,
                          capture_output=True)
    print(done.stdout[-3000:], done.stderr[-3000:], file=sys.stderr)
    if not xml.is_file():
      raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
    cases = ElementTree.parse(xml).getroot().iter("testcase")
    found = {"passed": 0, "failed": [], "skipped": []}
    for case in cases:
      bad = next((e for e in case if e.tag in ("failure", "error")), None)
      skipped = case.find("skipped")
      name = f"{case.get('classname', '').removeprefix('tests.parity.')}::{case.get('name')}"
      if bad is not None:
        text = bad.get("message") or bad.text or ""
        found["failed"].append(f"{name}: {' '.join(text.split())[:200]}")
      elif skipped is not None:
        found["skipped"].append(f"{name}: {(skipped.get('message') or '')[:100]}")
      else:
        found["passed"] += 1
  return found
