"""What predict writes of a scan, on its own grid: header, numbers, pictures; by a model of NumPy."""

import dataclasses

import nibabel
import numpy as np
from PIL import Image
import pytest

from data_pipelines.brains import inputs, sequences
from medae_jax.core.errors import UserError
from medae_jax.reporting import panels, rulers
from medae_jax.tasks.anomaly import predictor
from tests.stored_volumes import LPS, NAMES, egg, predictor as stand_in, stored, write

WINDOW, TOP, THRESHOLD = [0.1, 0.9], 2.0, 0.5
CALIBRATION = {"threshold": THRESHOLD, "map_max": TOP, "window": [WINDOW, [0, 1]]}


class Gate:
  """Notes what it is asked, and lets everything through."""

  def __init__(self):
    self.asked = []

  def form(self, title, seen):
    self.asked.append(("form", seen))

  def content(self, title, seen, example):
    self.asked.append(("content", seen, example.shape))

  def warn(self, title, line):
    self.asked.append(("warn", line))


def model(calibration=CALIBRATION, **predict):
  made = stand_in()
  config = made.config.copy_and_resolve_references()
  with config.unlocked():
    config.predict.update(predict)
  found = predictor.Predictor(config, calibration, made.score_fn)
  found.gate = Gate()
  return found


def scan_of(folder, codes="LPS", affine=LPS, **options):
  """The egg, stored with its axes towards `codes`."""
  arrays, affines = zip(*(stored(v, codes, affine) for v in egg()))
  scan, = inputs.find_all(write(folder, arrays, affine=affines[0], **options), NAMES, ("nifti",))[0]
  return scan


@pytest.fixture
def drawn(monkeypatch):
  """What was given to `panels.grid`: a dict a picture."""
  seen = []

  def grid(cells, columns, captions, title, **more):
    seen.append({"cells": cells, "heads": columns, "captions": captions, "title": title, **more})
    return np.zeros((2, 2, 3), np.uint8)
  monkeypatch.setattr(panels, "grid", grid)
  return seen


def read(folder, kind):
  return nibabel.load(folder / f"p_{kind}.nii.gz")


# -------------------------------------------------------------------------------------- volumes
def test_header_and_numbers_are_those_of_the_files_own_grid(tmp_path):
  """Voxels of 2 x 2 x 5 mm, stored with the longest side first."""
  row = model().predict_one(scan_of(tmp_path / "in", "SPL"), tmp_path)
  anomaly, mask = read(tmp_path, "anomaly"), read(tmp_path, "mask")
  assert anomaly.header.get_zooms() == mask.header.get_zooms() == (5, 2, 2)
  assert (float(anomaly.header["cal_max"]), float(mask.header["cal_max"])) == (TOP, 1)
  assert float(anomaly.header["cal_min"]) == float(mask.header["cal_min"]) == 0
  voxels = int(np.asarray(mask.dataobj).sum())
  assert 0 < voxels == row["mask_voxels"] and row["mask_ml"] == pytest.approx(voxels * 20 / 1000)
  assert row["orientation"] == "SPL" and row["map_max"] == pytest.approx(float(anomaly.get_fdata().max()))
  assert not list(tmp_path.glob("*.png"))  # no pictures were asked for


def test_a_header_that_is_silent_gives_no_orientation_and_no_mm_for_the_gate(tmp_path):
  judge, folder = model(), write(tmp_path / "in", egg(), codes=(0, 0))  # neither sform nor qform
  scan, = inputs.find_all(folder, NAMES, ("nifti",))[0]
  assert judge.predict_one(scan, tmp_path)["orientation"] == ""
  assert judge.gate.asked[-1][1].spacing == ()


@pytest.mark.parametrize("codes", ["PIR", "SPL"])
def test_the_gate_sees_the_form_first_and_voxels_along_the_axes_of_training(tmp_path, codes):
  judge = model()
  judge.predict_one(scan_of(tmp_path / "in", codes), tmp_path)
  (form, first), (content, seen, shape) = judge.gate.asked
  assert (form, content, first.kind) == ("form", "content", "volume")
  assert seen.spacing == (2.0, 2.0, 5.0) and shape == (7, 48, 60, 2)


