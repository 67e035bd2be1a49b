"""Scans and images through an exported folder, without JAX: python run_onnx.py INPUT [OUTPUT [MODEL]]

INPUT: a NIfTI file, a DICOM file or series, a PNG, JPEG or TIFF, or a folder of them. Needs what
requirements.txt beside this file names. For each scan OUTPUT (default: results) gets <name>_anomaly.nii.gz
and _mask.nii.gz on the grid of the input (images: _anomaly.tif, _mask.png), and a row of predictions.csv:
score, p-value, whether it is called abnormal. MODEL: score.onnx (default), score_fp16.onnx, score_int8.onnx.
The mask is map > threshold of calibration.json, without small components, as --mode=predict makes it.
"""

import csv
import hashlib
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
try:
  import numpy as np
  import onnxruntime
except ModuleNotFoundError as missing:
  sys.exit(f"run_onnx.py needs {missing.name}: pip install -r {HERE / 'requirements.txt'}")


class Folder:
  """An exported folder: config.json, calibration.json, score.onnx."""

  def __init__(self, folder=HERE, model="score.onnx"):
    sys.path.insert(0, str(folder / "preparation"))
    read = lambda name: json.loads((folder / name).read_text(encoding="utf-8"))
    self.config, self.manifest = read("config.json"), read("manifest.json")
    self._check(folder, model)
    self.calibration = read("calibration.json") if (folder / "calibration.json").exists() else {}
    told = read("trained_on.json") if (folder / "trained_on.json").exists() else {}
    self.mark = ", ".join(filter(None, ["synthetic" if told.get("synthetic") else "", told.get("variant")]))
    self.data = self.config["data"]
    self.modalities = tuple(self.data.get("modalities", ()))
    self.threshold = self.config["predict"].get("threshold") or self.calibration.get("threshold")
    self.shape = tuple(int(v) for v in self.manifest["inputs"]["image"]["shape"][1:])  # (h, w, C)
    self.session = onnxruntime.InferenceSession(str(folder / model),
                                                providers=["CPUExecutionProvider"])

  def _check(self, folder, model):
    """Ends the program where a file that decides results is not the one that was exported.

    Of config.json the group predict may be edited.
    """
    known = self.manifest.get("files", {})
    alone = (model, "calibration.json", "trained_on.json")
    for name in (n for n in known if n in alone or n.startswith("preparation")):
      path = folder / name
      if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != known[name]:
        sys.exit(f"{path} is missing, or not the file that was exported: export again")
    fixed = json.dumps({k: v for k, v in self.config.items() if k != "predict"}, sort_keys=True).encode()
    if self.manifest.get("config") not in (None, hashlib.sha256(fixed).hexdigest()):
      sys.exit(f"{folder / 'config.json'} is not the one that was exported: of it only the group predict may "
               "be edited; undo the change, or make it in the workdir of the run and export again")

  def score(self, images):
    """Images [n,h,w,C] -> (maps [n,h,w], scores [n])."""
    batch = 1 if self.manifest.get("batch_onnx") == 1 else 8
    images = np.ascontiguousarray(images, np.float32)
    parts = [self.session.run(["map", "score"], {"image": images[i:i + batch]})
             for i in range(0, len(images), batch)]
    maps, scores = (np.concatenate(p) for p in zip(*parts))
    return maps[..., 0], scores

  def predict(self, scan, out):
    """Writes the files of one scan; returns its row."""
    from data_pipelines.formats import images, nifti
    from data_pipelines.intake import find
    if self.modalities and not any(find.kind_of(p, False) == "image" for p in scan.files.values()):
      return self.volume(scan, out, nifti)
    return self.image(scan, out, images)

  def volume(self, scan, out, nifti):
    from data_pipelines.brains import inputs, normalise
    axes = self.config["predict"].get("orientation") or self.data.get("orientation", "")
    read = inputs.read_scan(scan, self.modalities, axes)
    prepared = self.prepare(normalise, read.arrays, read.spacing)
    maps, scores = self.score(prepared.image)

    def back(values):
      full = np.zeros(read.arrays[0].shape, np.float32)
      full[:, :, prepared.slices] = np.moveaxis(np.stack([prepared.place.back(v) for v in values]), 0, -1)
      return read.back(full)
    row = self.row(scores, "scan")
    nifti.write_like(out / f"{scan.name}_anomaly.nii.gz", back(maps), read.image)
    if self.threshold is not None:
      mask = (back(self.cut(maps)) > np.float32(self.threshold)).astype(np.uint8)
      nifti.write_like(out / f"{scan.name}_mask.nii.gz", mask, read.image)
      row |= {"mask_voxels": int(mask.sum()), "mask_ml": float(mask.sum() * read.grid.voxel_ml)}
    return row

  def prepare(self, normalise, arrays, spacing):
    return normalise.prepare(arrays, None, self.shape[:2], spacing, self.data.get("placement", "scan"),
                             self.data.get("field_mm", 0.0), self.data.get("unit", "percentile"))

  def image(self, scan, out, images):
    if self.modalities:  # a slice as displayed, front up: turned as the slices of volumes lie
      from data_pipelines.brains import normalise
      names = [""] if "" in scan.files else self.modalities
      array = np.concatenate([images.read_values(scan.files[m], len(self.modalities) if m == "" else 1)
                              for m in names], -1)
      mm = self.data.get("field_mm", 1.0) / max(array.shape[:2])
      prepared = self.prepare(normalise, [c.T[:, :, None] for c in np.moveaxis(array, -1, 0)], (mm, mm, mm))
      example, back = prepared.image, lambda maps: prepared.place.back(maps[0]).T
    else:
      import ml_collections

      from data_pipelines import dataset
      data, path = ml_collections.ConfigDict(self.data), next(iter(scan.files.values()))
      module = dataset.module(data.name)
      shape = images.read_unit(path, 0, data.get("window", (0, 0))).shape[:2]
      example = module.read_example(path, data, self.shape)[None]
      back = lambda maps: module.place_map(maps[0], shape, data)
    maps, scores = self.score(example)
    row = self.row(scores, "image")
    images.write_array(out / f"{scan.name}_anomaly.tif", np.ascontiguousarray(back(maps), np.float32))
    if self.threshold is not None:
      mask = back(self.cut(maps)) > np.float32(self.threshold)
      images.write_array(out / f"{scan.name}_mask.png", (255 * mask).astype(np.uint8))
      row["mask_pixels"] = int(mask.sum())
    return row

  def cut(self, maps):
    """The map with deleted components lowered to the threshold."""
    above = maps > np.float32(self.threshold)
    kept = large(above, int(self.calibration.get("components", self.config["eval"].get("components", 0))))
    return np.where(above & ~kept, np.float32(self.threshold), maps)

  def row(self, scores, unit):
    """Score, p-value and verdict, as predictions.csv of --mode=predict has them."""
    row, known = {"score": float(scores.max())}, self.calibration
    if known.get("scan_unit") == unit:
      normal = np.asarray(known.get("scan_scores") or (), float)
      if normal.size:
        row["p_value"] = float((1 + np.count_nonzero(normal >= row["score"])) / (normal.size + 1))
      if known.get("scan_threshold") is not None:
        row["called_abnormal"] = int(row["score"] > known["scan_threshold"])
    if "called_abnormal" not in row and unit == "image" and known.get("image_threshold") is not None:
      row["called_abnormal"] = int(row["score"] > known["image_threshold"])
    return {**row, "threshold": self.threshold}


