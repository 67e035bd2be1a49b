"""prepare camelyon16 on tiny slides: every step, every way to run it, what is kept, what is refused."""

import csv
import json
import re
import shutil

import numpy as np
from PIL import Image
import pytest

from data_pipelines import store
from data_pipelines.datasets import camelyon
from data_pipelines.errors import UserError
from data_pipelines.formats import writing
from data_pipelines.prepare import camelyon16
from data_pipelines.slides import annotations, cells, reader, stain
from data_pipelines.slides.camelyon import overview, run, settings as fields, slide_job, source
from tests import slide_files
from tests.unit.slides import camelyon_folder

OPTIONS = ("--border=0", "--per_slide=2", "--workers=1", *camelyon_folder.TARGET)


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
  return camelyon_folder.write(tmp_path_factory.mktemp("camelyon16"))


@pytest.fixture(scope="module")
def prepared(slides, tmp_path_factory):
  target = tmp_path_factory.mktemp("patches")
  go(slides, target)
  return target


@pytest.fixture
def one(slides, tmp_path):
  """A source of its own: normal_001 and tumor_001 of the shared one."""
  shutil.copytree(slides / "training", tmp_path / "source" / "training")
  return tmp_path / "source"


def go(source, target, *more):
  camelyon16.main([f"--source={source}", f"--target={target}", *OPTIONS, *more])


def options(source, target, **more):
  return fields.resolve(fields.Settings(
      str(source), str(target), border=0, per_slide=2, target_slide="normal_001", target_left=768,
      target_top=768, target_side=256, **more))


def files(target):
  """{file: content} of what a preparation leaves, without records and settings."""
  return {str(p.relative_to(target)): p.read_bytes() for p in sorted(target.rglob("*")) if p.is_file()}


def table(target):
  with (target / "manifest.csv").open() as file:
    return list(csv.DictReader(file))


def pixels(path):
  return np.asarray(Image.open(path))


def test_every_patch_is_where_its_name_says(slides, prepared):
  rows = table(prepared)
  assert [r["slide"] for r in rows] == [n for n in ("normal_001", "test_001", "test_002", "tumor_001")
                                        for _ in range(2)]
  for row in rows:
    patch = cells.parse(row["file"].removeprefix("x40/"))
    assert (patch.left, patch.top) == (int(row["left"]), int(row["top"])) and patch.top >= cells.SIDE
    assert row["tissue"] == "1.0" and row["lesion"] == ("1.0" if row["kind"] == "tumor" else "0.0")
    file, = slides.rglob(f"{row['slide']}.tif")
    with reader.open_slide(file) as slide:
      wanted = slide.read(0, patch.left, patch.top, cells.SIDE, cells.SIDE)
    found = pixels(prepared / "patches" / f"{row['kind']}_{row['part']}" / f"{patch.stem}.png")
    np.testing.assert_array_equal(found, wanted)
    assert pixels(prepared / row["file"].replace("x40", "x10")).shape == (192, 192, 3)


def test_tumour_patches_lie_in_the_lesion_and_not_in_its_hole(prepared):
  mask = pixels(prepared / "masks" / "train" / "tumor_001.png")
  assert mask.shape == (9, 9) and (mask[3:6, 3:] == 255).all() and not mask[6:, 6:].any()
  assert mask[4, 2] == 16  # 8 of 256 columns, on a grid of 16: 15.94, rounded
  places = {(r["left"], r["top"]) for r in table(prepared) if r["kind"] == "tumor"}
  assert places <= {("768", "768"), ("1536", "768"), ("768", "1536")}


def test_patches_have_the_stains_of_the_target(prepared):
  target = np.array(json.loads((prepared / "records" / "stain_target.target.json").read_text())["matrix"])
  row = table(prepared)[-1]
  before = pixels(prepared / row["file"].replace("x40", f"patches/{row['kind']}_{row['part']}"))
  found = pixels(prepared / row["file"])
  np.testing.assert_array_equal(found, stain.normalize(before, stain.Stains(target)))


