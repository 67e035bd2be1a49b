"""Runs an exported folder with jax alone: python run_exported.py [--dir=EXPORT] image.npy

image.npy: float32 [H,W,C] or [B,H,W,C], prepared as the folder's config.json says.
Writes <image>_map.npy and prints one anomaly score an image.
"""

import pathlib
import sys

import jax
from jax import export
import numpy as np

paths = [a for a in sys.argv[1:] if not a.startswith("--dir=")]
given = [a.removeprefix("--dir=") for a in sys.argv[1:] if a.startswith("--dir=")]
folder = pathlib.Path(given[0] if given else __file__)
folder = folder if folder.is_dir() else folder.parent
score = export.deserialize(bytearray((folder / "score.stablehlo").read_bytes()))
weights = jax.device_put(dict(np.load(folder / "weights.npz", allow_pickle=False)))
for path in paths:
  image = np.load(path, allow_pickle=False).astype(np.float32)
  image = image[None] if image.ndim == 3 else image
  outputs = jax.jit(score.call)(weights, {"image": image})
  for i, value in enumerate(np.asarray(outputs["score"])):
    print(f"{path}[{i}] score {value:.6g}")
  np.save(path.removesuffix(".npy") + "_map.npy", np.asarray(outputs["map"]))
