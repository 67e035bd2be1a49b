r"""Writes a study of noisy annotations to disk, in the folders that the reference reads.

  python -m data_pipelines.prepare noisy_study --dir=FOLDER --noise=polygon:3 --clean=10 --out=STUDY
reads the fully labelled set FOLDER/labels.csv (data_pipelines/datasets/segmentation.py, layout
"manifest") and writes STUDY/training/{noisy,clean}_{img,gt}, {val,test}_{img,gt}, noise.csv (Dice of every
noisy mask against the expert one) and mean_image.npy. Train on it with --config.data.layout=folders
--config.data.noise= --config.data.dir=STUDY. Images are copied byte for byte, masks are PNG 0/255
at their native size.
"""

from __future__ import annotations

import argparse
import csv
import pathlib
import shutil

import numpy as np

from data_pipelines import cells, fields as data_fields, whole_folder
from data_pipelines.datasets import segmentation
from data_pipelines.formats import images as image_files
from data_pipelines.intake import find, names
from data_pipelines.masks import images as paired_images
from data_pipelines.ops import overlap

_FOLDERS = {"noisy": "training/noisy", "clean": "training/clean", "val": "val", "test": "test"}


def write_study(data_cfg, out, seed: int = 0) -> float:
  """Writes the study that `config.data` describes, whole or not at all.

  Returns:
    The mean Dice of the noisy masks.

  Raises:
    FileExistsError: `out` holds files already. ValueError, FileNotFoundError: as the data set says.
  """
  data = segmentation.build(data_cfg, seed)
  with whole_folder.filled(out) as folder:
    return _write(data, data_cfg["noise"], folder)


def _write(data, noise: str, out: pathlib.Path) -> float:
  rows = []
  for name, folder in _FOLDERS.items():
    items = data.parts.get(name, ())
    # An id may be a path; whatever a table says, nothing is written outside of `out`.
    for item, ident in zip(items, names.unique([i.id for i in items], folders=True)):
      images, masks = out / f"{folder}_img", out / f"{folder}_gt"
      for kind in (images, masks):
        (kind / ident).parent.mkdir(parents=True, exist_ok=True)
      if item.path:
        shutil.copyfile(item.path, images / f"{ident}{find.suffix_of(item.path)}")
      else:
        image_files.write_array(images / f"{ident}.png", item.image())
      mask = item.mask() > 0.5
      image_files.write_array(masks / f"{ident}_segmentation.png", (255 * mask).astype(np.uint8))
      if name == "noisy" and item.truth is not None:
        rows.append({"id": cells.inert(ident), "noise": noise,
                     "dice": round(overlap.dice(mask, item.truth() > 0.5), 6)})
  paired_images.write_mean_image(data.split("noisy"), out / "mean_image.npy")
  with (out / "noise.csv").open("w", newline="", encoding="utf-8") as file:
    table = csv.DictWriter(file, ["id", "noise", "dice"], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
  return float(np.mean([r["dice"] for r in rows])) if rows else float("nan")


def main(argv: list[str]) -> None:
  """Writes the study, then says how good its noisy masks are."""
  parser = argparse.ArgumentParser(prog="prepare noisy_study", description=__doc__.splitlines()[0])
  parser.add_argument("--dir", required=True, help="folder of the fully labelled set")
  parser.add_argument("--manifest", default="labels.csv")
  parser.add_argument("--out", required=True, help="new folder")
  parser.add_argument("--noise", default="polygon:3", help="see data_pipelines/masks/label_noise.py")
  parser.add_argument("--noise_seed", type=int, default=0)
  parser.add_argument("--clean", type=int, default=10, help="images that keep their expert mask")
  parser.add_argument("--clean_seed", type=int, default=0)
  parser.add_argument("--image_size", type=int, default=96, help="side of the mean image")
  args = parser.parse_args(argv)
  given = {k: v for k, v in vars(args).items() if k != "out"}
  dice = write_study(data_fields.changed(segmentation.defaults(), **given), args.out)
  print(f"mean Dice of the noisy masks: {dice:.3f} ({args.out}/noise.csv)")


if __name__ == "__main__":
  from data_pipelines.prepare import program
  program(main)
