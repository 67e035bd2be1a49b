"""predict: results on the input's own grid, orientation and depth; nothing overwritten."""

import csv
import gzip
import json
import pathlib
import shutil

import jax
import nibabel
import numpy as np
from PIL import Image
import pytest

from data_pipelines.brains import inputs, normalise
from data_pipelines.formats import images
from medae_jax import evaluate, predict
from medae_jax.core import calibration, trained
from tests.unit import fake_run
from tests.watched import watch

SHAPE = fake_run.SHAPE


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A workdir that has been evaluated."""
  folder = fake_run.make(tmp_path_factory.mktemp("run"))
  evaluate.evaluate(folder)
  return folder


def brain(seed=0, shape=SHAPE, slices=4):
  """Two modalities [H,W,Z] with a bright square in the second slice."""
  rng = np.random.default_rng(seed)
  volume = rng.uniform(0.2, 0.45, (2, *shape, slices))
  volume[:, :, :2] = 0
  volume[:, 4:11, 8:16, 1] = 0.95
  volume[:, 0, 5, 0] = 2.0  # the 99th percentile stays near the square's intensity
  return np.round(volume * 1000).astype(np.int16)


def save(folder, volume, affine=None, name="p1", codes=(1, 1), names=("flair", "t1")):
  """Writes <folder>/<name>_<modality>.nii.gz."""
  folder.mkdir(parents=True, exist_ok=True)
  affine = np.diag([-1.5, -2, 3, 1]) if affine is None else affine
  for array, modality in zip(volume, names, strict=True):
    image = nibabel.Nifti1Image(array, affine)
    image.set_sform(affine, codes[0])
    image.set_qform(affine if codes[1] else None, codes[1])
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, folder / f"{name}_{modality}.nii.gz")


def rotated():
  """An affine with a rotation, unequal spacing and an offset."""
  angle = 0.3
  sin, cos = np.sin(angle), np.cos(angle)
  turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
  affine = np.eye(4)
  affine[:3, :3] = turn @ np.diag([0.7, -1.3, 4.5])
  affine[:3, 3] = [-80.5, 33, 12]
  return affine


def go(run, source, out, **more):
  return predict.predict(run, {"predict.input": str(source), "predict.output": str(out), **more})


def test_predict_reads_members_of_the_protocol_only(run, tmp_path, monkeypatch):
  read = watch(monkeypatch)
  save(tmp_path / "in", brain())
  go(run, tmp_path / "in", tmp_path / "out")
  assert read == {"prepare", "score", "score_needs", "score_optional"}


@pytest.mark.parametrize("affine,codes", [(None, (1, 1)), (rotated(), (2, 0)), (rotated(), (4, 1)),
                                          (None, (0, 0))])
def test_results_lie_on_the_grid_of_the_input(run, tmp_path, affine, codes):
  save(tmp_path / "in", brain(), affine, codes=codes)
  rows = go(run, tmp_path / "in", tmp_path / "out")
  source = nibabel.load(tmp_path / "in/p1_flair.nii.gz")
  for kind, dtype in (("anomaly", np.float32), ("mask", np.uint8)):
    found = nibabel.load(tmp_path / f"out/p1_{kind}.nii.gz")
    assert found.shape == source.shape and found.get_data_dtype() == dtype
    np.testing.assert_array_equal(found.affine, source.affine)
    np.testing.assert_allclose(found.header.get_zooms(), source.header.get_zooms())
    assert found.header["sform_code"] == source.header["sform_code"]
    assert found.header["qform_code"] == source.header["qform_code"]
    assert found.header.get_xyzt_units() == source.header.get_xyzt_units()
    assert nibabel.aff2axcodes(found.affine) == nibabel.aff2axcodes(source.affine)
    scale = calibration.read(run)["map_max"] if kind == "anomaly" else 1  # one for all pictures of the run
    assert (found.header["cal_min"], found.header["cal_max"]) == (0, pytest.approx(scale))
    assert found.header.get_intent()[0] == {"anomaly": "estimate", "mask": "label"}[kind]
    assert found.header["descrip"].item().startswith(b"medae_jax")
  mask = np.asarray(nibabel.load(tmp_path / "out/p1_mask.nii.gz").dataobj)
  assert mask[5:10, 9:15, 1].all() and mask.sum() <= 7 * 8
  assert rows[0]["highest_slice"] == 1 and rows[0]["mask_voxels"] == mask.sum()
  size = abs(np.linalg.det(source.affine[:3, :3])) / 1000
  assert rows[0]["mask_ml"] == pytest.approx(mask.sum() * size)
  assert (tmp_path / "out/p1_overlay.png").stat().st_size > 1000


@pytest.mark.parametrize("unit", normalise.UNITS)
def test_maps_equal_score_on_the_prepared_slices(run, tmp_path, unit):
  """At the model's own size nothing is interpolated: predict gives what evaluate scores."""
  volume = brain(3)
  save(tmp_path / "in", volume)
  run = shutil.copytree(run, tmp_path / "run")
  config = json.loads((run / "config.json").read_text())
  (run / "config.json").write_text(json.dumps({**config, "data": {**config["data"], "unit": unit}}))
  go(run, tmp_path / "in", tmp_path / "out")
  opened = trained.load(run)
  prepared = normalise.prepare(list(volume.astype(np.float64)), None, SHAPE, unit=unit)
  want = jax.jit(opened.method.score)(opened.state, {"image": prepared.image.astype(np.float32)})
  found = np.asarray(nibabel.load(tmp_path / "out/p1_anomaly.nii.gz").dataobj)
  np.testing.assert_allclose(found[:, :, prepared.slices],
                             np.moveaxis(np.asarray(want["map"])[..., 0], 0, -1), atol=1e-7)
  threshold = calibration.read(run)["threshold"]
  mask = np.asarray(nibabel.load(tmp_path / "out/p1_mask.nii.gz").dataobj) > 0
  np.testing.assert_array_equal(mask, found > np.float32(threshold))
  assert opened.config.eval.components == 3


