"""Drawn annotations: exact masks, seeds, shares, and the catalogue's promises."""

import numpy as np
import pytest

from data_pipelines.datasets import annotations
from data_pipelines.marks import catalogue, font, layers
from data_pipelines.marks.layers import Fill, Layer, Mark, Stroke
from data_pipelines.marks.options import check, check_fonts

OPTIONS = annotations.defaults().marks.to_dict()


def frame(seed=0, size=(96, 128), channels=3):
  grey = np.random.default_rng(seed).uniform(0.1, 0.6, (*size, 1))
  return np.repeat(np.round(grey * 255) / 255, channels, -1).astype(np.float32)


def test_compose_by_hand():
  clean = np.full((4, 5, 3), 0.5, np.float32)
  layer = Layer(1, 2, np.array([[1.0, 0.5]], np.float32), np.array([1, 1, 0], np.float32))
  annotated, mask = layers.compose(clean, [Mark("x", [layer])])
  np.testing.assert_allclose(annotated[1, 2], [1, 1, 0])
  np.testing.assert_allclose(annotated[1, 3], [0.75, 0.75, 0.25], atol=0.5 / 255)
  assert mask.sum() == 2 and mask[1, 2] == 1 and mask[1, 3] == 1
  untouched = mask[..., 0] == 0
  np.testing.assert_array_equal(annotated[untouched], clean[untouched])


def test_paint_of_the_colour_that_is_there_is_no_mark():
  clean = np.ones((8, 8, 1), np.float32)
  layer = layers.paint([Stroke(np.array([[1, 1], [6, 6]]), 2)], (8, 8), (1, 1, 1))
  _, mask = layers.compose(clean, [Mark("x", [layer])])
  assert mask.sum() == 0


def test_polygon_covers_its_pixels():
  layer = layers.paint([Fill(np.array([[2, 1], [5, 1], [5, 3], [2, 3]]))], (10, 10), (1, 1, 1),
                      antialias=False)
  rows, cols = np.nonzero(layer.alpha)
  assert set(zip(rows + layer.top, cols + layer.left)) == {
      (r, c) for r in (1, 2, 3) for c in (2, 3, 4, 5)}


@pytest.mark.parametrize("width", [1, 4])
def test_a_stroke_of_two_points_joins_them(width):
  layer = layers.paint([Stroke(np.array([[2, 5], [17, 5]]), width)], (20, 20), (1, 1, 1), antialias=False)
  row = 5 - layer.top
  assert set(np.flatnonzero(layer.alpha[row]) + layer.left) >= set(range(2, 18))


def test_shapes_outside_the_frame_give_no_layer():
  assert layers.paint([Stroke(np.array([[50, 50]]), 3)], (10, 10), (1, 1, 1)) is None
  assert layers.texture(np.ones((3, 3, 3)), 20, 0, (10, 10)) is None


def test_blur_spreads_and_keeps_the_mask_exact():
  clean = frame()
  layer = layers.paint([Stroke(np.array([[40, 40], [80, 60]]), 2)], clean.shape[:2], (1, 1, 0))
  sharp = layers.compose(clean, [Mark("x", [layer])])[1]
  annotated, mask = layers.compose(clean, [Mark("x", [layer])], blur=1.0)
  assert mask.sum() > sharp.sum()
  np.testing.assert_array_equal(mask[..., 0] > 0, np.any(annotated != clean, -1))


@pytest.mark.parametrize("kind", sorted(catalogue.KINDS))
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_draws_inside_and_repeats_with_its_seed(kind, channels):
  clean, options = frame(channels=channels), {**OPTIONS, "kinds": (kind,), "unmarked": 0.0}
  seen = 0
  for seed in range(6):
    first, second = (annotations.annotate(clean, np.random.default_rng(seed), options)
                     for _ in range(2))
    for a, b in zip(first, second):
      np.testing.assert_array_equal(a, b)
    annotated, same, mask = first
    np.testing.assert_array_equal(same, clean)
    assert annotated.shape == clean.shape and mask.shape == (*clean.shape[:2], 1)
    assert annotated.min() >= 0 and annotated.max() <= 1
    np.testing.assert_array_equal(mask[..., 0] > 0, np.any(annotated != clean, -1))
    seen += mask.any()
  assert seen >= 4, f"{kind} hardly ever draws anything"


