"""A tiny NIH ChestX-ray14 as it is downloaded: eight images in two tar.gz parts, the table, the lists."""

import io
import tarfile

import numpy as np
from PIL import Image

NAMES = [f"{patient:08d}_00{i}.png" for patient in range(4) for i in (0, 1)]
VIEWS, FINDINGS = ("PA", "AP"), ("No Finding", "Mass|Nodule")


def picture(number):
  """(uint8 [1024,1024], its PNG); one with alpha, as a few of the real ones."""
  rng = np.random.default_rng(number)
  image = rng.integers(0, 256, (64, 64), np.uint8).repeat(16, 0).repeat(16, 1)
  file = io.BytesIO()
  shown = np.dstack([image] * 3 + [np.full_like(image, 255)]) if number == 3 else image
  Image.fromarray(shown).save(file, "PNG")
  return image, file.getvalue()


def write(folder, pictures=None):
  """Writes the download into a new folder and returns it.

  Args:
    pictures: {name: picture(number)}, where they are there already.
  """
  pictures = pictures or {name: picture(i) for i, name in enumerate(NAMES)}
  folder.mkdir()
  lines = [f"{n},{FINDINGS[i // 2 % 2 if i > 3 else 0]},0,{i // 2},50,M,{VIEWS[i % 2]},1,1,1,1"
           for i, n in enumerate(NAMES)]
  (folder / "Data_Entry_2017.csv").write_text("\n".join([
      "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,a,b,c,d",
      *lines]) + "\n")
  (folder / "train_val_list.txt").write_text("\n".join(NAMES[:4]) + "\n")
  (folder / "test_list.txt").write_text("\n".join(NAMES[4:]) + "\n")
  for part in (0, 1):
    with tarfile.open(folder / f"images_00{part + 1}.tar.gz", "w:gz", compresslevel=1) as archive:
      for name in [*NAMES[4 * part:4 * part + 4], *(["unlisted.png"] if part else [])]:
        content = pictures.get(name, pictures[NAMES[0]])[1]
        info = tarfile.TarInfo(f"images/{name}")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
  return folder
