"""Runs an exported folder with jax and flatbuffers alone: python run_exported.py [--dir=EXPORT] image.npy

image.npy: float32 [H,W,C] or [B,H,W,C], prepared as the folder's config.json says.
Writes <image>_map.npy and prints one anomaly score an image.
"""

import hashlib
import json
import pathlib
import sys

import jax
from jax import export
import numpy as np

if len(sys.argv) < 2:
  sys.exit(__doc__)
given = [a.removeprefix("--dir=") for a in sys.argv[1:] if a.startswith("--dir=")]
folder = pathlib.Path(given[0]) if given else pathlib.Path(__file__).parent
manifest = json.loads((folder / "manifest.json").read_text())
size = [int(n) for n in manifest["inputs"]["image"]["shape"][1:]]
for name in ("score.stablehlo", "weights.npz"):
  if hashlib.sha256((folder / name).read_bytes()).hexdigest() != manifest["files"][name]:
    sys.exit(f"{folder / name} is not the file that was exported: export again")
score = export.deserialize(bytearray((folder / "score.stablehlo").read_bytes()))
weights = jax.device_put(dict(np.load(folder / "weights.npz", allow_pickle=False)))
for path in (a for a in sys.argv[1:] if not a.startswith("--dir=")):
  image = np.load(path, allow_pickle=False).astype(np.float32)
  if image.ndim not in (3, 4) or list(image.shape[-3:]) != size:
    sys.exit(f"{path} is {list(image.shape)}: {size} or a batch of it is needed; see README.txt")
  outputs = jax.jit(score.call)(weights, {"image": image.reshape(-1, *image.shape[-3:])})
  for i, value in enumerate(np.asarray(outputs["score"])):
    print(f"{path}[{i}] score {value:.6g}")
  np.save(path.removesuffix(".npy") + "_map.npy", np.asarray(outputs["map"]))