def test_share_of_unmarked_frames():
  clean = frame(size=(48, 48))
  blank = [not catalogue.draw(np.random.default_rng(s), clean, {**OPTIONS, "unmarked": 0.3})
           for s in range(400)]
  assert 0.22 < np.mean(blank) < 0.38


def test_options_act():
  clean = frame()
  drawn = lambda **kw: annotations.annotate(
      clean, np.random.default_rng(5), {**OPTIONS, "unmarked": 0.0, "count": (4, 4), **kw})
  base = drawn()
  for change in ({"count": (6, 6)}, {"kinds": ("label",)}, {"colours": ("green",)},
                 {"opacity": (0.2, 0.3)}, {"size": 2.0}, {"blur": (2.0, 2.0)}, {"jpeg": 1.0},
                 {"style": "reference"}, {"unmarked": 1.0}):
    assert np.any(drawn(**change)[0] != base[0]), change
  low, high = (drawn(jpeg=1.0, jpeg_quality=(q, q))[0] for q in (20, 95))
  assert np.abs(low - base[0]).mean() > np.abs(high - base[0]).mean()


def test_jpeg_passes_through_both_images_and_leaves_the_mask_alone():
  clean = frame()
  plain = annotations.annotate(clean, np.random.default_rng(1), {**OPTIONS, "unmarked": 0.0})
  annotated, target, mask = annotations.annotate(
      clean, np.random.default_rng(1), {**OPTIONS, "unmarked": 0.0, "jpeg": 1.0})
  np.testing.assert_array_equal(mask, plain[2])
  assert np.any(target != clean) and np.any(annotated != plain[0])


@pytest.mark.parametrize("change, message", [
    ({"kinds": ("calliper",)}, "calliper"), ({"colours": ()}, "nothing"), ({"unmarked": 2}, "share"),
    ({"fonts": ("/no/such.ttf",)}, "such.ttf"), ({"fonts": (0,)}, "no path"),
    ({"count": (5, 1)}, "low, high"), ({"opacity": (0, 2)}, "between 0 and 1"), ({"blur": (1,)}, "low, high"),
    ({"size": 0.0}, "above 0"),
    ({"kinds": ("label:x",)}, "a weight is a number"), ({"kinds": ("label:0",)}, "not all are 0")])
def test_wrong_options_are_named(change, message):
  options = {**OPTIONS, "unmarked": 0.0, "kinds": ("label",), **change}
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    check(options)
    check_fonts(options["fonts"])


def test_glyphs_lie_on_their_grid():
  text = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,:-+/%=()#'*<>_"
  for char in text:
    lines, width = font.text_polylines(char, 6.0)
    points = np.concatenate(lines)
    assert width > 0 and points[:, 1].min() >= -6 and points[:, 1].max() <= 2, char
  assert font.text_polylines("WW", 6.0)[1] > font.text_polylines("W", 6.0)[1]


def test_pairs_on_disk(tmp_path):
  """What prepare pairs stores is read back by `paired`, with the drawn masks and one group a frame."""
  from data_pipelines import dataset
  from data_pipelines.datasets import paired
  from data_pipelines.prepare import pairs
  pairs.main(["--out", str(tmp_path / "pairs"), "--synthetic", "6", "--copies", "2",
                    "--channels", "1", "--set", "count=2,3", "--set", "unmarked=0"])
  cfg = paired.defaults()
  cfg.update(dir=str(tmp_path / "pairs"), channels=1, val_share=0.2, test_share=0.2)
  data = dataset.open_dataset(cfg, 0)
  assert {s: v["groups"] for s, v in data.describe()["splits"].items()} == {
      "train": 2, "val": 2, "test": 2}
  example = data.split("test").read_one(0)
  np.testing.assert_array_equal(example["mask"] > 0, example["image"] != example["clean"])
  with pytest.raises(FileExistsError, match="not empty"):
    pairs.main(["--out", str(tmp_path / "pairs")])
  for wrong, said in (("--set=jpeg=abc", "--set=jpeg=abc: give it as 0.0"), ("--set=count=a,b", "give it as"),
                      ("--copies=0", "at least 1"), ("--synthetic=-1", "at least 1")):
    with pytest.raises(ValueError, match=said):
      pairs.main(["--out", str(tmp_path / "none"), wrong])
  assert not (tmp_path / "none").exists()
  with pytest.raises(ValueError, match="--set=colour"):
    pairs.main(["--out", str(tmp_path / "other"), "--set", "colour=red"])


