"""Anomaly maps and masks of NIfTI volumes and of single images.

Volumes (NIfTI files, DICOM series): <name>_anomaly.nii.gz (float32) and <name>_mask.nii.gz (uint8) on
the grid of the input, <name>_overlay.png, or a BIDS data set of derivatives; of series DICOM objects, too
(folder written/). Images:
<name>_anomaly.tif (float32, the plain map), <name>_mask.png (0 or 255), <name>_overlay.png, in the size
of the input. The preparation is that of
training (data_pipelines/brains/normalise.py), the threshold that of calibration.json. How one file becomes an
example of a two-dimensional data set, and its map a map of the file, the data set says itself:
`read_example` and `place_map` of data_pipelines.modules.Module.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from absl import logging
import numpy as np

from data_pipelines import dataset as datasets
from data_pipelines.brains import inputs, normalise, sequences
from data_pipelines.formats import images
from data_pipelines.intake import counts, find as finder
from medae_jax.core import files
from medae_jax.core.errors import UserError
from medae_jax.metrics import components
from medae_jax.tasks import admit
from medae_jax.tasks.anomaly import captions, whole_scans
from medae_jax.tasks.anomaly.written import bids, layouts, overlays
from medae_jax.tasks.anomaly.written.dicom_objects import DicomResults
from medae_jax.tasks.base import BasePredictor


@dataclasses.dataclass(frozen=True)
class Scored:
  """What the model says about the n slices of a scan (or one image), at the model's resolution."""

  maps: np.ndarray    # [n,h,w] float32
  cut: np.ndarray     # the same, deleted components lowered to the threshold
  scores: np.ndarray  # [n]


