"""score.onnx: the score function with its weights inside, named inputs and outputs, any batch size.

Made by jax2onnx (the extra "onnx"), checked with onnxruntime; reading it needs neither JAX nor this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import logging
import pathlib

import jax
import numpy as np

from medae_jax.core.errors import UserError

FILE = "score.onnx"
_BATCHES = (1, 3)  # parity is measured on both: a batch axis that became a constant shows


def write(path: pathlib.Path, score: Callable, weights: Mapping[str, np.ndarray],
          inputs: Mapping[str, jax.ShapeDtypeStruct], names: list[str]) -> dict[str, float]:
  """Writes the file and measures it.

  Args:
    score: (weights, batch) -> {name: array}. inputs: {name: [b, ...] float32}. names: of the outputs.

  Returns:
    {output: largest |difference| from `score` by onnxruntime}.

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

  def flat(*values):
    found = score(weights, dict(zip(keys, values)))
    return tuple(found[name] for name in names)
  logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # a line for each shape that stays symbolic
  try:
    model = to_onnx(flat, [("B", *inputs[k].shape[1:]) for k in keys], model_name="score", input_names=keys,
                    output_names=list(names))
  except (NotImplementedError, TypeError, ValueError, KeyError, RuntimeError) as e:
    raise UserError(f"jax2onnx cannot translate this score ({type(e).__name__}: "
                    f"{(str(e).splitlines() or [''])[0][:200]}): leave onnx out of --formats") from e
  onnx.save(model, str(path))
  session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
  return {name: max(_apart(session, score, weights, inputs, names, n)[name] for n in _BATCHES)
          for name in names}


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