def test_marks_of_the_reference_are_stored_unblurred(tmp_path):
  """Its paint is opaque and of cyan, yellow or white: in grey a mark has one value, whatever `blur` says."""
  from data_pipelines.formats import images
  from data_pipelines.prepare import pairs
  options = {**OPTIONS, "style": "reference", "blur": (1.0, 1.0), "jpeg": 0.0}
  pairs.write(tmp_path / "p", [("x", np.full((96, 96, 1), 0.25, np.float32))], options)
  mark = images.read_8bit(tmp_path / "p/annotated/x_c0.png", 1)[
      images.read_8bit(tmp_path / "p/mask/x_c0.png", 1) > 0]
  assert len(mark) > 20 and len(np.unique(mark)) <= 2  # the label's colour and that of the calipers


def test_pairs_of_frames_with_like_names_stay_apart(tmp_path):
  """a_b and a-b, capitals, endings, folders: a pair each; an iterable with a name twice is refused."""
  from data_pipelines.formats import images
  from data_pipelines.prepare import pairs
  frames = ["a_b.png", "a-b.png", "A-B.png", "a-b.tif", "a/b.png"]
  for i, name in enumerate(frames):
    (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
    images.write_array(tmp_path / "in" / name, np.full((16, 16), 20 + 40 * i, np.uint8))
  pairs.main(["--dir", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--channels", "1",
              "--set", "count=0,0"])
  found = sorted(p for p in (tmp_path / "out/clean").rglob("*") if p.is_file())
  assert len({p.name.lower() for p in found}) == len(frames)
  assert sorted(int(round(255 * images.read_unit(p, 1)[0, 0, 0])) for p in found) == [20, 60, 100, 140, 180]
  with pytest.raises(ValueError, match="two frames are called x and X"):
    pairs.write(tmp_path / "twice", [(n, np.zeros((16, 16, 1), np.float32)) for n in ("x", "X")], OPTIONS)
  assert not (tmp_path / "twice").exists()


def test_folders_of_patients_stay_so_that_no_patient_is_on_two_sides(tmp_path):
  """Frames 1.png, 2.png ... of folders Smith, Jones ...: the folder names the patient."""
  from data_pipelines import fields
  from data_pipelines.datasets import paired
  from data_pipelines.formats import images
  from data_pipelines.prepare import pairs
  for name in ("Smith", "Jones", "Nguyen", "Ali", "Rossi", "Kim"):
    for i in range(3):
      images.write_array(_made(tmp_path / "frames" / name) / f"{i}.png", np.full((16, 16, 1), 90, np.uint8))
  found = pairs._frames(str(tmp_path / "frames"), 1, 0, (16, 16), (0, 0))
  pairs.write(tmp_path / "pairs", found, OPTIONS, copies=2)
  cfg = fields.changed(paired.defaults(), dir=str(tmp_path / "pairs"), channels=1, image_size=(16, 16))
  data = paired.build(cfg, 0)
  sides = {s: {i.name.partition("/")[0] for i in items} for s, items in data._items.items()}
  assert sum(len(items) for items in data._items.values()) == 36
  assert len(set.union(*sides.values())) == 6 == sum(map(len, sides.values()))


def _made(folder):
  folder.mkdir(parents=True, exist_ok=True)
  return folder


def test_drawn_frames_are_divided_as_the_numbers_say():
  cfg = annotations.defaults()
  cfg.update(frames=(5, 2, 1), frame_size=(24, 32), channels=1)
  data = annotations.build(cfg, 0)
  assert {name: [data.split(name).meta(i)["id"][-2:] for i in range(len(data.split(name)))]
          for name in data.splits} == {
      "train": ["00", "01", "02", "03", "04"], "val": ["05", "06"], "test": ["07"]}
