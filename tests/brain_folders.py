"""Small folders of synthetic brains for the tests of the preparation."""

import nibabel
import numpy as np

SIZE = (24, 20)  # of the prepared slices
SHAPE = (30, 26, 6)  # of the volumes
MODALITIES = ("flair", "t1", "t1ce", "t2")


def config(source, tmp_path, **changes):
  return {"name": "brats", "dir": str(source), "image_size": SIZE, "workers": 1,
          "prepared_dir": str(tmp_path / "prepared"), **changes}


def everything(dataset, name="test"):
  split = dataset.split(name)
  return split.read(np.arange(len(split)))


def scan(source, number=0):
  return sorted(d for d in source.iterdir() if d.name.startswith("BraTS"))[number]


def volume_of(folder, kind):
  return folder / f"{folder.name}_{kind}.nii.gz"


def rewrite(path, change):
  image = nibabel.load(path)
  nibabel.save(nibabel.Nifti1Image(change(np.asarray(image.dataobj)), image.affine), path)
