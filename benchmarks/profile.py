"""Where a DAE training step's time goes on a CPU, by part of the network, for several forms of it.

  python -m benchmarks.profile

Forms: "first": convolutions as jaxlib comes, padding and normalisation by jax.numpy and automatic
derivatives; "now": what training uses (core/device/xla_flags.py, layers/reflect_pad.py, swish_norm.py);
"huge pages": the same with GLIBC_TUNABLES=glibc.malloc.hugetlb=1, since XLA takes
its scratch memory anew in every step and the kernel clears it page by page. Each in a process of
its own: the wall and CPU seconds of a step, then one step under JAX's profiler, whose events are
mapped to parts through the names in the compiled program. Eigen's convolutions run on threads that
the profiler does not see: their row is what is left of the CPU seconds.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import re
import statistics
import sys
import tempfile
import time

from benchmarks import report, settings

# Name: (plain padding and normalisation, XLA's convolutions)
FORMS = {"first": (True, "ynn"), "now": (False, "eigen"), "now, huge pages": (False, "eigen")}
_YNN = "--xla_cpu_experimental_ynn_fusion_type=+LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
_LEFT = "convolutions (what is left)"


def part_of(name: str) -> str:
  """The part of the step that an operation belongs to, by its op_name."""
  back = "transpose(" in name
  if "/norm_" in name or "/jit(silu)" in name:
    return "Swish and GroupNorm, backward" if back else "Swish and GroupNorm, forward"
  if "/conv_" in name:
    if any(word in name for word in ("conv_general", "/while/", "pad", "concatenate", "dynamic")):
      # Not told apart: gradients to input and kernel overlap, XLA runs some convolutions aside.
      return f"convolution, {'backward' if back else 'forward'}"
    return "kernel standardisation and the rest of the convolutions"
  if re.search(r"/up_\d", name):
    return "transposed convolution"
  return "noise, pooling, skips, loss, optimiser"


def events(folder: pathlib.Path, dump: pathlib.Path) -> dict[str, float]:
  """{part: seconds} of the profile in `folder`, with the compiled programs in `dump`."""
  import jax
  names = {}
  line = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = .*?op_name=\"([^\"]*)\"", re.M)
  size = lambda file: -file.stat().st_size  # small programs may bear the step's name, too
  for file in sorted(dump.glob("*after_optimizations.txt"), key=size):
    text = file.read_text(encoding="utf-8")
    module = re.search(r"HloModule (\S+?),", text).group(1)
    for op, name in line.findall(text):
      names.setdefault((module, op), name)
  found = collections.Counter()
  profile = jax.profiler.ProfileData.from_file(str(next(folder.rglob("*.xplane.pb"))))
  for plane in profile.planes:
    for row in plane.lines:
      for event in row.events:
        stats = dict(event.stats)
        if "hlo_op" in stats:
          name = names.get((stats["hlo_module"], stats["hlo_op"]), "")
          found[part_of(name)] += event.duration_ns / 1e9
  return dict(found)


def work(form: str, batch: int, repeats: int, dump: str) -> None:
  """One form in this process: JSON on stdout."""
  import jax

  from benchmarks.package_steps import build
  from medae_jax.models import dae_unet
  from medae_jax.models.layers import conv, swish_norm
  if FORMS[form][0]:
    mirror = lambda x: jax.numpy.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    norm = lambda *args, pad: mirror(swish_norm.plain(*args)) if pad else swish_norm.plain(*args)
    conv.swish_group_norm = lambda x, b, s, t, groups, pad, eps: norm(
        x, b, s, t, groups, eps, pad=pad)
    dae_unet.reflect_pad = mirror
  setting = {**settings.CPU["dae"], "batch": batch, "variant": "float32"}
  step = build(setting, *settings.make(setting), "cpu")
  losses, wall, cpu = [float(step()), float(step())], [], []
  for _ in range(repeats):
    begin, used = time.perf_counter(), time.process_time()
    losses.append(float(step()))
    wall.append(time.perf_counter() - begin)
    cpu.append(time.process_time() - used)
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      float(step())
    parts = events(pathlib.Path(folder), pathlib.Path(dump))
  if FORMS[form][1] == "eigen":
    parts = {k: v for k, v in parts.items() if not k.startswith("convolution, ")}
    parts[_LEFT] = statistics.median(cpu) - sum(parts.values())
  print(json.dumps({"wall": wall, "cpu": cpu, "losses": losses, "parts": parts,
                    "peak_bytes": report.peak_memory()}))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--forms", default=";".join(FORMS), help="separated by semicolons")
  parser.add_argument("--batch", type=int, default=4)
  parser.add_argument("--repeats", type=int, default=5)
  parser.add_argument("--output", default="", help="JSON file")
  args = parser.parse_args()
  found = {}
  for form in args.forms.split(";"):
    with tempfile.TemporaryDirectory(prefix="medae_bench_") as dump:
      env = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false", "GLIBC_TUNABLES": "",
             "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={dump} "
                          f"--xla_dump_hlo_as_text {_YNN if FORMS[form][1] == 'ynn' else ''}"}
      if "huge pages" in form:
        env.update(report.HUGE_PAGES)
      found[form] = report.child("benchmarks.profile", {
          "form": form, "batch": args.batch, "repeats": args.repeats, "dump": dump}, env)
    report.say(f"{form}: {statistics.median(found[form]['wall']):.3f} s a step")
  rows = [("step, wall s", *(report.spread(f["wall"]) for f in found.values())),
          ("step, CPU s", *(report.spread(f["cpu"]) for f in found.values())),
          ("peak memory", *(f"{f['peak_bytes'] / 2**20:,.0f} MiB" for f in found.values()))]
  parts = sorted({p for f in found.values() for p in f["parts"]})
  rows += [(part, *(f"{1e3 * f['parts'].get(part, 0):.0f} ms" for f in found.values()))
           for part in parts]
  report.show((f"batch {args.batch}", *found), rows, {"forms": found}, args.output)


if __name__ == "__main__":
  if sys.argv[1:2] and sys.argv[1].startswith("{"):
    work(**json.loads(sys.argv[1]))
  else:
    main()