class Predictor(BasePredictor):
  """See the module's docstring."""

  def __init__(self, config, calibration, score_fn):
    super().__init__(config, calibration, score_fn)
    found = calibration or {}
    self.threshold = config.predict.threshold or found.get("threshold")
    self.image_threshold = found.get("image_threshold")
    stored = found.get("components")
    self.components = int(config.eval.components if stored is None else stored)
    self.modalities = tuple(config.data.get("modalities", ()))
    self._dicom = DicomResults(config.predict.dicom_seg, calibration)
    self._layout = self._chosen_layout()
    if self.threshold is None:
      logging.warning("No threshold: calibration.json is missing, so that maps are written but no "
                      "masks. Run --mode=evaluate first, or give --config.predict.threshold.")
    elif config.predict.threshold:
      logging.info("Masks: score > %.4g (config.predict.threshold).", self.threshold)
    elif found.get("threshold_rule"):
      logging.info("Masks: score > %.4g, the %s%s.", self.threshold, found["threshold_rule"],
                   f"; without components of {self.components} pixels or fewer" if self.components else "")

  def _chosen_layout(self) -> layouts.Files:
    if self.config.predict.layout != "bids":
      return layouts.Files()
    if not self.modalities:
      raise UserError("config.predict.layout=bids is for volumes: this run was trained on single images; "
                      "leave it out")
    if str(self.config.predict.dicom_seg) == "True":
      raise UserError("config.predict.layout=bids has no place for DICOM objects: leave predict.dicom_seg "
                      "out, or predict once in each form")
    return bids.Derivatives(self.calibration, self.modalities == (sequences.ANY,))

  # --------------------------------------------------------------------------------- inputs
  def begin(self, output, about):
    self._layout.begin(output, about)
    self._dicom.begin(about)

  def after(self, item):
    self._layout.after(item)
    return []

  def find_inputs(self, input_path):
    """Volumes and images under a file or folder; see inputs.find_all."""
    kinds = ("nifti", "image", "dicom") if self.modalities else ("image", "dicom")
    scans, self.found = inputs.find_all(input_path, self.modalities, kinds)
    if not scans and not self.found.broken:
      raise counts.Nothing(input_path, self.found, kinds)
    self._layout.check(scans)
    if not self._layout.volumes_only:
      self._dicom.announce(scans)
    return scans

  def name_of(self, item):
    return item.title

  def files_of(self, item):
    return item.all_files

  def predict_one(self, item, out_dir):
    out_dir = pathlib.Path(out_dir)
    if not self.modalities:
      return self._image(item, out_dir)
    kinds = {finder.kind_of(p, by_content=False) for p in item.files.values()}
    if "image" in kinds:
      if len(kinds) > 1:
        names = ", ".join(p.name for p in item.files.values())
        raise UserError(f"{item.title} has pictures and volumes ({names}): give all modalities in one form")
      if self._layout.volumes_only:
        raise UserError(f"{item.title} is a picture of one slice: config.predict.layout=bids is for volumes")
      return self._slice_image(item, out_dir)
    return self._volume(item, out_dir)

  # -------------------------------------------------------------------------------- volumes
  def _volume(self, scan, out_dir):
    data = self.config.data
    seen = admit.volume(list(scan.series.values()))
    self.gate.form(scan.title or scan.name, seen)
    read = inputs.read_scan(scan, self.modalities,
                            self.config.predict.orientation or data.get("orientation", ""))
    prepared = self._prepare(read.arrays, read.spacing)
    if prepared.left_out:
      self.gate.warn(scan.title or scan.name, prepared.left_out)
    seen = dataclasses.replace(seen, spacing=read.spacing if read.grid.known else ())
    self.gate.content(scan.title or scan.name, seen, prepared.image)
    scored = self._score(prepared.image.astype(np.float32))
    back = lambda maps: read.back(_to_grid(maps, prepared, read.arrays[0].shape))
    anomaly = back(scored.maps)
    look = self._look(anomaly)
    self._layout.map(scan, out_dir, anomaly, read.image, look.top)
    row = self._row(scored, prepared.slices, anomaly)
    mask = None
    if self.threshold is not None:
      mask = (back(scored.cut) > np.float32(self.threshold)).astype(np.uint8)
      self._layout.mask(scan, out_dir, mask, read.image, self.threshold)
      row["mask_voxels"] = int(mask.sum())
      row["mask_ml"] = float(mask.sum() * read.grid.voxel_ml)
    if not self._layout.volumes_only:
      row.update(self._dicom.write(scan, self.modalities[0], out_dir, anomaly, mask, row,
                                   self.gate.warn))
    self._layout.row(scan, row)
    row["orientation"] = read.grid.codes if read.grid.known else ""
    if self.config.predict.overlay_slices:
      try:
        files.write_png(self._layout.overlay(scan, out_dir), overlays.of_volume(
            scan.name, self.modalities[0], read, read.back(read.arrays[0]) / prepared.scale[0], anomaly, mask,
            row["highest_slice"], self.config.predict.overlay_slices, look))
      except Exception as error:  # the map is the result: no fault of its picture may cost it
        self.gate.warn(scan.title or scan.name, f"no overlay ({type(error).__name__}: "
                       f"{' '.join(str(error).split())}); its map is written")
    return row

  def _prepare(self, arrays, spacing):
    """The preparation of training, for [H,W,Z] a modality."""
    data = self.config.data
    return normalise.prepare(arrays, None, self._size(), spacing, data.get("placement", "scan"),
                             data.get("field_mm", 0.0), data.get("unit", "percentile"),
                             data.get("modalities", ()))

  # --------------------------------------------------------------------------------- images
  def _slice_image(self, scan, out_dir):
    """An image of a brain slice as displayed (front up): turned as the slices of volumes lie."""
    seen = admit.picture(list(scan.files.values()), apart="" not in scan.files)
    self.gate.form(scan.title or scan.name, seen)
    if "" in scan.files:
      channels = [images.read_values(scan.files[""], len(self.modalities))]
    else:
      missing = [m for m in self.modalities if m not in scan.files]
      if missing:
        raise UserError(f"{scan.name} has no {', '.join(missing)} image")
      channels = [images.read_values(scan.files[m], 1) for m in self.modalities]
    if len({c.shape[:2] for c in channels}) > 1:
      raise UserError(f"the images of {scan.name} differ in size")
    array = np.concatenate(channels, -1)
    # Nothing says how many mm a pixel is: the longer side is taken for the whole field.
    mm = self.config.data.get("field_mm", 1.0) / max(array.shape[:2])
    prepared = self._prepare([c.T[:, :, None] for c in np.moveaxis(array, -1, 0)], (mm, mm, mm))
    self.gate.content(scan.title or scan.name, seen, prepared.image)
    scored = self._score(prepared.image.astype(np.float32))
    back = lambda maps: prepared.place.back(maps[0]).T
    return self._write_image(scan.name, out_dir, scored, back, array[..., 0] / prepared.scale[0])

  def _image(self, scan, out_dir):
    """An image of a two-dimensional data set, prepared as the data set prepares it for scoring."""
    path, data = next(iter(scan.files.values())), self.config.data
    seen = admit.picture([path])
    self.gate.form(scan.title or scan.name, seen)
    shown = images.read_unit(path, 0, data.get("window", (0, 0)))
    module = datasets.module(data.name)
    image = module.read_example(path, data, self.image_shape)
    self.gate.content(scan.title or scan.name, seen, image[None])
    scored = self._score(image[None])
    back = lambda maps: module.place_map(maps[0], shown.shape[:2], data)
    return self._write_image(scan.name, out_dir, scored, back, shown.mean(-1))

  def _write_image(self, name, out_dir, scored, back, grey):
    if not scored.maps.size:
      return self._row(scored, None)
    anomaly = np.ascontiguousarray(back(scored.maps), np.float32)
    row = self._row(scored, None, anomaly)
    images.write_array(out_dir / f"{name}_anomaly.tif", anomaly)
    mask = None
    if self.threshold is not None:
      mask = back(scored.cut) > np.float32(self.threshold)
      images.write_array(out_dir / f"{name}_mask.png", (255 * mask).astype(np.uint8))
      row["mask_pixels"] = int(mask.sum())
    if self.config.predict.overlay_slices:
      files.write_png(out_dir / f"{name}_overlay.png", overlays.of_image(
          name, captions.of_prediction(row), grey, anomaly, mask, self._look(anomaly)))
    return row

  # --------------------------------------------------------------------------------- shared
  def _score(self, images):
    """Scored of [n,h,w,C]; batches of one size, the last one padded."""
    size, maps, scores = self.config.predict.batch_size, [], []
    for begin in range(0, len(images), size):
      batch = images[begin:begin + size]
      full = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), 0)])
      found = self.score_fn({"image": full})
      scores.append(np.asarray(found["score"])[:len(batch)])
      if "map" in found:
        maps.append(np.asarray(found["map"])[:len(batch), ..., 0])
    scores = np.concatenate(scores)
    maps = np.concatenate(maps) if maps else np.zeros((len(images), 0, 0), np.float32)
    admit.check_scored(images, scores, maps, self.threshold)
    cut = maps
    if self.threshold is not None and maps.size:
      above = maps > np.float32(self.threshold)
      kept = components.remove_small_components(above, self.components)
      cut = np.where(above & ~kept, np.float32(self.threshold), maps)
    return Scored(maps, cut, scores)

  def _row(self, scored, slices, anomaly=None) -> dict[str, Any]:
    row: dict[str, Any] = {"score": float(scored.scores.max())}
    row.update(whole_scans.verdict(self.calibration or {}, row["score"],
                                   "image" if slices is None else "scan"))
    if slices is not None:
      row.update(score_mean=float(scored.scores.mean()), slices=len(slices),
                 highest_slice=int(slices[np.argmax(scored.scores)]))
    # The threshold of images is that of a slice, too: it is never asked of a volume.
    if "called_abnormal" not in row and slices is None and self.image_threshold is not None:
      row["called_abnormal"] = int(row["score"] > self.image_threshold)
    if anomaly is not None:
      row["map_max"] = float(anomaly.max())  # of the map as it is written
    row["threshold"] = self.threshold
    return row

  def _look(self, anomaly) -> overlays.Look:
    """The scales of the calibration, else of this input."""
    found = self.calibration or {}
    top = found.get("map_max") or max(float(np.quantile(anomaly, 0.999)), 1e-6)
    return overlays.Look((found.get("window") or [[0.0, 1.0]])[0], top, self.threshold)

  def _size(self):
    if self.image_shape:
      return tuple(self.image_shape[:2])
    size = self.config.data.image_size
    return (int(size), int(size)) if np.ndim(size) == 0 else tuple(int(v) for v in size)


def _to_grid(maps, prepared, shape):
  """[n,h,w] of the kept slices -> float32 [H,W,Z], 0 in the other slices."""
  full = np.zeros(shape, np.float32)
  full[:, :, prepared.slices] = np.moveaxis(np.stack([prepared.place.back(m) for m in maps]), 0, -1)
  return full
