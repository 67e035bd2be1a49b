"""Lesion fields found on a slide made of test patches: AUPRO, AUROC, and the pictures to look at.

  python -m benchmarks.slides.mosaic --patches=FOLDER --workdir=RUN --output=OUT [--map=tiles]

FOLDER has labels.csv (file, split, label) and patches of one size; RUN was trained on its training part.
The slide is a square of normal test patches on glass, in which three blocks of abnormal ones lie.
AUPRO (medae_jax/metrics/regions.py) and AUROC are those of the pixels of the square: the glass around it is
not counted, fields of it that were taken for glass are, with a map of 0.
"""

from __future__ import annotations

import argparse
import csv
import json
import pathlib

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

from data_pipelines.slides import writer
from medae_jax import predict
from medae_jax.metrics import regions as localisation

GLASS, MPP = 243, 0.5
_BLOCKS = ((1, 1, 2, 2), (4, 3, 1, 3), (5, 0, 2, 1))  # row, column, rows, columns in patches


def mosaic(folder: pathlib.Path, side: int = 7, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
  """(uint8 [H,W,3], bool [H,W] lesions) of side x side patches on glass as wide as one of them."""
  with open(folder / "labels.csv", encoding="utf-8", newline="") as file:
    rows = [r for r in csv.DictReader(file) if r["split"] == "test"]
  rng = np.random.default_rng(seed)
  normal = rng.permutation([r["file"] for r in rows if r["label"] == "normal"])
  tumour = rng.permutation([r["file"] for r in rows if r["label"] != "normal"])
  n = np.asarray(Image.open(folder / normal[0])).shape[0]
  image = np.full(((side + 2) * n, (side + 2) * n, 3), GLASS, np.uint8)
  truth = np.zeros(image.shape[:2], bool)
  blocks = np.zeros((side, side), bool)
  for row, column, rows_, columns in _BLOCKS:
    blocks[row:row + rows_, column:column + columns] = True
  taken = [0, 0]
  for row, column in np.ndindex(side, side):
    ill = int(blocks[row, column])
    files = (normal, tumour)[ill]
    at = slice((row + 1) * n, (row + 2) * n), slice((column + 1) * n, (column + 2) * n)
    image[at] = np.asarray(Image.open(folder / files[taken[ill] % len(files)]).convert("RGB"))
    truth[at], taken[ill] = bool(ill), taken[ill] + 1
  return image, truth


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--patches", required=True, help="folder with labels.csv")
  parser.add_argument("--workdir", required=True, help="run trained on it")
  parser.add_argument("--output", required=True, help="folder of the slide and of the results")
  parser.add_argument("--map", default="pixels", choices=("pixels", "tiles"))
  parser.add_argument("--side", type=int, default=7, help="patches along the slide, at least 7")
  args = parser.parse_args()
  output = pathlib.Path(args.output)
  (output / "slide").mkdir(parents=True, exist_ok=True)
  image, truth = mosaic(pathlib.Path(args.patches), args.side)
  path = output / "slide" / "mosaic.tif"
  if not path.exists():  # a finished slide is not scored again
    half = writer.halved(image, np.empty((image.shape[0] // 2, image.shape[1] // 2, 3), np.uint8))
    writer.write_pyramid(path, [image, half], MPP)
  results = output / args.map
  row = predict.predict(args.workdir, {
      "predict.input": str(path), "predict.output": str(results), "predict.slide.mpp": MPP,
      "predict.slide.map": args.map})[0]
  import tifffile
  values = tifffile.imread(results / "mosaic_anomaly.tif")
  record = json.loads((results / "mosaic_slide.json").read_text(encoding="utf-8"))
  side = round(record["plan"]["map_pixel"])
  full = np.repeat(np.repeat(values, side, 0), side, 1)[:truth.shape[0], :truth.shape[1]]
  n = truth.shape[0] // (args.side + 2)
  values, truth = full[n:-n, n:-n], truth[n:-n, n:-n]
  print(json.dumps({"map": args.map, "score": row["score"], "tiles": row["tiles"],
                    "AUPRO": round(float(localisation.aupro(localisation.counts(values, truth))), 4),
                    "pixel AUROC": round(float(roc_auc_score(truth.ravel(), values.ravel())), 4)}))


if __name__ == "__main__":
  main()