def test_other_in_plane_size_and_empty_slices(run, tmp_path):
  """The map comes back to a native size of twice the model's, 0 in slices without brain."""
  volume = np.zeros((2, 32, 40, 7), np.int16)
  volume[:, :, :, 2:6] = brain().repeat(2, 1).repeat(2, 2)
  save(tmp_path / "in", volume)
  go(run, tmp_path / "in", tmp_path / "out")
  found = np.asarray(nibabel.load(tmp_path / "out/p1_anomaly.nii.gz").dataobj)
  assert found.shape == (32, 40, 7)
  assert not found[..., [0, 1, 6]].any() and found[12:20, 20:28, 3].min() > 0.1


def test_volumes_of_another_orientation_are_turned_when_asked(run, tmp_path):
  """The same head stored as RAS gives the same map, flipped back to RAS."""
  volume = brain(5)
  save(tmp_path / "lps", volume, np.diag([-1.0, -1, 1, 1]))
  save(tmp_path / "ras", volume[:, ::-1, ::-1], np.diag([1.0, 1, 1, 1]))
  go(run, tmp_path / "lps", tmp_path / "out1", **{"predict.orientation": "LPS"})
  go(run, tmp_path / "ras", tmp_path / "out2", **{"predict.orientation": "LPS"})
  for kind in ("anomaly", "mask"):
    one, two = (np.asarray(nibabel.load(tmp_path / f"{out}/p1_{kind}.nii.gz").dataobj)
                for out in ("out1", "out2"))
    np.testing.assert_array_equal(one, two[::-1, ::-1])
  with pytest.raises(ValueError, match="predict.orientation='XYZ': it must be axes such as LPS"):
    go(run, tmp_path / "ras", tmp_path / "out3", **{"predict.orientation": "XYZ"})