def test_lists_name_what_lies_in_x40(prepared):
  listed = [name for part in ("train", "test") for kind in cells.KINDS
            for name in (prepared / source.list_file(part, kind)).read_text().split()]
  assert sorted(listed) == sorted(p.name for p in (prepared / "x40").iterdir())
  assert json.loads((prepared / "report.json").read_text())["slides"] == 4


def test_the_data_set_trains_on_what_was_prepared(prepared):
  cfg = camelyon.defaults()
  cfg.update(image_root=str(prepared / "x10"), lists_root=str(prepared), resize=0, crop_size=64, fold=-1,
             val_fraction=0.0)
  data = camelyon.build(cfg, 0)
  assert data.train().read([0])["image"].shape == (1, 64, 64, 3) and len(data.train()) == 2
  assert data.split("test").read(range(4))["label"].tolist() == [0, 0, 1, 1]
  cfg.fold, cfg.folds, cfg.n_folds = 0, "leakfree", 2
  with pytest.raises(UserError, match="1 groups of normal images"):  # tumours are found, one slide is too few
    camelyon.build(cfg, 0)


def test_steps_one_after_the_other_and_processes_give_the_same(slides, prepared, tmp_path):
  for step in ("annotations", "masks", "normal", "tumor", "target", "stain", "merge", "resize", "lists"):
    go(slides, tmp_path, f"--steps={step}", "--workers=2" if step == "stain" else "--workers=1")
  assert files(tmp_path) == files(prepared)


def test_a_second_run_makes_lost_and_damaged_files_again_and_no_others(slides, prepared, monkeypatch):
  before = files(prepared)
  lost = next((prepared / "x10").iterdir())
  lost.unlink()
  with next((prepared / "tissue" / "test").iterdir()).open("ab") as damaged:
    damaged.write(b"x")
  done = []
  step = slide_job._step
  monkeypatch.setattr(slide_job, "_step", lambda *a: step(*a) and (done.append(a[1]) or True))
  go(slides, prepared)
  assert sorted(done) == ["cut", "resize"] and files(prepared) == before


def test_exactly_the_listed_patches_are_cut(slides, prepared, tmp_path):
  lists = tmp_path / "lists"
  for part in ("train", "test"):
    for kind in cells.KINDS:
      path = lists / source.list_file(part, kind)
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text("")
  name = "tumor_001_tumor_x_1000_y_1200_w_512_h_768"  # off the grid, no square: as no drawing gives it
  (lists / source.list_file("train", "tumor")).write_text(
      f"{name}.jpg\ntumor_077_tumor_x_0_y_0_w_768_h_768.jpg\n")
  go(slides, tmp_path / "out", f"--names={lists}", "--no_stain")
  row, = table(tmp_path / "out")
  assert row["file"] == f"x40/{name}.png" and 0.5 < float(row["lesion"]) < 1 and row["stain"] == "as cut"
  with reader.open_slide(slides / "training" / "tumor" / "tumor_001.tif") as slide:
    np.testing.assert_array_equal(pixels(tmp_path / "out" / row["file"]), slide.read(0, 1200, 1000, 512, 768))
  assert "tumor_077" in json.loads((tmp_path / "out" / "report.json").read_text())["left_out"]


