"""Where voxels lie: one scan stored in many ways gives one map; what does not fit is refused by name."""

import nibabel
import numpy as np
import pytest

from data_pipelines.brains import inputs, normalise, prepare_scan, records, slices
from data_pipelines.errors import UserError
from data_pipelines.intake import geometry
from medae_jax.tasks.anomaly.written import overlays
from tests.stored_volumes import LPS, NAMES, ORDERS, egg, moved, predicted, predictor, save, stored, write


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  """(row, map, mask) of the egg as BraTS stores brains."""
  path = tmp_path_factory.mktemp("base")
  found = predicted(write(path / "in", egg()), path / "out")
  assert found[1].max() > 0.5 and 0 < found[2].sum() < 2000
  return found


# ------------------------------------------------------------------------------- equal anatomy
@pytest.mark.parametrize("placement", ["scan", "anatomy"])
def test_every_order_of_axes_gives_one_map_on_its_own_grid(tmp_path, placement):
  want = predicted(write(tmp_path / "in", egg()), tmp_path / "out", placement=placement)
  for codes in ORDERS:
    arrays, affine = zip(*(stored(v, codes) for v in egg()))
    folder = write(tmp_path / codes, arrays, affine=affine[0], codes=((1, 0), (0, 1))[codes[0] in "LR"])
    row, anomaly, _ = predicted(folder, tmp_path / f"out{codes}", placement=placement)
    assert anomaly.shape == arrays[0].shape and row["orientation"] == codes
    np.testing.assert_allclose(anomaly, stored(want[1], codes)[0], atol=1e-5, err_msg=codes)
    assert row["mask_ml"] == pytest.approx(want[0]["mask_ml"], rel=0.01)


def cut(volumes, *box):
  return [v[tuple(slice(*b) for b in box)] for v in volumes]


# name: (volumes of the egg -> volumes, first voxel of the old grid in the new one)
CROPS = {
    "cut on all sides": (lambda v: cut(v, (5, 36), (4, 48), (0, 9)), (5, 4, 0)),
    "cut on one side": (lambda v: cut(v, (5, 40), (0, 52), (0, 9)), (5, 0, 0)),
    "cut to the anatomy": (lambda v: cut(v, (6, 34), (5, 47), (0, 9)), (6, 5, 0)),
    "empty slices added": (lambda v: [np.pad(a, ((0, 0), (0, 0), (3, 1))) for a in v], (0, 0, -3)),
    "padded evenly": (lambda v: [np.pad(a, ((9, 9), (9, 9), (0, 0))) for a in v], (-9, -9, 0)),
    "padded on one side": (lambda v: [np.pad(a, ((0, 33), (0, 0), (0, 0))) for a in v], (0, 0, 0)),
    "padded to a square": (lambda v: [np.pad(a, ((6, 6), (0, 0), (0, 0))) for a in v], (-6, 0, 0)),
    "cut and padded": (lambda v: [np.pad(a[5:36], ((0, 0), (7, 0), (0, 2))) for a in v], (5, -7, 0)),
}


@pytest.mark.parametrize("name", CROPS)
def test_crops_and_margins_do_not_matter(base, tmp_path, name):
  change, start = CROPS[name]
  volumes = change(egg())
  row, anomaly, _ = predicted(write(tmp_path / "in", volumes, affine=moved(LPS, start)), tmp_path / "out")
  # Both maps on one large grid, compared where both are; the rest of the old one is background.
  place = lambda m, at: _placed(m, (120, 140, 30), np.array(at) + (40, 40, 10))
  new, old = place(anomaly, start), place(base[1], (0, 0, 0))
  both = np.isfinite(new) & np.isfinite(old)
  np.testing.assert_allclose(new[both], old[both], atol=1e-5)
  assert np.count_nonzero(old[both]) > 0.98 * np.count_nonzero(base[1])
  assert row["mask_ml"] == pytest.approx(base[0]["mask_ml"], rel=0.02)


def _placed(array, shape, at):
  full = np.full(shape, np.nan)
  full[tuple(slice(a, a + n) for a, n in zip(at, array.shape))] = array
  return full


