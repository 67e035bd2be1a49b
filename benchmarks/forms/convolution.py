r"""3x3 convolutions in tiles (medae_jax/models/layers/winograd.py) against XLA's own, on this processor.

  python -m benchmarks.forms.convolution                    # CPU seconds of both in turn, and their ratio
  python -m benchmarks.forms.convolution --steps=dae,features,perceptual
  python -m benchmarks.forms.convolution --steps=dae,perceptual --dtype=bfloat16

Without --steps a row each for the shapes [H,W,I] -> O of the DAE's U-Net (wf 6, 128x128) and of VGG16 at
224x224: the convolution and the gradient of its input. With it the steps of `benchmarks.compare`, with tiles
where the package takes them (`winograd.LEAST`, `SMALL`, `ROUNDED`) and without.
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
from medae_jax.models.layers import winograd

SHAPES = ((128, 64, 64), (64, 128, 128), (32, 128, 256), (32, 256, 256), (32, 512, 256), (16, 256, 512),
          (16, 512, 512), (56, 256, 256), (28, 512, 512))  # (side, channels in, out)
FORMS = {"plain": winograd.plain, "tiles": winograd.tiled}


def row(side: int, channels: int, features: int, batch: int, repeats: int, dtype: str) -> tuple:
  """Cells of a row, for normal noise."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(batch, side + 2, side + 2, channels)), dtype)
  kernel = jnp.asarray(rng.normal(size=(3, 3, channels, features)) / (9 * channels)**0.5, dtype)
  grad = jnp.asarray(rng.normal(size=(batch, side, side, features)), dtype)
  of_x = {name: lambda x, kernel, grad, form=form: jax.vjp(lambda x: form(x, kernel), x)[1](grad)[0]
          for name, form in FORMS.items()}
  cells = []
  for forms, args in ((FORMS, (x, kernel)), (of_x, (x, kernel, grad))):
    seconds = in_turn.cpu_seconds(forms, args, repeats)
    plain, tiles = (statistics.median(seconds[name]) for name in FORMS)
    cells += [*(in_turn.cell(seconds[name], 1e3, 1) for name in FORMS), f"{plain / tiles:.2f}x"]
  apart = float(jnp.abs(winograd.plain(x, kernel) - winograd.tiled(x, kernel)).max())
  return (f"{side}x{side}, {channels} to {features}", *cells, f"{apart:.1e}")


def step_row(task: str, repeats: int, dtype: str) -> tuple:
  """Cells of the row of a task's step."""
  setting = {**settings.CPU[task], "variant": dtype}
  tensors = settings.make(setting)
  steps = {}
  for name in FORMS:
    with winograd.never() if name == "plain" else contextlib.nullcontext():
      steps[name] = package_steps.build(setting, *tensors, "cpu")
      steps[name]()  # traced, and compiled, in here
  seconds = in_turn.timed(steps, repeats)
  plain, tiles = (statistics.median(seconds[name]) for name in FORMS)
  return (f"{task}, batch {setting['batch']}", *(in_turn.cell(seconds[n], 1e3, 0) for n in FORMS),
          f"{plain / tiles:.2f}x")


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
  if tasks:
    rows = [step_row(task, args.repeats, args.dtype) for task in tasks]
    heads = (f"step, {args.dtype}", "XLA's own, ms of a core", "tiles, ms of a core", "own / tiles")
    report.show(heads, rows, {}, "")
    return
  rows = [row(*shape, args.batch, args.repeats, args.dtype) for shape in SHAPES]
  heads = (f"shape, batch {args.batch}, {args.dtype}", "XLA's own, ms of a core", "tiles, ms of a core",
           "own / tiles", "gradient of x, own", "tiles", "own / tiles", "largest difference")
  report.show(heads, rows, {}, "")


if __name__ == "__main__":
  main()
