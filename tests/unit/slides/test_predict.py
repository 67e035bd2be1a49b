"""Predict on whole slides: the map is right everywhere, opens in viewers, and goes on after a kill."""

import csv
import json

import numpy as np
from PIL import Image
import pytest
import tifffile

from data_pipelines.errors import UserError
from data_pipelines.slides import plan, reader
from medae_jax import predict
from medae_jax.tasks.slides import work as work_lib
from medae_jax.tasks.slides.scorer import Scorer
from tests import slide_files
from tests.unit.slides import green

IMAGE = green.image()
FILES = ("anomaly.tif", "fields.csv", "fields.png", "heat.tif", "overlay.png", "regions.geojson",
         "slide.json")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  return green.make(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
  return slide_files.write_slide(tmp_path_factory.mktemp("in") / "s.tif", IMAGE)


def go(run, source, out, **more):
  return predict.predict(run, {"predict.input": str(source), "predict.output": str(out),
                               **{f"predict.slide.{k}": v for k, v in more.items()}})


@pytest.fixture(scope="module")
def done(run, slide, tmp_path_factory):
  """(folder of results, row) of the slide at x20, undisturbed."""
  out = tmp_path_factory.mktemp("out")
  return out, go(run, slide, out)[0]


def expected(image, side):
  """The map of the whole image in closed form, `side` level-0 pixels a pixel; the last ones are padded."""
  pad = [(0, -n % side) for n in image.shape[:2]]
  values = 1 - np.pad(image[..., 1], pad, constant_values=255) / 255
  return values.reshape(values.shape[0] // side, side, -1, side).mean((1, 3))


def test_the_map_is_right_where_there_is_tissue_and_0_elsewhere(done):
  found = tifffile.imread(done[0] / "s_anomaly.tif")
  wanted = expected(IMAGE, 16)  # x20: 2 pixels of level 0; a pixel of the map is 8 of them
  assert found.shape == wanted.shape == (33, 44) and found.dtype == np.float32
  looked = found > 0
  np.testing.assert_allclose(found[looked], wanted[looked], atol=0.01)
  rows, columns = (slice(s.start // 16 + 1, s.stop // 16) for s in green.LESION)
  assert looked[rows, columns].all() and 0.3 < looked.mean() < 0.6 and looked[14:18, 0].all()


def test_viewers_open_the_results(done):
  out, row = done
  assert sorted(p.name for p in out.iterdir()) == sorted(
      [*(f"s_{f}" for f in FILES), "predictions.csv", "predictions.html", "results.csv"])
  with reader.open_slide(out / "s_heat.tif") as heat:
    assert (heat.engine, heat.width, heat.height, heat.mpp) == ("openslide", 44, 33, 4)
    pixels = heat.read(0, 0, 0, 44, 33)
  assert pixels[15, 25].sum() > pixels[15, 40].sum() and pixels[0, 0].max() < 5
  assert np.asarray(Image.open(out / "s_overlay.png")).shape[2] == 3
  table = list(csv.DictReader(open(out / "s_fields.csv")))
  assert len(table) == 20 and float(table[0]["score"]) == pytest.approx(row["tile_max"], rel=1e-5)
  x, y, side = (int(table[0][k]) for k in ("x", "y", "width"))
  assert side == 64 and IMAGE[y:y + side, x:x + side, 1].mean() == pytest.approx(60, abs=40)
  record = json.loads((out / "s_slide.json").read_text())
  assert record["plan"]["downsample"] == 2 and record["mpp"] == 0.25 and record["vendor"] == "generic-tiff"
  assert row["tiles"] == record["plan"]["tiles"] and row["regions"] >= 1


def test_regions_lie_on_the_lesion(done):
  found = json.loads((done[0] / "s_regions.geojson").read_text())
  first = found["features"][0]
  ring = np.array(first["geometry"]["coordinates"][0])
  (top, left), (bottom, right) = ring.min(0)[::-1], ring.max(0)[::-1]
  truth = [green.LESION[0].start, green.LESION[1].start, green.LESION[0].stop, green.LESION[1].stop]
  assert np.abs(np.array([top, left, bottom, right]) - truth).max() <= 16
  assert first["properties"]["classification"]["name"] == "Anomaly"
  assert first["properties"]["measurements"]["max"] == pytest.approx(1 - 60 / 255, abs=0.01)


def same_results(a, b):
  names = sorted(p.name for p in a.iterdir() if p.name != "results.csv")
  assert names == sorted(p.name for p in b.iterdir() if p.name != "results.csv")
  for name in names:
    assert (a / name).read_bytes() == (b / name).read_bytes(), name


def test_a_killed_run_goes_on_with_equal_results(run, slide, done, tmp_path, monkeypatch):
  scored, start, put = [], Scorer.start, work_lib.Work.put
  monkeypatch.setattr(Scorer, "start", lambda self, batch: scored.append(1) or start(self, batch))
  monkeypatch.setattr(work_lib, "_EVERY", 0)

  def dies(self, batch, *rest):
    put(self, batch, *rest)
    if batch == 2:
      raise SystemExit
  monkeypatch.setattr(work_lib.Work, "put", dies)
  with pytest.raises(SystemExit):
    go(run, slide, tmp_path)
  monkeypatch.setattr(work_lib.Work, "put", put)
  before = len(scored)
  assert (tmp_path / ".s_unfinished").is_dir()
  assert go(run, slide, tmp_path)[0] == done[1]
  batches = -(-done[1]["tiles"] // 4)
  assert len(scored) - before == batches - 3 and batches > 4
  same_results(tmp_path, done[0])
  go(run, slide, tmp_path)  # finished: nothing is scored again
  assert len(scored) - before == batches - 3
  same_results(tmp_path, done[0])
  go(run, slide, tmp_path, tissue=0.5)  # another question: everything is
  assert len(scored) - before > batches - 2


def test_damaged_levels_cost_no_result(slide, tmp_path):
  run = green.make(tmp_path / "run", magnification=10.0)
  bad = slide_files.write_slide(tmp_path / "s.tif", IMAGE, bad_levels=(1, 2))
  row = go(run, bad, tmp_path / "out")[0]
  good = go(run, slide, tmp_path / "good")[0]
  assert row["score"] == pytest.approx(good["score"], abs=2e-3) and row["tiles"] == good["tiles"]


def test_scores_of_tiles_as_the_map(tmp_path, slide):
  run = green.make(tmp_path / "run", "ScoreOnly", margin=8)
  row = go(run, slide, tmp_path / "out")[0]
  found = tifffile.imread(tmp_path / "out" / "s_anomaly.tif")
  assert row["map_max"] == row["tile_max"] and found.max() == pytest.approx(row["tile_max"])
  assert found.shape == (260 // 8 + 1, 350 // 8 + 1)  # cores of 16, half of which is a pixel
  run = green.make(tmp_path / "run2")
  go(run, slide, tmp_path / "out2", map="tiles")
  assert tifffile.imread(tmp_path / "out2" / "s_anomaly.tif").shape == (9, 11)


def test_segmentation_gives_probabilities(tmp_path, slide):
  run = green.make(tmp_path / "run", "Segmenter", kind="segmentation", tile=64, magnification=40)
  row = go(run, slide, tmp_path / "out")[0]
  found = tifffile.imread(tmp_path / "out" / "s_prob.tif")
  inside = found[22:36, 43:58]
  assert inside.min() > 0.95 and found.min() >= 0 and row["regions"] >= 1 and row["threshold"] == 0.5


def test_what_a_centre_crop_does_not_see_is_context(tmp_path, slide):
  run = green.make(tmp_path / "run", crop=32)
  row = go(run, slide, tmp_path / "out", tile=48)[0]
  record = json.loads((tmp_path / "out" / "s_slide.json").read_text())
  assert record["plan"]["margin"] == 8 and row["tiles"] > 10
  found = tifffile.imread(tmp_path / "out" / "s_anomaly.tif")
  np.testing.assert_allclose(found[found > 0], expected(IMAGE, 16)[found > 0], atol=0.01)


REFUSED = [
    (dict(image=slide_files.blank(600, 600)), {}, "has no tissue"),
    (dict(image=IMAGE, mpp=None), {}, "does not say how many micrometres a pixel is"),
    (dict(image=IMAGE, mpp=1.0), {}, "coarser than the 20 that are asked for"),
    (dict(image=IMAGE, bad_levels=(0, 1, 2)), {}, "is damaged: level 0 cannot be read"),
    (dict(image=IMAGE, deep=12), {}, "10, 12 or 14 bits look so"),
    (dict(image=IMAGE), dict(margin=16), "nothing is left of a tile of 32"),
    (dict(image=IMAGE), dict(pixel=5), "pixel=5 does not divide the 32 pixels"),
]


@pytest.mark.parametrize("made, asked, line", REFUSED, ids=[r[2][:20] for r in REFUSED])
def test_refusals_name_the_slide_and_leave_nothing(run, tmp_path, made, asked, line):
  (tmp_path / "in").mkdir()
  slide_files.write_slide(tmp_path / "in" / "s.tif", **made)
  with pytest.raises(UserError, match=line):
    go(run, tmp_path / "in", tmp_path / "out", **asked)
  left = [p.name for p in (tmp_path / "out").iterdir()]
  assert not [n for n in left if not n.startswith(("predictions.", "left_out"))]


def test_more_refusals(run, slide, tmp_path, monkeypatch):
  (tmp_path / "a.svs").write_bytes(b"nothing")
  with pytest.raises(UserError, match="a.svs is no slide that can be read"):
    go(run, tmp_path / "a.svs", tmp_path / "out")

  def full(*_):
    raise OSError(28, "No space left on device")
  monkeypatch.setattr(work_lib.os, "posix_fallocate", full)
  with pytest.raises(UserError, match=r"has no room for 0\.0 MB of a slide's map \(No space"):
    go(run, slide, tmp_path / "out2")


def test_a_folder_with_slides_and_images(run, slide, tmp_path):
  source = tmp_path / "in"
  source.mkdir()
  (source / "b.tif").write_bytes(slide.read_bytes())
  Image.fromarray(IMAGE[:64, :64]).save(source / "patch.png")
  Image.fromarray(IMAGE[:64, :64]).save(source / "patch.tif")
  rows = go(run, source, source / "out")
  assert [r["input"] for r in rows] == ["b.tif"]
  left = {r["file"]: r["reason"] for r in csv.DictReader(open(source / "out" / "left_out.csv"))}
  assert left == dict.fromkeys(("patch.png", "patch.tif"), "is no slide; predict images by themselves")
  assert [p.name for p in plan.find(source).files] == ["b.tif"]  # results are no inputs


def test_a_run_on_volumes_says_that_slides_are_none(slide, tmp_path):
  from tests.unit import fake_run
  (tmp_path / "run").mkdir()
  with pytest.raises(UserError, match="does not score image patches .it was trained on slices of volumes"):
    predict.predict(fake_run.make(tmp_path / "run"), {"predict.input": str(slide)})