def test_oblong_voxels_are_not_squeezed(base, tmp_path):
  """Every row doubled at half the height: the same picture to the network, the same map."""
  doubled = [np.repeat(v, 2, 0) for v in egg()]
  affine = LPS @ np.diag([0.5, 1, 1, 1])
  _, anomaly, _ = predicted(write(tmp_path / "in", doubled, affine=affine), tmp_path / "out")
  assert np.mean(np.abs(anomaly[::2] - base[1])) < 0.02 * base[1].max()


# ------------------------------------------------------------------------------------- refusals
MIRROR = LPS @ np.diag([-1, 1, 1, 1])
OTHER = {
    "mirrored": (lambda v: stored(v, "RPS")[0], lambda: stored(egg()[0], "RPS")[1], "axes RPS against LPS"),
    "turned": (lambda v: stored(v, "PLS")[0], lambda: stored(egg()[0], "PLS")[1], "shape"),
    "affine mirrored, voxels not": (lambda v: v, lambda: MIRROR, "axes RPS against LPS"),
    "shifted by a voxel": (lambda v: v, lambda: moved(LPS, (0, 1, 0)), "2 mm apart"),
    "shifted by half a voxel": (lambda v: v, lambda: moved(LPS, (0.5, 0, 0)), "1 mm apart"),
    "shifted by a slice": (lambda v: v, lambda: moved(LPS, (0, 0, 1)), "5 mm apart"),
    "finer voxels": (lambda v: v, lambda: LPS @ np.diag([0.5, 1, 1, 1]), "voxels of 1 x 2 x 5 mm"),
    "one slice fewer": (lambda v: v[:, :, :-1], lambda: LPS, "shape 40 x 52 x 8 against 40 x 52 x 9"),
    "turned by ten degrees": (lambda v: v, lambda: _turned(10), "affine: corners"),
    "turned by one degree": (lambda v: v, lambda: _turned(1), "affine: corners"),
    "metres, not millimetres": (lambda v: v, lambda: np.diag([1e-3] * 3 + [1]) @ LPS, "voxels of"),
}

SAME = {"rounded to float32": (LPS * (1 + 1e-6)).astype(np.float32),
        "0.04 mm apart": moved(LPS, (0.02, 0, 0))}


def _turned(degrees):
  angle = np.deg2rad(degrees)
  turn = np.eye(4)
  turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
  return turn @ LPS


@pytest.mark.parametrize("which", ["t1", "seg"])
@pytest.mark.parametrize("name", OTHER)
def test_files_on_different_grids_are_refused_by_preparation_and_prediction(tmp_path, name, which):
  change, affine, reason = OTHER[name]
  flair, t1 = egg()
  paths = {"flair": save(tmp_path / "p_flair.nii.gz", flair)}
  other = t1 if which == "t1" else (flair > 800).astype(np.uint8)
  spoiled = save(tmp_path / f"p_{which}.nii.gz", change(other), affine())
  paths.setdefault("t1", spoiled if which == "t1" else save(tmp_path / "p_t1.nii.gz", t1))
  said = prepare_scan.run({
      "patient": "p", "volumes": [str(paths["flair"]), str(paths["t1"])], "modalities": NAMES,
      "seg": str(spoiled) if which == "seg" else None, "size": (48, 60), "storage": "float32",
      "orientation": "LPS", "placement": "scan", "field_mm": 0.0, "unit": "percentile",
      "folder": str(tmp_path), "key": {}})
  assert reason in said["bad"] and spoiled.name in said["bad"] and "another grid" in said["bad"]
  if which == "t1":
    with pytest.raises(UserError, match="another grid") as e:
      predicted(tmp_path, tmp_path / "out")
    assert str(e.value) == said["bad"]


@pytest.mark.parametrize("name", SAME)
def test_rounding_of_headers_is_no_other_grid(name):
  grids = [geometry.Grid("a", (40, 52, 9), LPS), geometry.Grid("b", (40, 52, 9), SAME[name])]
  geometry.check_same_grid(grids)