def test_pictures_of_a_volume_show_its_slices_as_radiologists_look(tmp_path, drawn):
  """Two slices evenly out of those with anatomy, and the highest one; first modality in its own unit."""
  row = model(overlay_slices=2).predict_one(scan_of(tmp_path / "in"), tmp_path)
  (found,), flair = drawn, egg()[0]
  anomaly, mask = (read(tmp_path, k).get_fdata() for k in ("anomaly", "mask"))
  slices = [3, 4, 5]  # anatomy lies in slices 1 to 7, the spot in slice 4
  assert row["highest_slice"] == 4 and found["title"] == "p"
  assert found["heads"] == ["slice 4 of 9", "slice 5 of 9 (highest)", "slice 6 of 9"]
  assert found["captions"] == ["flair; patient's right is on the left of the picture",
                               "anomaly score, outline: above the threshold"]
  inside = flair[flair > 0]
  unit = np.sqrt(2 * np.median(inside) * np.quantile(inside, 0.99))  # "balanced"
  large = lambda a: panels.enlarge(a, 4)  # 52 pixels become 160 or more
  for k, z in enumerate(slices):
    grey = large(flair[:, :, z].T / unit)
    shown = panels.grey(grey, WINDOW)
    if k == 0:  # voxels of 2 mm, four times as large
      shown = rulers.ruler(rulers.sides(shown, "R", "L"), 0.5)
    np.testing.assert_array_equal(found["cells"][0][k], shown)
    heat = panels.heat_overlay(grey, large(anomaly[:, :, z].T), WINDOW, TOP)
    np.testing.assert_array_equal(found["cells"][1][k], panels.outline(heat, large(mask[:, :, z].T > 0)))
  np.testing.assert_array_equal(found["footer"], panels.scale_bar(TOP, THRESHOLD, with_truth=None))


def test_pictures_are_the_same_however_the_axes_are_stored(tmp_path, drawn):
  for codes in ("LPS", "RAS", "PIR", "SLA"):
    model(overlay_slices=3).predict_one(scan_of(tmp_path / codes, codes), tmp_path)
  first, *others = drawn
  for other in others:
    assert other["heads"] == first["heads"] and other["captions"] == first["captions"]
    for one, two in zip(first["cells"], other["cells"]):
      np.testing.assert_allclose(np.int32(one), np.int32(two), atol=1)


def test_no_threshold_no_outline(tmp_path, drawn):
  model(None, overlay_slices=1).predict_one(scan_of(tmp_path / "in"), tmp_path)
  assert drawn[0]["captions"][1] == "anomaly score" and not (tmp_path / "p_mask.nii.gz").exists()


def test_a_threshold_is_exceeded_not_met_and_components_go_by_the_number_of_the_calibration():
  """A pixel at it makes no component larger; the score counts what is in the batch, not its padding."""
  judge = model({"threshold": 0.5, "components": 1}, batch_size=4)
  maps = np.zeros((3, 6, 6, 1), np.float32)
  maps[0, 0, 0], maps[1, 2:4, 2] = 0.5, 0.75
  maps[2, 5, 4:6, 0] = 0.5, 0.625  # alone above it
  judge.score_fn = lambda b: {"map": b["image"], "score": b["image"].max((1, 2, 3))}
  found = judge._score(maps)
  np.testing.assert_array_equal(found.maps, maps[..., 0])
  assert found.cut.max() == 0.75 and found.cut[2, 5, 5] == 0.5 and found.cut[0, 0, 0] == 0.5
  np.testing.assert_array_equal(found.scores, [0.5, 0.75, 0.625])
  for value in (np.nan, np.inf):
    judge.score_fn = lambda b: {"score": np.r_[value, np.zeros(len(b["image"]) - 1)]}
    with pytest.raises(UserError, match="not finite"):
      judge._score(maps)


# --------------------------------------------------------------------------- slices as pictures
def pictures(folder, arrays, names=NAMES):
  folder.mkdir(parents=True)
  for array, name in zip(arrays, names, strict=True):
    Image.fromarray(np.asarray(array).astype(np.uint16)).save(folder / f"s_{name}.png")
  scan, = inputs.find_all(folder, NAMES, ("nifti", "image"))[0]
  return scan


