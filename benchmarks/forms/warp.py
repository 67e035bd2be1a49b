r"""The warp of MorphAEus as gathers (medae_jax/models/layers/warp.py) against products with one-hot matrices.

  python -m benchmarks.forms.warp          # seconds of this processor, forms in turn, and their ratio
  python -m benchmarks.forms.warp --gpu    # kernels and bytes that XLA makes of both for an H100

Measured is what a training step asks for: scaling and squaring of both directions (7 warps of fields), the
warp of both images, and the gradient of all that by velocity and images. Products: the bilinear weights of
every place as rows of two matrices, [H W, H] and [H W, W], so that no address depends on the data; the work
grows with the side of the image, times its pixels. Both give the same values: the difference is printed.
No GPU is needed for --gpu, only its compiler.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import gpu_program, report
from benchmarks.forms import in_turn
from medae_jax.models.layers import warp

STEPS = 7


def products(image: jax.Array, field: jax.Array) -> jax.Array:
  """As warp.warp, by products alone: sum over w of a hat at the column, then over h of one at the row."""
  batch, height, width, channels = image.shape
  grid = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
  rows, columns = (
      _hat((g.astype(field.dtype) + field[..., i]).reshape(batch, -1, 1), side)
      for i, (g, side) in enumerate(zip(grid, (height, width))))
  lines = jnp.einsum("bpw,bhwc->bphc", columns, image)
  return jnp.einsum("bph,bphc->bpc", rows, lines).reshape(batch, height, width, channels)


def _hat(place, side):
  """max(0, 1 - |place - k|) for k = 0 ... side - 1: 0 outside of the image, as a neighbour there counts."""
  return jax.nn.relu(1 - jnp.abs(place - jnp.arange(side, dtype=place.dtype)))


def step(form):
  """(velocity, prior, image) -> gradient of a loss of both warps by all three."""
  def loss(velocity, prior, image):
    fields = jnp.concatenate([velocity, -velocity]) / 2**STEPS
    fields = jax.lax.scan(lambda u, _: (u + form(u, u), None), fields, length=STEPS)[0]
    warped = form(jnp.concatenate([prior, image]), fields)
    return jnp.mean(warped**2)
  return jax.grad(loss, (0, 1, 2))


FORMS = {"gathers": warp.warp, "products": products}


def inputs(side: int, batch: int):
  """Velocity of about three pixels (smooth), prior and image, float32."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  velocity = jax.image.resize(3 * draw(batch, 4, 4, 2), (batch, side, side, 2), "cubic")
  return velocity, draw(batch, side, side, 1), draw(batch, side, side, 1)


def measure(side: int, batch: int, repeats: int) -> tuple[dict[str, list[float]], float]:
  """({form: seconds of each repeat}, largest difference of the forward warps); the forms take turns."""
  args = inputs(side, batch)
  velocity, _, image = args
  apart = float(jnp.abs(jax.jit(warp.warp)(image, velocity) - jax.jit(products)(image, velocity)).max())
  return in_turn.cpu_seconds({name: step(form) for name, form in FORMS.items()}, args, repeats), apart


def work(side: int, batch: int) -> None:
  """Compiles both forms for an H100 in this process: JSON on stdout."""
  place, found = jax.sharding.SingleDeviceSharding(gpu_program.h100s(1)[0]), {}
  shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
            for x in jax.eval_shape(lambda: inputs(side, batch))]
  for name, form in FORMS.items():
    compiled = jax.jit(step(form)).lower(*shapes).compile(compiler_options={"xla_gpu_autotune_level": 0})
    seen = gpu_program.kernels(compiled.as_text())
    found[name] = {"kernels": len(seen), "bytes": sum(k.bytes for k in seen),
                   "scratch": compiled.memory_analysis().temp_size_in_bytes}
  print(json.dumps(found))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--sides", default="32,64,128")
  parser.add_argument("--batch", type=int, default=16)
  parser.add_argument("--repeats", type=int, default=5)
  parser.add_argument("--gpu", action="store_true")
  args = parser.parse_args()
  sides = [int(side) for side in args.sides.split(",")]
  if args.gpu:
    if not gpu_program.has_compiler():
      parser.error('XLA\'s compiler for GPUs is missing: pip install "jax[cuda13]" (no GPU needed)')
    rows = []
    for side in sides:
      found = report.child("benchmarks.forms.warp", {"side": side, "batch": args.batch},
                           gpu_program.DEVICELESS)
      rows += [(side, name, v["kernels"], f"{v['bytes'] / 1e9:.2f} GB", f"{v['scratch'] / 2**20:.0f} MiB")
               for name, v in found.items()]
    report.show(("side", "form", "kernels", "traffic", "scratch memory"), rows, {}, "")
    return
  rows = []
  for side in sides:
    seconds, apart = measure(side, args.batch, args.repeats)
    middle = {name: statistics.median(found) for name, found in seconds.items()}
    cells = [in_turn.cell(found) for found in seconds.values()]
    rows.append((side, *cells, f"{middle['products'] / middle['gathers']:.2f}", f"{apart:.1e}"))
  report.show(("side", "gathers, CPU seconds", "products, CPU seconds", "products / gathers",
               "largest difference"), rows, {}, "")


if __name__ == "__main__":
  if sys.argv[1:2] and sys.argv[1].startswith("{"):
    work(**json.loads(sys.argv[1]))
  else:
    main()