def test_standardised_intensities_and_too_large_heads_are_refused(tmp_path):
  z_scored = [np.where(v > 0, (v - 450) / 60, 0) for v in egg()]
  with pytest.raises(UserError, match="negative values in .* standardised"):
    predicted(write(tmp_path / "a", z_scored), tmp_path / "out")
  with pytest.raises(UserError, match="anatomy is 80 mm wide, the field 75 mm: set config.data.field_mm"):
    predicted(write(tmp_path / "b", egg()), tmp_path / "out", field_mm=75.0)


def test_a_fault_of_the_picture_does_not_cost_the_map(base, tmp_path, monkeypatch):
  def fail(*_):
    raise RuntimeError("no picture")
  monkeypatch.setattr(overlays, "of_volume", fail)
  model = predictor()
  with model.config.unlocked():
    model.config.predict.overlay_slices = 3
  (tmp_path / "out").mkdir()
  scan, = inputs.find(write(tmp_path / "in", egg()), NAMES)
  model.predict_one(scan, tmp_path / "out")
  found = nibabel.load(tmp_path / "out/p_anomaly.nii.gz").get_fdata()
  np.testing.assert_allclose(found, base[1], atol=1e-6)


def test_slices_beyond_the_published_range_are_named():
  faint = [v.copy() for v in egg()]
  for v in faint:
    v[:, :, 0] = 0
    v[18, 20, 0] = 10  # one weak voxel: below the published sum of a slice
  assert "slices 0 hold anatomy" in normalise.prepare(faint, None, (48, 60)).left_out
  kept = normalise.prepare(faint, None, (48, 60), (2, 2, 5), "anatomy", 120.0)
  assert kept.slices[0] == 0 and not kept.left_out


@pytest.mark.parametrize("codes", ["", "LP", "LLL", "LRS", "XYZ", "lps"])
def test_orientations_that_are_none(codes):
  grid = geometry.Grid("a", (2, 3, 4), LPS)
  if not codes:
    assert geometry.turned(grid, codes) is None
  else:
    with pytest.raises(UserError, match="three letters"):
      geometry.turned(grid, codes)


@pytest.mark.parametrize(("place", "field_mm", "want"), [("scan", 0.0, (40 / 20, 52 / 13)),
                                                         ("anatomy", 160.0, (8.0, 8.0))])
def test_slices_know_how_many_mm_their_pixels_are(tmp_path, place, field_mm, want):
  """Of the scored image, not of the file: voxels of the file are resized to the network's."""
  paths = [save(tmp_path / f"p_{name}.nii.gz", v) for name, v in zip(NAMES, egg())]
  mm = np.abs(np.diag(LPS))[:3]
  (tmp_path / "records").mkdir()
  made = prepare_scan.run({
      "patient": "p", "volumes": list(map(str, paths)), "modalities": NAMES, "seg": None, "size": (20, 13),
      "storage": "float32", "orientation": "LPS", "placement": place, "field_mm": field_mm,
      "unit": "percentile", "folder": str(tmp_path), "key": {"source": [[str(paths[0])]]}})
  source = slices.SliceSource([records.scan_of(tmp_path, made["record"])], False, True)
  assert source.meta(0)["voxel_mm"] == pytest.approx((
      mm[2], *(want if place == "anatomy" else (want[0] * mm[0], want[1] * mm[1]))))


@pytest.mark.parametrize("size, fits", [(0.005, True), (50.0, True), (0.0049, False), (50.1, False)])
def test_voxels_are_of_sizes_of_a_head_or_a_specimen(size, fits):
  for at in range(3):
    grid = geometry.Grid("a", (4, 4, 4), np.diag([*(1.0 if i != at else size for i in range(3)), 1]))
    if fits:
      geometry.check_voxels(grid)
    else:
      with pytest.raises(UserError, match="in another unit"):
        geometry.check_voxels(grid)


@pytest.mark.parametrize("scale, same", [(1 + 0.19 / 99, True), (1 + 0.21 / 99, False)])
def test_the_farthest_corners_are_a_tenth_of_the_smallest_voxel_apart_at_most(scale, same):
  one = geometry.Grid("a", (100, 2, 2), np.diag([2.0, 3, 4, 1]))
  other = geometry.Grid("b", (100, 2, 2), np.diag([2.0 + 2 * (scale - 1) / 2, 3, 4, 1]))
  assert (geometry._difference(one, other) == geometry._difference(other, one) == "") == same