def test_a_picture_of_a_slice_is_turned_and_its_longer_side_is_the_field(tmp_path, monkeypatch):
  """Nothing says how many mm a pixel is. Rows of a picture run to the back, columns to the left."""
  judge, seen = model(), []
  monkeypatch.setattr(predictor.normalise, "prepare", lambda *given: seen.append(given) or 1 / 0)
  slices = [v[:, :, 4].T for v in egg()]
  with pytest.raises(ZeroDivisionError):
    judge.predict_one(pictures(tmp_path / "in", slices), tmp_path)
  (arrays, seg, size, spacing, place, field, unit, _), = seen
  for array, want in zip(arrays, slices, strict=True):
    np.testing.assert_array_equal(array, want.T[:, :, None])
  assert (seg, size, place, field, unit) == (None, (48, 60), "anatomy", 120.0, "balanced")
  assert spacing == (120 / 52,) * 3


def test_a_picture_of_a_slice_passes_the_gate_and_is_drawn(tmp_path, drawn):
  judge = model(overlay_slices=1)
  judge.predict_one(pictures(tmp_path / "in", [v[:, :, 4].T for v in egg()]), tmp_path)
  (form, first), (content, seen, shape) = judge.gate.asked
  assert (form, content) == ("form", "content") and first == seen and first.apart and first.planes == 2
  assert shape == (1, 48, 60, 2)
  flair = egg()[0][:, :, 4]
  unit = np.sqrt(2 * np.median(flair[flair > 0]) * np.quantile(flair[flair > 0], 0.99))
  (grey, picture), = drawn[0]["cells"]
  large = lambda a: panels.enlarge(a, 5)  # 52 pixels become 240 or more
  np.testing.assert_array_equal(grey, panels.grey(large(flair.T / unit), WINDOW))
  anomaly, mask = (np.asarray(Image.open(tmp_path / f"s_{k}")) for k in ("anomaly.tif", "mask.png"))
  heat = panels.heat_overlay(large(flair.T / unit), large(anomaly), WINDOW, TOP)
  want = panels.outline(heat, large(mask > 0))
  assert (picture == want).mean() > 0.999
  (caption,) = drawn[0]["captions"]
  assert caption.startswith("score ") and caption.endswith("; outline: above the threshold")


def test_pictures_of_one_slice_have_one_size_and_each_modality_its_own(tmp_path):
  slices = [v[:, :, 4].T for v in egg()]
  scan = pictures(tmp_path / "in", [slices[0], slices[1][:, 1:]])
  with pytest.raises(UserError, match="the images of s differ in size"):
    model().predict_one(scan, tmp_path)
  del scan.files["t1"]
  with pytest.raises(UserError, match="s has no t1 image"):
    model().predict_one(scan, tmp_path)


def test_a_packed_picture_has_the_modalities_as_its_channels(tmp_path):
  judge = model()
  judge.modalities = ("t1", "flair", "t2")
  packed = np.stack([egg()[0][:, :, 4].T] * 3, -1) / 4 * [1.0, 0.8, 0.6]
  Image.fromarray(packed.astype(np.uint8)).save(tmp_path / "s.png")
  scan, = inputs.find_all(tmp_path / "s.png", judge.modalities, ("nifti", "image"))[0]
  judge.predict_one(scan, tmp_path)
  assert judge.gate.asked[0][1].planes == 3 and not judge.gate.asked[0][1].apart
  assert judge.gate.asked[1][2] == (1, 48, 60, 3)


