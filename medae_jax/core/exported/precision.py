"""score_fp16.onnx and score_int8.onnx: an exported score.onnx in half precision and with 8-bit weights.

Made by onnxruntime. Inputs and outputs stay float32 with the same names, so that run_onnx.py takes either.
"""

from __future__ import annotations

from collections.abc import Mapping
import logging
import pathlib

import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.core.exported import onnx

FILES = {"onnx_fp16": "score_fp16.onnx", "onnx_int8": "score_int8.onnx"}


def write(folder: pathlib.Path, kind: str) -> pathlib.Path:
  """Writes the file of FILES beside score.onnx.

  Args:
    kind: "onnx_fp16": float16 inside; "onnx_int8": weights of 8 bits, activations quantised as they come
      (dynamic quantisation, Jacob et al., CVPR 2018), so that no calibration data is needed.

  Raises:
    UserError: onnxruntime cannot make it, or cannot run it: an operation that it does not have so.
  """
  source, target = folder / onnx.FILE, folder / FILES[kind]
  try:
    if kind == "onnx_fp16":
      import onnx as package
      from onnxruntime.transformers import float16
      model = float16.convert_float_to_float16(package.load(str(source)), keep_io_types=True)
      package.save(model, str(target))
    else:
      from onnxruntime import quantization
      logging.getLogger().addFilter(_quiet)  # advice on every model to pre-process it
      try:
        quantization.quantize_dynamic(str(source), str(target), weight_type=quantization.QuantType.QUInt8)
      finally:
        logging.getLogger().removeFilter(_quiet)
    run(target, {})
  except Exception as error:  # onnx and onnxruntime raise a dozen types
    raise UserError(f"onnxruntime cannot make {target.name} of this score ({type(error).__name__}: "
                    f"{' '.join(str(error).split())[:200]}): leave {kind} out of --formats") from error
  return target


def _quiet(line: logging.LogRecord) -> bool:
  return "pre-processing" not in line.getMessage()


def run(path: pathlib.Path, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Outputs of a file by name, of {input: array}; of no inputs a batch of one, zeros."""
  import onnxruntime
  session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
  fed = dict(batch) or {i.name: np.zeros([1, *i.shape[1:]], np.float32) for i in session.get_inputs()}
  names = [o.name for o in session.get_outputs()]
  return dict(zip(names, session.run(names, fed)))