@pytest.mark.parametrize("form", ["rgba", "deep", "broken level", "coarse"])
def test_every_form_of_slide_gives_the_same_patches(one, prepared, tmp_path, form):
  shutil.rmtree(one / "training" / "tumor")
  file, image = one / "training" / "normal" / "normal_001.tif", camelyon_folder.stained(0)
  if form == "rgba":
    image = np.dstack([image, np.full_like(image[..., 0], 255)])
  slide_files.write_slide(file, image, deep=16 * (form == "deep"), mpp=0.5 if form == "coarse" else 0.25,
                          bad_levels=(2,) if form == "broken level" else ())
  go(one, tmp_path / "out", "--no_stain", "--scales=x40")
  names = sorted(p.name for p in (prepared / "patches" / "normal_train").iterdir())
  assert sorted(p.name for p in (tmp_path / "out" / "x40").iterdir()) == names
  for name in names:
    np.testing.assert_array_equal(pixels(tmp_path / "out" / "x40" / name),
                                  pixels(prepared / "patches" / "normal_train" / name))
  report = json.loads((tmp_path / "out" / "report.json").read_text())
  assert report["other_resolutions"] == ({"normal_001": 0.5} if form == "coarse" else {})


def test_overview_shows_patches_on_the_slide(prepared):
  drawn = pixels(prepared / "overview" / "train" / "tumor_001.png")
  assert drawn.shape == (18, 18, 3)
  for row in table(prepared)[-2:]:
    left, top = int(row["left"]) // 128, int(row["top"]) // 128
    for line in (drawn[top, left:left + 6], drawn[top:top + 6, left]):
      assert (line == overview.PATCH).all()


def test_published_form_and_own_levels(one, tmp_path):
  go(one, tmp_path / "out", "--parity", "--pyramid", "--scales=x40,x10", "--per_slide=1")
  rows = table(tmp_path / "out")
  assert len(rows) == 2 and all(r["file"].endswith(".jpg") and r["scales"] == "x10=level 1" for r in rows)
  assert set(np.unique(pixels(tmp_path / "out" / "masks" / "train" / "tumor_001.png"))) == {0, 127, 255}
  # The target as the file has it, after JPEG; what comes from the slide's own level has its stains as well.
  target = np.array(json.loads((tmp_path / "out/records/stain_target.target.json").read_text())["matrix"])
  found = stain.find_stains(pixels(tmp_path / "out/stain_target.jpg"), True).matrix
  np.testing.assert_array_equal(found, target)
  with reader.open_slide(one / "training/normal/normal_001.tif") as slide:
    small = slide.read(1, int(rows[0]["left"]), int(rows[0]["top"]), 192, 192)
  assert (tmp_path / "out" / rows[0]["file"].replace("x40", "x10")).read_bytes() == writing.encoded(
      stain.normalize(small, stain.Stains(target), True), ".jpg")


@pytest.mark.parametrize("fault,words", [
    ("no annotation", "no annotation: .*tumor_001.tif is a tumour slide"),
    ("another slide", "'Annotation 0' reaches .* it is the annotation of another slide"),
    ("no xml", "tumor_001.xml is no XML"),
    ("blank", "normal_001.tif has no cell of 768 x 768 pixels that is all tissue"),
    ("no slide", "normal_001.tif"),
    ("small", "less than one patch"),
])
def test_a_bad_slide_is_named_and_left_out(one, tmp_path, fault, words):
  xml = one / "training" / "lesion_annotations" / "tumor_001.xml"
  normal = one / "training" / "normal" / "normal_001.tif"
  more = ["--no_stain", "--scales=x40"]
  if fault == "no annotation":
    xml.unlink()
  elif fault == "another slide":
    xml.write_text(camelyon_folder.annotation(((100, 100), (9000, 100), (9000, 9000)), ()))
  elif fault == "no xml":
    xml.write_text(xml.read_text()[:100])
  elif fault == "blank":
    slide_files.write_slide(normal, slide_files.blank(1600, 1600))
  elif fault == "small":
    slide_files.write_slide(normal, slide_files.blank(500, 500))
  else:
    normal.write_bytes(b"nothing that anybody knows" * 100)
  go(one, tmp_path / "out", *more)
  report = json.loads((tmp_path / "out" / "report.json").read_text())
  (_, reason), = report["left_out"].items()
  assert re.search(words, reason) and "\n" not in reason and report["slides"] == 1
  with pytest.raises(UserError, match="--strict is set"):
    go(one, tmp_path / "out", *more, "--strict")