# ---------------------------------------------------------------------------------- single images
def test_an_image_passes_the_gate_and_is_drawn_in_the_window_of_the_model(tmp_path, drawn, monkeypatch):
  judge = model(overlay_slices=1)
  with judge.config.unlocked():
    judge.config.data.window = (1000, 3000)
  judge.modalities, judge.image_shape = (), (8, 8, 1)
  deep = np.linspace(500, 3500, 77).reshape(7, 11).round().astype(np.uint16)
  Image.fromarray(deep).save(tmp_path / "x.png")
  colour = np.stack([deep / 8, deep / 16, deep / 32], -1).astype(np.uint8)
  Image.fromarray(colour).save(tmp_path / "y.png")
  prepared, placed = np.ones((8, 8, 1), np.float32), []
  monkeypatch.setattr(predictor.datasets, "module", lambda name: dataclasses.make_dataclass("Module", [])())
  module = predictor.datasets.module("x")
  module.read_example = lambda path, data, shape: prepared if shape == (8, 8, 1) else None
  module.place_map = lambda maps, shape, data: placed.append(shape) or np.full(shape, 0.75)
  monkeypatch.setattr(predictor.datasets, "module", lambda name: module)
  judge.score_fn = lambda b: {"map": b["image"], "score": b["image"].max((1, 2, 3))}
  scan, = inputs.find_all(tmp_path / "x.png", (), ("image",))[0]
  row = judge.predict_one(scan, tmp_path)
  (form, first), (content, second, shape) = judge.gate.asked
  assert (form, content, first.kind, shape) == ("form", "content", "image", (1, 8, 8, 1)) and second == first
  assert set(placed) == {(7, 11)} and row["mask_pixels"] == 77 and row["map_max"] == 0.75
  (grey, _), = drawn[0]["cells"]
  large = lambda a: panels.enlarge(a, 22)  # 11 pixels become 240 or more
  np.testing.assert_array_equal(grey, panels.grey(large(np.clip((deep - 1000.0) / 2000, 0, 1)), WINDOW))
  judge.predict_one(inputs.find_all(tmp_path / "y.png", (), ("image",))[0][0], tmp_path)
  wanted = panels.grey(large(colour.mean(-1) / 255), WINDOW)  # of a colour picture the mean of its channels
  np.testing.assert_allclose(np.int32(drawn[1]["cells"][0][0]), np.int32(wanted), atol=1)


def test_a_method_without_maps_writes_its_score_and_nothing_else(tmp_path):
  judge = model()
  judge.score_fn = lambda b: {"score": b["image"].max((1, 2, 3))}
  row = judge.predict_one(pictures(tmp_path / "in", [v[:, :, 4].T for v in egg()]), tmp_path / "out")
  assert row["score"] > 0 and "mask_pixels" not in row and not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------- layouts
@pytest.mark.parametrize("layout, objects", [("files", ["flair"]), ("bids", [])])
def test_dicom_objects_are_written_of_the_first_modality_and_not_into_a_bids_data_set(
    tmp_path, monkeypatch, layout, objects):
  seen, told = [], []
  monkeypatch.setattr(predictor.DicomResults, "write",
                      lambda self, scan, modality, *_: seen.append(modality) or {})
  monkeypatch.setattr(predictor.DicomResults, "announce", lambda self, scans: told.append(len(scans)))
  judge = model(layout=layout)
  scan_of(tmp_path / "in")
  judge.begin(tmp_path, {"input": str(tmp_path / "in")})
  scan, = judge.find_inputs(tmp_path / "in")
  judge.predict_one(scan, tmp_path)
  assert seen == objects and told == [1] * len(objects)


@pytest.mark.parametrize("modalities, apart", [((sequences.ANY,), True), (("flair",), False), (NAMES, False)])
def test_of_a_model_of_any_sequence_each_volume_of_a_session_is_a_scan(modalities, apart):
  made = stand_in().config.copy_and_resolve_references()
  with made.unlocked():
    made.predict.layout, made.data.modalities = "bids", modalities
  assert predictor.Predictor(made, CALIBRATION, None)._layout._apart == apart


def test_slices_are_prepared_for_the_size_that_the_checkpoint_notes(monkeypatch):
  """A config may give one number, or none that is true any more."""
  judge = model()
  assert judge._size() == (48, 60)
  judge.image_shape = (32, 40, 2)
  assert judge._size() == (32, 40)
  judge.image_shape = None
  with judge.config.unlocked(), judge.config.data.ignore_type():
    judge.config.data.image_size = 24
  assert judge._size() == (24, 24)


def test_no_picture_of_an_image_that_nobody_asked_for(tmp_path):
  model().predict_one(pictures(tmp_path / "in", [v[:, :, 4].T for v in egg()]), tmp_path)
  assert (tmp_path / "s_anomaly.tif").is_file() and not (tmp_path / "s_overlay.png").exists()
