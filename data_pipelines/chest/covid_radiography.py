"""The COVID-19 Radiography Database (Chowdhury et al. 2020, Rahman et al. 2021): four folders of PNG files.

  <root>/{Normal,COVID,Lung_Opacity,Viral Pneumonia}/{images,masks}/<class>-<number>.png
The masks show the lungs (256x256). The first version has the images in the four folders themselves. Patients
are not named: each image counts as one of its own.
"""

from __future__ import annotations

import pathlib

from data_pipelines.chest.listing import NORMAL, Radiograph
from data_pipelines.errors import UserError
from data_pipelines.intake import counts, find

FOLDERS = {"normal": NORMAL, "covid": "covid", "covid-19": "covid", "lung_opacity": "lung opacity",
           "viral pneumonia": "viral pneumonia"}


def radiographs(root) -> list[Radiograph]:
  """Every image, by class and name.

  Raises:
    FileNotFoundError: no folder. UserError: no images of normal lungs, or no others.
  """
  root = pathlib.Path(root)
  if not root.is_dir():
    raise FileNotFoundError(f"no folder {str(root)!r}; config.data.root is to hold Normal, COVID ...")
  search = find.find(root, ("image",))
  counts.refuse_broken(search)
  found, lungs = [], {}
  for path in search.files:
    *folders, _ = (p.lower() for p in path.relative_to(root).parts)
    folder, below = folders[0] if folders else "", folders[1:]
    if folder in FOLDERS and below in ([], ["images"]):
      found.append(path)
    elif folder in FOLDERS and below == ["masks"]:
      lungs[path.stem] = str(path)
  finding = lambda path: FOLDERS[path.relative_to(root).parts[0].lower()]
  if len({finding(p) for p in found} | {NORMAL}) < 2 or not any(finding(p) == NORMAL for p in found):
    raise UserError(f"{root} does not hold the images of the COVID-19 Radiography Database: folders Normal "
                    "and some of COVID, Lung_Opacity, Viral Pneumonia")
  return [Radiograph(p.relative_to(root).as_posix(), str(p), finding(p), lungs=lungs.get(p.stem, ""))
          for p in found]