def large(volume, most):
  """bool [Z,H,W] without 26-connected components whose filled volume is at most `most` voxels."""
  if not most or not volume.any():
    return volume
  label = components(volume)
  sizes = np.bincount(label[volume])
  doomed = sizes <= most
  for k in np.flatnonzero(doomed & (sizes >= 26)):  # a cavity takes 26 voxels around it; it counts as filled
    at = np.argwhere(label == k)
    one = np.pad(label[tuple(slice(a, b + 1) for a, b in zip(at.min(0), at.max(0)))] == k, 1)
    outside = components(~one)
    doomed[k] = (outside != outside[0, 0, 0]).sum() <= most
  return volume & ~doomed[np.where(volume, label, 0)]


def components(on):
  """int [Z,H,W]: equal numbers for 26-connected voxels, -1 elsewhere."""
  place = np.full(np.add(on.shape, 2), -1)
  at = np.argwhere(on)
  place[tuple((at + 1).T)] = np.arange(len(at))
  steps = [(z, y, x) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1)]
  pairs = []
  for step in steps[:13]:
    other = place[tuple((at + 1 + step).T)]
    pairs.append(np.stack([np.flatnonzero(other >= 0), other[other >= 0]]))
  first, second = np.concatenate(pairs, 1)
  label = np.arange(len(at))
  while True:
    low = np.minimum(label[first], label[second])
    new = label.copy()
    np.minimum.at(new, first, low)
    np.minimum.at(new, second, low)
    new = new[new]
    if (new == label).all():
      break
    label = new
  found = np.full(on.shape, -1)
  found[on] = np.unique(label, return_inverse=True)[1]
  return found


def main(source, output="results", model="score.onnx"):
  """Every scan below `source`; one that fails is named, the others go on. Returns the number of failures."""
  folder, out, rows = Folder(model=model), pathlib.Path(output), []
  marked = {"trained_on": folder.mark} if folder.mark else {}
  if marked:
    print(f"Trained on {folder.mark} data: results say nothing about patients.", file=sys.stderr)
  from data_pipelines.brains import inputs
  kinds = ("nifti", "image", "dicom") if folder.modalities else ("image", "dicom")
  scans, found = inputs.find_all(source, folder.modalities, kinds)
  out.mkdir(parents=True, exist_ok=True)
  for scan in scans:
    try:
      rows.append({"input": scan.title, **folder.predict(scan, out), "error": "", **marked})
    except (ValueError, OSError) as e:
      rows.append({"input": scan.title, "error": " ".join(str(e).split())})
    print(rows[-1])
  rows += [{"input": str(f.path), "error": f.reason} for f in found.broken]
  with open(out / "predictions.csv", "w", newline="", encoding="utf-8") as file:
    writer = csv.DictWriter(file, list(dict.fromkeys(k for r in rows for k in r)) or ["input"])
    writer.writeheader()
    writer.writerows(rows)
  return sum(bool(r["error"]) for r in rows) + (not rows)


if __name__ == "__main__":
  if len(sys.argv) not in (2, 3, 4):
    sys.exit(__doc__)
  try:
    sys.exit(int(main(*sys.argv[1:]) > 0))
  except ModuleNotFoundError as missing:
    sys.exit(f"run_onnx.py needs {missing.name}: pip install -r {HERE / 'requirements.txt'}")