def test_ways_to_name_the_input(run, tmp_path):
  folder = tmp_path / "in"
  save(folder / "a", brain(1), name="a")
  save(folder / "b", brain(2), name="b", names=("t2f", "t1n"))
  both = np.moveaxis(brain(2), 0, -1)
  nibabel.save(nibabel.Nifti1Image(both, np.eye(4)), folder / "both.nii.gz")
  nibabel.save(nibabel.Nifti1Image(both[..., 0], np.eye(4)), folder / "a" / "a_seg.nii.gz")
  names = lambda path: [s.name for s in inputs.find(path, ("flair", "t1"))]
  assert names(folder) == ["a", "b", "both"]
  assert names(folder / "a" / "a_t1.nii.gz") == ["a"]
  assert names(folder / "both.nii.gz") == ["both"]
  (folder / "manifest.csv").write_text("patient,split,t1,flair\n"
                                       "x,test,a/a_t1.nii.gz,a/a_flair.nii.gz\n")
  assert names(folder) == ["x"]
  rows = go(run, folder, tmp_path / "out")
  assert [r["input"] for r in rows] == ["x"]
  (folder / "manifest.csv").unlink()
  go(run, folder, tmp_path / "out")
  for kind in ("anomaly", "mask"):  # the 4-D file holds patient b
    one, two = (np.asarray(nibabel.load(tmp_path / f"out/{n}_{kind}.nii.gz").dataobj)
                for n in ("b", "both"))
    np.testing.assert_array_equal(one, two)


def test_results_in_the_input_folder_are_not_inputs(run, tmp_path):
  save(tmp_path, brain())
  before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
  for _ in range(2):
    rows = go(run, tmp_path, tmp_path)
    assert [r["input"] for r in rows] == ["p1"]
  for name, data in before.items():
    assert (tmp_path / name).read_bytes() == data


def test_never_overwrites_an_input(run, tmp_path):
  save(tmp_path, brain(), name="x")
  (tmp_path / "manifest.csv").write_text("patient,flair,t1\nx,x_flair.nii.gz,x_anomaly.nii.gz\n")
  (tmp_path / "x_t1.nii.gz").rename(tmp_path / "x_anomaly.nii.gz")
  before = (tmp_path / "x_anomaly.nii.gz").read_bytes()
  with pytest.raises(ValueError, match="would overwrite the input"):
    go(run, tmp_path, tmp_path)
  assert (tmp_path / "x_anomaly.nii.gz").read_bytes() == before
  assert not (tmp_path / "x_mask.nii.gz").exists()


