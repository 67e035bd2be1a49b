"""Runs an exported folder with jax and flatbuffers alone: python run_exported.py [--dir=EXPORT] image.npy

image.npy: float32 [H,W,C] or [B,H,W,C], prepared as the folder's config.json says.
Writes every output with rows and columns as <image>_<name>.npy, never read again; prints one score an image.
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
low, high = [n if n is not None else s * np.inf for n, s in zip(manifest["range"]["image"], (-1, 1))]
for name in ("score.stablehlo", "weights.npz"):
  if hashlib.sha256((folder / name).read_bytes()).hexdigest() != manifest["files"][name]:
    sys.exit(f"{folder / name} is not the file that was exported: export again")
score = export.deserialize(bytearray((folder / "score.stablehlo").read_bytes()))
weights = jax.device_put(dict(np.load(folder / "weights.npz", allow_pickle=False)))
paths = [a for a in sys.argv[1:] if not a.startswith("--dir=")]
made = {f"{path.removesuffix('.npy')}_{name}.npy" for path in paths for name in manifest["outputs"]}
for path in (p for p in paths if p not in made):
  try:
    image = np.lib.format.open_memmap(path, mode="r")
  except (OSError, ValueError) as e:
    sys.exit(f"{path} is no array of numbers in an .npy file ({e})")
  if image.ndim not in (3, 4) or list(image.shape[-3:]) != size or not image.size:
    sys.exit(f"{path} is {list(image.shape)}: {size} or a batch of it is needed; see README.txt")
  inside = (image >= low - 1e-4) & (image <= high + 1e-4) & np.isfinite(image)
  if image.dtype.kind != "f" or not inside.all():
    sys.exit(f"{path} is {image.dtype}, {image.min()} to {image.max()}: float32, {low} to {high} is needed")
  batch = {"image": np.asarray(image, np.float32).reshape(-1, *size)}
  outputs = {k: np.asarray(v) for k, v in jax.jit(score.call)(weights, batch).items()}
  for i, value in enumerate(outputs.get("score", ())):
    print(f"{path}[{i}] score {value:.6g}")
  for name in (k for k, v in outputs.items() if v.ndim == 4):
    np.save(f"{path.removesuffix('.npy')}_{name}.npy", outputs[name])
