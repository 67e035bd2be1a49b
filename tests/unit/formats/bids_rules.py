"""Rules of the Brain Imaging Data Structure 1.10 that a data set of derivatives is checked against."""

import csv
import json
import re

import nibabel
import numpy as np

ENTITIES = ("sub", "ses", "acq", "ce", "trc", "rec", "run", "echo", "part", "space", "res", "label", "desc")
OPTIONAL = "".join(f"(_{e}-[0-9a-zA-Z+]+)?" for e in ENTITIES[2:-1])
IMAGE = re.compile(rf"(sub-[0-9a-zA-Z+]+)/(ses-[0-9a-zA-Z+]+/)?anat/\1(_ses-[0-9a-zA-Z+]+)?{OPTIONAL}"
                   r"_desc-[0-9a-zA-Z+]+_(probseg|mask)\.(nii\.gz|json)")
SCANS = re.compile(r"(sub-[0-9a-zA-Z+]+)/(ses-[0-9a-zA-Z+]+/)?\1(_ses-[0-9a-zA-Z+]+)?_scans\.tsv")
TOP = {"dataset_description.json", "README", "scans.json", ".bidsignore"}
IGNORED = re.compile(r".*_overlay\.png|.*\.(csv|html|log)")


def broken(root):
  """[what is against a rule] of a data set of derivatives."""
  names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
  wrong = [f"{n}: no name of BIDS" for n in names
           if not (n in TOP or IMAGE.fullmatch(n) or SCANS.fullmatch(n) or IGNORED.fullmatch(n))]
  about = json.loads((root / "dataset_description.json").read_text())
  wrong += [f"dataset_description.json lacks {k}" for k in ("Name", "BIDSVersion", "GeneratedBy")
            if not about.get(k)]
  wrong += [] if about.get("DatasetType") == "derivative" else ["DatasetType is not derivative"]
  links = about.get("DatasetLinks", {})
  for name in names:
    found = IMAGE.fullmatch(name)
    if found and name.endswith(".nii.gz"):
      wrong += _image(root / name, found[4], links, root)
    elif SCANS.fullmatch(name):
      wrong += _table(root / name, json.loads((root / "scans.json").read_text()))
  return wrong


def _image(path, suffix, links, root):
  sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
  if not sidecar.is_file():
    return [f"{path.name} has no sidecar"]
  wrong, said, voxels = [], json.loads(sidecar.read_text()), np.asarray(nibabel.load(path).dataobj)
  if suffix == "probseg" and not (voxels.dtype == np.float32 and voxels.min() >= 0 and voxels.max() <= 1):
    wrong.append(f"{path.name}: a probseg is a float from 0 to 1")
  if suffix == "mask" and not (voxels.dtype == np.uint8 and set(np.unique(voxels)) <= {0, 1}):
    wrong.append(f"{path.name}: a mask is 0 and 1")
  for source in said.get("Sources", ()):
    _, link, place = source.split(":", 2)
    if link not in links or not (root / links[link] / place).is_file():
      wrong.append(f"{sidecar.name}: {source} is nowhere")
  return wrong + [f"{sidecar.name} has no {k}" for k in ("Description", "SpatialReference") if k not in said]


def _table(path, columns):
  with open(path, encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file, delimiter="\t"))
  wrong = [f"{path.name}: column {c} is not explained" for row in rows for c in row if c not in columns]
  wrong += [f"{path.name}: an empty cell" for row in rows if "" in row.values() or None in row.values()]
  return wrong + [f"{path.name}: {row['filename']} is not there" for row in rows
                  if not (path.parent / row["filename"]).is_file()]