def test_bad_inputs_are_named_and_the_rest_goes_on(run, tmp_path):
  folder, out = tmp_path / "in", tmp_path / "out"
  good = brain()
  save(folder / "good", good, name="good")
  save(folder / "lacks", good[:1], name="lacks", names=("flair",))
  save(folder / "zero", 0 * good, name="zero")
  save(folder / "cut", good, name="cut")
  data = (folder / "cut/cut_t1.nii.gz").read_bytes()
  (folder / "cut/cut_t1.nii.gz").write_bytes(data[:len(data) // 2])
  save(folder / "junk", good, name="junk")
  (folder / "junk/junk_t1.nii.gz").write_bytes(gzip.compress(b"no volume"))
  nan = good.astype(np.float32)
  nan[0, 5, 5, 1] = np.nan
  save(folder / "nan", nan, name="nan")
  save(folder / "grid", good[:1], name="grid", names=("flair",))
  save(folder / "grid", good[:1], np.eye(4), name="grid", names=("t1",))
  save(folder / "shape", good[:1], name="shape", names=("flair",))
  save(folder / "shape", good[:1, :-1], name="shape", names=("t1",))
  with pytest.raises(ValueError, match="7 of 8 inputs failed"):
    go(run, folder, out)
  rows = {r["input"]: r["error"] for r in csv.DictReader(open(out / "predictions.csv"))}
  expected = {"good": "", "lacks": "no t1 volume", "zero": "no positive voxel", "nan": "1 NaN",
              "cut": "not a readable", "junk": "corrupt", "grid": "another grid",
              "shape": "another grid"}
  assert set(rows) == set(expected)
  for name, reason in expected.items():
    assert reason in rows[name] and "\n" not in rows[name], (name, rows[name])
  assert {p.name for p in out.iterdir()} == {"good_anomaly.nii.gz", "good_mask.nii.gz",
                                             "good_overlay.png", "predictions.csv", "predictions.html",
                                             "results.csv"}


def test_without_calibration_no_mask_is_made_up(run, tmp_path):
  other = fake_run.make(tmp_path / "other")
  save(tmp_path / "in", brain())
  rows = go(other, tmp_path / "in", tmp_path / "out")
  assert rows[0]["threshold"] is None and not (tmp_path / "out/p1_mask.nii.gz").exists()
  assert (tmp_path / "out/p1_anomaly.nii.gz").exists()
  rows = go(other, tmp_path / "in", tmp_path / "out", **{"predict.threshold": 0.175})
  assert rows[0]["mask_voxels"] > 0


def test_one_clear_line(run, tmp_path):
  for source, error, words in ((tmp_path / "no", FileNotFoundError, "does not exist"),
                               (tmp_path, ValueError, "holds no NIfTI volume")):
    with pytest.raises(error, match=words) as found:
      go(run, source, tmp_path / "out")
    assert "\n" not in str(found.value)
  with pytest.raises(ValueError, match="nothing to predict"):
    predict.predict(run, {})
  with pytest.raises(ValueError, match="there is no 'inputs'"):
    predict.predict(run, {"predict.inputs": "x"})


def test_slices_as_images(run, tmp_path):
  """Images show the front up: [rows, columns] is the transpose of a volume's first two axes."""
  volume = brain(7)
  save(tmp_path / "in", volume[:, :, :, 1:2])
  folder = tmp_path / "png"
  folder.mkdir()
  for array, modality in zip(volume, ("flair", "t1"), strict=True):
    Image.fromarray(array[:, :, 1].T.astype(np.uint16)).save(folder / f"s_{modality}.png")
  go(run, tmp_path / "in", tmp_path / "out")
  rows = go(run, folder, tmp_path / "out")
  assert rows[0]["mask_pixels"] > 0
  want = np.asarray(nibabel.load(tmp_path / "out/p1_anomaly.nii.gz").dataobj)[:, :, 0].T
  with Image.open(tmp_path / "out/s_anomaly.tif") as image:
    np.testing.assert_allclose(np.asarray(image), want, atol=1e-6)
  mask = np.asarray(Image.open(tmp_path / "out/s_mask.png"))
  assert mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 255}
  assert mask.shape == (20, 16)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_a_two_dimensional_method(tmp_path, channels):
  c = fake_run.config(splits=("test",), modalities=(), image_size=(16, 20), channels=channels)
  folder = fake_run.write(tmp_path / "run", c)
  array = np.full((32, 44), 20_000, np.uint16)
  array[8:20, 10:30] = 60_000
  (tmp_path / "in").mkdir()
  Image.fromarray(array).save(tmp_path / "in/deep.tif")
  Image.fromarray((array // 257).astype(np.uint8)).save(tmp_path / "in/grey.png")
  Image.fromarray((array // 257).astype(np.uint8)).convert("RGB").save(tmp_path / "in/colour.png")
  (tmp_path / "in/broken.png").write_bytes(b"\x89PNG but no more")
  with pytest.raises(ValueError, match="1 of 4 inputs failed, the first: broken"):
    go(folder, tmp_path / "in", tmp_path / "out", **{"predict.threshold": 0.1})
  maps = [np.asarray(Image.open(tmp_path / f"out/{name}_anomaly.tif"))
          for name in ("deep", "grey", "colour")]
  for found in maps:
    assert found.shape == (32, 44) and found[13, 20] > 0.3 and found[1, 1] == 0
    np.testing.assert_allclose(found, maps[0], atol=4e-3)  # 8 bits against 16


def test_image_files(tmp_path):
  path = tmp_path / "x.tif"
  pages = [Image.fromarray(np.zeros((4, 4), np.uint8))] * 2
  pages[0].save(path, save_all=True, append_images=pages[1:])
  with pytest.raises(ValueError, match="2 pages"):
    images.read_values(path)
  Image.fromarray(np.zeros((4, 4, 4), np.uint8)).save(tmp_path / "rgba.png")
  assert images.read_values(tmp_path / "rgba.png", 3).shape == (4, 4, 3)
  with pytest.raises(ValueError, match="3 channel"):
    images.read_values(tmp_path / "rgba.png", 2)
  with pytest.raises(FileNotFoundError):
    images.read_values(pathlib.Path("nowhere.png"))
