"""What half precision and 8-bit weights of an exported score.onnx cost.

  python -m benchmarks.peers.onnx_precision RUN EXPORT

Writes EXPORT/score_fp16.onnx (inputs and outputs stay float32) and EXPORT/score_int8.onnx (weights of 8 bits,
activations measured as they come), scores the test split of RUN's data with each by onnxruntime, and prints
size, seconds, largest difference of the map, pixel AP and image AP. Needs the extra "onnx".
"""

from __future__ import annotations

import pathlib
import sys
import time

import numpy as np

from data_pipelines import dataset as datasets, stream
from medae_jax.core import config as config_lib
from medae_jax.metrics import detection


def half(source: pathlib.Path, target: pathlib.Path) -> None:
  """float16 inside."""
  import onnx
  from onnxruntime.transformers import float16
  onnx.save(float16.convert_float_to_float16(onnx.load(str(source)), keep_io_types=True), str(target))


def eight_bits(source: pathlib.Path, target: pathlib.Path) -> None:
  """8-bit weights, dynamic quantisation of the activations."""
  from onnxruntime import quantization
  quantization.quantize_dynamic(str(source), str(target), weight_type=quantization.QuantType.QUInt8)


def scored(path: pathlib.Path, batches) -> tuple[np.ndarray, np.ndarray, float]:
  """(maps, scores, seconds) of all batches."""
  import onnxruntime
  session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
  begin = time.monotonic()
  maps, scores = zip(*(session.run(["map", "score"], {"image": b["image"]}) for b in batches))
  return np.concatenate(maps), np.concatenate(scores), time.monotonic() - begin


def average_precision(values, positive) -> float:
  """Of float16 values, as evaluation counts pixels."""
  counts = detection.sorted_counts(np.float16(values).ravel(), positive.ravel())
  return float(detection.average_precision(counts))


def main(workdir: str, folder: str) -> None:
  """Prints the table."""
  config, exported = config_lib.read_config(workdir), pathlib.Path(folder)
  source = datasets.open_dataset(config.data, config.seed).split("test")
  batches = [{k: v[b["valid"]] for k, v in b.items() if k in ("image", "mask")}
             for b in stream.eval_batches(source, batch_size=8)]
  mask = np.concatenate([b["mask"] for b in batches]) > 0
  label, first = mask.any((1, 2, 3)), None
  for name, make in (("score", None), ("score_fp16", half), ("score_int8", eight_bits)):
    path = exported / f"{name}.onnx"
    try:
      if make:
        make(exported / "score.onnx", path)
      maps, scores, seconds = scored(path, batches)
    except Exception as e:  # a node that onnxruntime does not have in this precision: said, the others go on
      print(f"{name}: not possible, {type(e).__name__}: {' '.join(str(e).split())[:300]}")
      continue
    first = maps if first is None else first
    apart = np.abs(maps - first).max()
    print(f"{name}: {path.stat().st_size:,} bytes, {seconds:.1f} s, map differs by {apart:.3g}, "
          f"pixel AP {average_precision(maps, mask):.4f}, image AP {average_precision(scores, label):.4f}")


if __name__ == "__main__":
  if len(sys.argv) != 3:
    sys.exit(__doc__)
  main(*sys.argv[1:])