def test_wrong_requests_are_one_line(slides, prepared, tmp_path, capsys):
  for more, words in ((("--seed=7",), "another seed"), (("--steps=none",), "the steps are"),
                      (("--format=gif",), "png, jpeg"), (("--scales=x5",), "x40")):
    with pytest.raises(UserError, match=words):
      go(slides, prepared, *more)
  with pytest.raises(SystemExit):
    go(slides, prepared, "--per_slides=9")
  assert "unknown: --per_slides=9" in capsys.readouterr().err
  with pytest.raises(UserError, match="no slide normal_056"):
    run.prepare(fields.resolve(fields.Settings(str(slides), str(tmp_path))))
  with pytest.raises(UserError, match="lies outside"):  # in the same target: nothing was made there yet
    run.prepare(fields.resolve(fields.Settings(str(slides), str(tmp_path), target_slide="normal_001")))
  with pytest.raises(UserError, match="step annotations of tumor_001 is not done"):
    others = ("normal_001", "test_001", "test_002")
    run.prepare(options(slides, tmp_path / "c", left_out=others), ["masks"], 1)
  with pytest.raises(FileNotFoundError, match="--source"):
    run.prepare(options(tmp_path / "nowhere", tmp_path))


def test_a_full_disk_stops_all_and_says_so(one, tmp_path, monkeypatch):
  write = store.Store.write

  def full(self, file, content):
    if file.startswith("patches"):
      raise store.CannotWrite(28, f"cannot write {file}: No space left on device")
    return write(self, file, content)
  monkeypatch.setattr(store.Store, "write", full)
  with pytest.raises(OSError, match="stopped at slide normal_001: .*No space left on device; what is"):
    go(one, tmp_path / "out")
  assert not list((tmp_path / "out" / "locks").iterdir())  # nobody waits for this process


def test_annotations_of_other_programs_are_refused(tmp_path):
  path = tmp_path / "a.xml"
  for text, words in (("<a/>", "no annotation of ASAP"),
                      (camelyon_folder.annotation().replace('"760.4"', '"x"'), "no numbers X and Y")):
    path.write_text(text)
    with pytest.raises(UserError, match=words):
      annotations.read_xml(path)


def test_outlines_that_are_left_out_are_said(tmp_path, caplog):
  """Lesions of the group None, which is ASAP's first, counted as healthy without a word."""
  path, text = tmp_path / "a.xml", camelyon_folder.annotation()
  path.write_text(text)
  whole = annotations.read_xml(path)
  assert whole["tumor"] and whole["normal"] and not caplog.text
  path.write_text(text.replace('PartOfGroup="_2"', 'PartOfGroup="None"'))
  assert annotations.read_xml(path) == {"tumor": whole["tumor"], "normal": []}
  assert "1 of 2 outlines are of other groups (None) than Tumor, _0, _1, _2, and are left out" in caplog.text


def test_vertices_in_another_order_and_what_is_no_area(tmp_path, caplog):
  """Vertices were joined as they stand in the file, and points of a set to an area, without a word."""
  path, text = tmp_path / "a.xml", camelyon_folder.annotation(hole=())
  path.write_text(text)
  whole, lines = annotations.read_xml(path), text.split("<Coordinate ")
  lines[-1], end = lines[-1].split("/>", 1)
  path.write_text("<Coordinate ".join([lines[0], lines[2], lines[-1] + "/>", lines[1], lines[3]]) + end)
  assert path.read_text() != text and annotations.read_xml(path) == whole and not caplog.text
  path.write_text(camelyon_folder.annotation().replace("Polygon", "PointSet", 1))
  assert not annotations.read_xml(path)["tumor"] and annotations.read_xml(path)["normal"]
  assert "1 of 2 outlines are PointSet, which enclose nothing, and are left out" in caplog.text
