"""What XLA makes of a training step for an H100 that need not be there: kernels and memory traffic.

  pip install "jax[cuda13]"    # XLA's compiler for GPUs; it runs on any CPU
  python -m benchmarks.gpu_program
  python -m benchmarks.gpu_program --tasks=dae --variants=bfloat16 --batch=64 --top=20
  python -m benchmarks.gpu_program --tasks=dae --model='{"norm_kernel": "pallas"}'

A calculation, not a measurement. Traffic is what every kernel of the compiled program reads and
writes, each operand once, whole or, where the kernel takes nothing but slices of it, those (of a kernel
written in Pallas: operands and results, as layers/swish_norm_pallas.py reads and writes each once); FLOP are
those of the convolutions. "At least" is the time of a GPU that moves memory and multiplies matrices at the
rates of the data sheet and starts kernels in no time. Convolutions are not tuned without a device.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import pkgutil
import re
import sys

from benchmarks import report, settings

DEVICELESS = {"JAX_PLATFORMS": "cpu", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
              "JAX_ENABLE_COMPILATION_CACHE": "false"}
# NVIDIA H100 SXM, data sheet: bytes/s of HBM3, dense FLOP/s of the tensor cores.
BANDWIDTH = 3.35e12
TASKS = {**settings.GPU, **settings.CONFIGS["full"]}
PEAK = {"float32": 494e12, "bfloat16": 989e12}  # float32: TF32
_H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 registers_per_core_limit: 65536 registers_per_block_limit: 65536
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3350000000000 l2_cache_size: 52428800 device_memory_size: 84943110144
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4,
          "u32": 4, "f64": 8, "s64": 8, "u64": 8}
_ARRAY = re.compile(rf"\b({'|'.join(_BYTES)})\[([\d,]*)\]")
_LINE = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)")
_BODY = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{\n((?:[^}\n].*\n|\n)*)\}", re.M)
_FREE = ("parameter", "get-tuple-element", "bitcast", "constant", "tuple", "after-all")
# The convolution's place of the kernel among (first operand, second operand, result).
_KERNEL = {"__cudnn$convForward": 1, "__cudnn$convBiasActivationForward": 1,
           "__cudnn$convBackwardInput": 1, "__cudnn$convBackwardFilter": 2}


@dataclasses.dataclass(frozen=True)
class Kernel:
  """One kernel of a compiled program: bytes read and written, FLOP if it is a convolution."""
  name: str
  result: str
  bytes: int
  flops: int
  source: str


def kernels(text: str) -> list[Kernel]:
  """The kernels of an optimised HLO module in the order they start: of its entry, of what that calls (command
  buffers), and of loops, each as often as it runs (once where XLA does not know)."""
  bodies = dict(_BODY.findall(text))
  return _kernels(bodies[re.search(r"^ENTRY %?([\w.\-]+)", text, re.M).group(1)], bodies)


def _kernels(body: str, bodies: dict[str, str]) -> list[Kernel]:
  shapes, found = {}, []
  for line in body.splitlines():
    match = _LINE.match(line)
    if not match:
      continue
    name, shape, op, rest = match.groups()
    shapes[name] = shape
    if op in _FREE:
      continue
    called = re.search(r"to_apply=%?([\w.\-]+)", line)
    if op == "call" and called and called.group(1) in bodies:
      found += _kernels(bodies[called.group(1)], bodies)
      continue
    if op == "while":  # what its body starts, as often as XLA knows that it runs
      body_of = re.search(r"body=%?([\w.\-]+)", line)
      times = re.search(r'known_trip_count\W+n\W+(\d+)', line)
      if body_of and body_of.group(1) in bodies:
        found += (int(times.group(1)) if times else 1) * _kernels(bodies[body_of.group(1)], bodies)
        continue
    operands = [shapes.get(o, "") for o in re.findall(r"%([\w.\-]+)", rest.split("), ")[0])]
    target = re.search(r'custom_call_target="([^"]+)"', rest)
    source = re.search(r'op_name="([^"]*)"', line)
    fused = re.search(r"calls=%?([\w.\-]+)", line)
    read = _read(bodies.get(fused.group(1), "") if fused else "", operands)
    found.append(Kernel(name, shape, size_of(shape) + read,
                        _flops(target.group(1) if target else "", operands, shape),
                        source.group(1) if source else ""))
  return found


def _read(body, operands) -> int:
  """Bytes that a kernel reads of its operands.

  Of what its fusion (`body`, "" if it is none) only slices: the slices, also where arithmetic on elements
  comes first. Of a slice of what it joins, each of the joined its share.
  """
  sizes = [size_of(o) for o in operands]
  lines = [m.groups() for m in map(_LINE.match, body.splitlines()) if m]
  count = {name: _elements(shape) for name, shape, _, _ in lines}
  needed: dict[str, float] = {}  # elements, by the users that were seen
  for name, _, op, rest in reversed(lines):
    used = min(count[name], needed.get(name, math.inf))
    if op == "parameter":
      at = int(rest.split(")")[0])
      sizes[at] = int(sizes[at] * used / max(count[name], 1))
    for operand in re.findall(r"%([\w.\-]+)", rest.split("), ")[0]):
      single = op in ("slice", "dynamic-slice") or count.get(operand) == count[name]
      share = used * count.get(operand, 0) / max(count[name], 1) if op == "concatenate" else math.inf
      needed[operand] = needed.get(operand, 0) + (used if single else share)
  return sum(sizes)


def _elements(shape) -> int:
  return sum(math.prod(dims) for _, dims in _arrays(shape))


def _arrays(shape):
  return [(kind, [int(n) for n in dims.split(",") if n]) for kind, dims in _ARRAY.findall(shape)]


def types_of(shape: str) -> tuple[str, ...]:
  """Element types of an HLO shape or tuple of shapes."""
  return tuple(sorted({kind for kind, _ in _arrays(shape)}))


def size_of(shape: str) -> int:
  """Bytes of an HLO shape or tuple of shapes."""
  return sum(_BYTES[kind] * math.prod(dims) for kind, dims in _arrays(shape))


def _flops(target, operands, shape):
  if target not in _KERNEL:
    return 0
  three = [_arrays(s)[0][1] for s in (operands[0], operands[1], shape)]
  kernel = three.pop(_KERNEL[target])
  return 2 * min(math.prod(image[:3]) for image in three) * math.prod(kernel)


def h100s(n: int) -> list:
  """n H100s of one machine that need not be there, to compile for."""
  from jax.experimental import topologies
  return topologies.get_topology_desc("gpu", "cuda", target_config=_H100, topology=f"1x1x{n}").devices


def told_of(device):
  """A context in which kernels written in Pallas are lowered for `device`, not for one that is there."""
  import jax
  try:
    from jax.sharding import AbstractDevice
  except ImportError:  # jax 0.10 takes an H100 where it finds none
    return contextlib.nullcontext()
  abstract = AbstractDevice(device_kind=device.device_kind, num_cores=None, platform="gpu")
  return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=abstract))


def work(task: str, variant: str, batch: int, model: dict | None = None) -> None:
  """Compiles one step in this process: JSON on stdout. `model`: fields of config.model to change."""
  import jax

  from benchmarks import package_steps
  device = h100s(1)[0]
  setting = {**TASKS[task], "variant": variant, "model": {**TASKS[task].get("model", {}), **(model or {})}}
  setting["batch"] = batch or setting["batch"]
  jax.default_backend = lambda: "gpu"  # what the package asks to choose between forms
  with told_of(device):
    lowered = package_steps.lowered(setting, jax.sharding.SingleDeviceSharding(device))
  compiled = lowered.compile(compiler_options={"xla_gpu_autotune_level": 0})
  print(json.dumps({"batch": setting["batch"], "jax": jax.__version__,
                    "kernels": [dataclasses.asdict(k) for k in kernels(compiled.as_text())],
                    "scratch": compiled.memory_analysis().temp_size_in_bytes}))


def has_compiler() -> bool:
  """Whether JAX's plugin for CUDA is installed."""
  try:
    import jax_plugins
  except ImportError:
    return False
  return any(m.name.startswith("xla_cuda") for m in pkgutil.iter_modules(jax_plugins.__path__))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--tasks", default="dae,annotation,perceptual")
  parser.add_argument("--variants", default="bfloat16,float32")
  parser.add_argument("--batch", type=int, default=0, help="0 = the task's own")
  parser.add_argument("--model", default="{}", type=json.loads,
                      help='fields of config.model to change: \'{"norm_kernel": "pallas"}\'')
  parser.add_argument("--top", type=int, default=0, help="also the n kernels with most traffic")
  parser.add_argument("--output", default="", help="JSON file")
  args = parser.parse_args()
  tasks = report.listed(parser, "--tasks", args.tasks, TASKS)
  variants = report.listed(parser, "--variants", args.variants, PEAK)
  if min(args.batch, args.top) < 0:
    parser.error(f"--batch={args.batch} and --top={args.top} must not be negative")
  if not has_compiler():
    parser.error('XLA\'s compiler for GPUs is missing: pip install "jax[cuda13]" (no GPU needed)')
  rows, found = [], {}
  for task in tasks:
    for variant in variants:
      got = report.child("benchmarks.gpu_program",
                         {"task": task, "variant": variant, "batch": args.batch, "model": args.model},
                         DEVICELESS)
      found[f"{task} {variant}"] = got
      moved, flops = (sum(k[key] for k in got["kernels"]) for key in ("bytes", "flops"))
      rows.append((task, variant, got["batch"], len(got["kernels"]), f"{moved / 1e9:.2f} GB",
                   f"{got['scratch'] / 2**30:.2f} GiB", f"{flops / 1e12:.2f}",
                   f"{1e3 * moved / BANDWIDTH:.2f} ms", f"{1e3 * flops / PEAK[variant]:.2f} ms"))
      for kernel in sorted(got["kernels"], key=lambda k: -k["bytes"])[:args.top]:
        report.say(f"{kernel['bytes'] / 1e6:8.1f} MB  {kernel['name']:40s} {kernel['result'][:50]:50s} "
                   f"{kernel['source'][-70:]}")
  report.show(("task", "dtype", "batch", "kernels", "traffic", "scratch memory",
               "TFLOP of convolutions", "at least, by traffic", "at least, by FLOP"), rows, found,
              args.output)


if __name__ == "__main__":
  if sys.argv[1:2] and sys.argv[1].startswith("{"):
    work(**json.loads(sys.argv[1]))
  else:
    main()
