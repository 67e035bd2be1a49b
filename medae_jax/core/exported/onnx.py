"""score.onnx: the score function with its weights inside, named inputs and outputs, any batch size.

Made by jax2onnx (the extra "onnx"), checked with onnxruntime; reading it needs neither JAX nor this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
import logging
import pathlib
from unittest import mock

from absl import logging as log
from flax.linen import linear
import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core.errors import UserError

FILE = "score.onnx"
_SHORT = 16
_BATCHES = (1, 3)  # parity is measured on both: a batch axis that became a constant shows


def write(path: pathlib.Path, score: Callable, weights: Mapping[str, np.ndarray],
          inputs: Mapping[str, jax.ShapeDtypeStruct], names: list[str]) -> tuple[dict[str, float], str | int]:
  """Writes the file and measures it.

  Args:
    score: (weights, batch) -> {name: array}. inputs: {name: [b, ...] float32}. names: of the outputs.

  Returns:
    ({output: largest |difference| from `score` by onnxruntime}, images at a time: "any", or 1 where the score
    cannot be translated for a batch without a number).

  Raises:
    UserError: a package is missing; the score cannot be translated; the file differs from `score`.
  """
  try:
    from jax2onnx import to_onnx
    import onnx
    import onnxruntime
  except ImportError as e:
    raise UserError(f"the onnx format needs jax2onnx and onnxruntime ({e}): pip install "
                    "'medae-jax[onnx]', or leave it out of --formats") from e
  if odd := [k for k, v in inputs.items() if v.dtype != np.float32]:
    raise UserError(f"the onnx format takes float32 inputs; {', '.join(odd)} is none")
  keys = list(inputs)
  held = {name: jnp.asarray(value) for name, value in weights.items()}  # NumPy takes no traced index

  def flat(*values):
    with _translatable():
      found = score(held, dict(zip(keys, values)))
    return tuple(found[name] for name in names)
  logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # a line for each shape that stays symbolic

  def make(batch, sizes):
    model = to_onnx(flat, [(batch, *inputs[k].shape[1:]) for k in keys], model_name="score", input_names=keys,
                    output_names=list(names))
    onnx.save(model, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    measured = [_apart(session, score, weights, inputs, names, n) for n in sizes]
    return {name: max(m[name] for m in measured) for name in names}
  try:
    try:
      return make("B", _BATCHES), "any"
    except Exception as e:  # jax2onnx, JAX and onnxruntime raise a dozen types where the batch has no number
      log.warning("score.onnx takes one image at a time: jax2onnx cannot translate this score for any batch "
                  "(%s).", _line(e))
      return make(1, (1,)), 1
  except UserError:
    raise
  except Exception as e:
    raise UserError(f"jax2onnx cannot translate this score ({_line(e)}): leave onnx out of --formats") from e


@contextlib.contextmanager
def _translatable() -> Iterator[None]:
  """While jax2onnx traces: what it has no translation of, or a wrong one, in other words of equal value."""
  with contextlib.ExitStack() as stack:
    for where, name, other in ((jax.image, "resize", _resized), (jax.lax, "scan", _unrolled(jax.lax.scan)),
                               (jax.lax, "fori_loop", _counted(jax.lax.fori_loop)),
                               (jnp, "pad", _padded(jnp.pad)), (jnp, "repeat", _repeated(jnp.repeat)),
                               (linear, "canonicalize_padding", _hashable(linear.canonicalize_padding))):
      stack.enter_context(mock.patch.object(where, name, other))
    yield


def _padded(pad):
  """Borders repeated by rows that are taken: jax2onnx repeats along the first axis."""
  def padded(array, widths, mode="constant", **more):
    if mode != "edge" or len(widths) != array.ndim:
      return pad(array, widths, mode, **more)
    for axis, (low, high) in enumerate(widths):
      if low or high:
        n = array.shape[axis]
        array = jnp.take(array, np.clip(np.arange(-low, n + high), 0, n - 1), axis=axis)
    return array
  return padded


def _repeated(repeat):
  """Likewise, for a number of repeats along an axis."""
  def repeated(array, repeats, axis=None, **more):
    if axis is None or not isinstance(repeats, int) or more:
      return repeat(array, repeats, axis, **more)
    return jnp.take(array, np.repeat(np.arange(array.shape[axis]), repeats), axis=axis)
  return repeated


def _hashable(canonical):
  """Padding of a convolution as tuples: jax2onnx makes it a parameter of an equation, which must hash."""
  def padding(*args):
    found = canonical(*args)
    return found if isinstance(found, str) else tuple(map(tuple, found))
  return padding


def _unrolled(scan):
  """Short loops without inputs as repetitions: the types in jax2onnx's loops do not always fit."""
  def repeated(step, carry, xs=None, length=None, **more):
    if xs is not None or length > _SHORT:
      return scan(step, carry, xs, length, **more)
    for _ in range(length):
      carry, found = step(carry, None)
      if found is not None:
        raise NotImplementedError("a loop that collects")
    return carry, None
  return repeated


def _counted(loop):
  """Likewise a short loop between two known numbers."""
  def repeated(low, high, step, carry, **more):
    if any(isinstance(v, jax.core.Tracer) for v in (low, high)) or int(high) - int(low) > _SHORT:
      return loop(low, high, step, carry, **more)
    for i in range(int(low), int(high)):
      carry = step(i, carry)
    return carry
  return repeated


def _resized(image, shape, method, antialias: bool = True, precision=None):
  """jax.image.resize of [B,h,w,C], bilinear, as two products: jax2onnx has none that shrinks without
  aliasing, and none for a batch without a number."""
  if image.ndim != 4 or str(method).lower() not in ("bilinear", "linear"):
    raise NotImplementedError(f"resize of {image.ndim} axes, {method}")
  rows, columns = (jnp.asarray(_weights(new, old, antialias), image.dtype)
                   for new, old in zip(shape[1:3], image.shape[1:3]))
  return jnp.einsum("hH,bHwc->bhwc", rows, jnp.einsum("wW,bHWc->bHwc", columns, image))


def _weights(size: int, pixels: int, antialias: bool) -> np.ndarray:
  """float64 [size, pixels]: a triangle around each output's centre, wider where the image shrinks."""
  scale = pixels / size
  apart = np.abs((np.arange(size)[:, None] + 0.5) * scale - np.arange(pixels) - 0.5)
  weights = np.maximum(1 - apart / (max(scale, 1) if antialias else 1), 0)
  return weights / weights.sum(1, keepdims=True)


def _line(error: Exception) -> str:
  return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def _apart(session, score, weights, inputs, names, n) -> dict[str, float]:
  rng = np.random.default_rng(n)
  batch = {k: rng.random((n, *v.shape[1:]), np.float32) for k, v in inputs.items()}
  got = dict(zip(names, session.run(names, batch)))
  want = {k: np.asarray(v, np.float64) for k, v in jax.jit(score)(weights, batch).items()}
  apart = {}
  for name in names:
    if got[name].shape != want[name].shape:
      raise UserError(f"score.onnx gives {name!r} of shape {got[name].shape}, score {want[name].shape}: "
                      "nothing was written")
    apart[name] = float(np.max(np.abs(got[name] - want[name]), initial=0.0))
    if not apart[name] <= 1e-4 * max(1.0, np.max(np.abs(want[name]), initial=0.0)):
      raise UserError(f"score.onnx differs from score by {apart[name]:g} in {name!r}: nothing was written")
  return apart
