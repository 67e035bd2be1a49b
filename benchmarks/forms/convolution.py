r"""3x3 convolutions in the package's own forms against XLA's own, on this processor.

  python -m benchmarks.forms.convolution                    # CPU seconds of both in turn, and their ratio
  python -m benchmarks.forms.convolution --dtype=bfloat16
  python -m benchmarks.forms.convolution --steps=dae,features,perceptual --dtype=bfloat16

float32: in tiles (medae_jax/models/layers/winograd.py), bfloat16: by oneDNN (layers/onednn.py), where this
processor has it. Without --steps a row each for the shapes [H,W,I] -> O of the DAE's U-Net (wf 6, 128x128)
and of VGG16 at 224x224: the convolution and its gradients. With it the steps of `benchmarks.compare`, in the
forms that the package takes and in XLA's own.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import package_steps, report, settings
from benchmarks.forms import in_turn
from medae_jax.models.layers import conv_forms, onednn, winograd

SHAPES = ((128, 4, 64), (128, 64, 64), (64, 128, 128), (32, 128, 256), (32, 256, 256), (32, 512, 256),
          (16, 256, 512), (16, 512, 512), (56, 256, 256), (28, 512, 512))  # (side, channels in, out)
OWN, OTHER = "XLA's own", {"float32": "tiles", "bfloat16": "oneDNN"}


def row(side: int, channels: int, features: int, batch: int, repeats: int, dtype: str) -> tuple:
  """Cells of a row, for normal noise."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(batch, side + 2, side + 2, channels)), dtype)
  kernel = jnp.asarray(rng.normal(size=(3, 3, channels, features)) / (9 * channels)**0.5, dtype)
  grad = jnp.asarray(rng.normal(size=(batch, side, side, features)), dtype)
  other = winograd.tiled if dtype == "float32" else onednn.conv
  forms = {OWN: winograd.plain, OTHER[dtype]: lambda x, k: other(x, k, 0)}
  gradient = lambda form, of: lambda x, k, grad: jax.vjp(form, x, k)[1](grad)[of]
  cells = []
  for made in (forms, *({name: gradient(form, of) for name, form in forms.items()} for of in (0, 1))):
    args = (x, kernel) if made is forms else (x, kernel, grad)
    cells += _pair(in_turn.cpu_seconds(made, args, repeats), dtype, 1)
  own, found = (form(x, kernel).astype(jnp.float32) for form in forms.values())
  return (f"{side}x{side}, {channels} to {features}", *cells, f"{float(jnp.abs(own - found).max()):.1e}")


def _pair(seconds, dtype: str, digits: int) -> list[str]:
  own, other = (statistics.median(seconds[name]) for name in (OWN, OTHER[dtype]))
  return [*(in_turn.cell(seconds[name], 1e3, digits) for name in (OWN, OTHER[dtype])), f"{own / other:.2f}x"]


def step_row(task: str, repeats: int, dtype: str) -> tuple:
  """Cells of the row of a task's step."""
  setting = {**settings.CPU[task], "variant": dtype}
  tensors = settings.make(setting)
  steps = {}
  for name in (OWN, OTHER[dtype]):
    with conv_forms.never() if name == OWN else contextlib.nullcontext():
      steps[name] = package_steps.build(setting, *tensors, "cpu")
      steps[name]()  # traced, and compiled, in here
  return (f"{task}, batch {setting['batch']}", *_pair(in_turn.timed(steps, repeats), dtype, 0))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--batch", type=int, default=4)
  parser.add_argument("--repeats", type=int, default=15)
  parser.add_argument("--steps", default="", help="dae,features,perceptual: steps instead of shapes")
  parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
  args = parser.parse_args()
  tasks = args.steps.split(",") if args.steps else []
  if wrong := [task for task in tasks if task not in settings.CPU]:
    parser.error(f"--steps: {wrong[0]!r} is none of {', '.join(settings.CPU)}")
  if args.dtype == "bfloat16" and not onednn.there():
    parser.error("--dtype=bfloat16: this processor or this jaxlib has no convolutions of oneDNN")
  if tasks:
    rows = [step_row(task, args.repeats, args.dtype) for task in tasks]
    heads = (f"step, {args.dtype}", f"{OWN}, ms of a core", f"{OTHER[args.dtype]}, ms of a core", "ratio")
    report.show(heads, rows, {}, "")
    return
  rows = [row(*shape, args.batch, args.repeats, args.dtype) for shape in SHAPES]
  other = OTHER[args.dtype]
  both = lambda what: (f"{what}{OWN}, ms of a core", other, "ratio")
  heads = (f"shape, batch {args.batch}, {args.dtype}", *both(""), *both("gradient of x, "),
           *both("of the kernel, "), "largest difference")
  report.show(heads, rows, {}, "")


if __name__ == "__main__":
  main()
