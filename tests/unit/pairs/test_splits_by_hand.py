"""Frames and their splits without files: which rule divides them, which row is whose, what a split shows."""

import types

import numpy as np
import pytest

from data_pipelines import fields
from data_pipelines.datasets import paired
from data_pipelines.errors import UserError
from data_pipelines.pairs import frames, splits


def config(**given):
  cfg = paired.defaults()
  cfg.update(image_size=(4, 4), channels=1, **given)
  return cfg


def items(*names):
  return [types.SimpleNamespace(name=n, group=n.rpartition("/")[2].partition("_")[0]) for n in names]


def test_by_file_a_patient_may_be_divided_and_by_group_not(tmp_path, caplog):
  names = [f"p{k % 5}_{k}.png" for k in range(20)]
  cfg = dict(val_share=0.25, test_share=0.2)
  order = np.random.default_rng(42).permutation(20)
  by_file = splits.split_names(items(*names), tmp_path, config(split_by="file", **cfg))
  assert [by_file[sorted(names)[i]] for i in order] == ["val"] * 5 + ["test"] * 4 + ["train"] * 11
  assert "patients are on two sides" in caplog.text
  by_group = splits.split_names(items(*names), tmp_path, config(split_by="group", **cfg))
  place = {g: {by_group[n] for n in names if n.startswith(f"p{g}_")} for g in range(5)}
  order = np.random.default_rng(42).permutation(5)
  assert [place[g] for g in order] == [{"val"}, {"val"}, {"test"}, {"train"}, {"train"}]


def test_the_reference_divides_frames_and_has_no_test_split(tmp_path):
  names = [f"a{k}.png" for k in range(11)]
  found = splits.split_names(items(*names), tmp_path, config(split_by="reference", val_share=0.25))
  order = np.random.RandomState(42).permutation(11)
  assert [found[names[i]] for i in order] == ["val"] * 3 + ["train"] * 8


def by_table(tmp_path, table, *names):
  (tmp_path / "labels.csv").write_text(table)
  found = items(*names)
  return splits.split_names(found, tmp_path, config()), [i.group for i in found]


def test_rows_are_found_by_path_or_by_a_name_that_is_nobody_elses(tmp_path):
  table = ("file,split,patient\nclean/x/a_1.png,train,P1\nb_2.png,test,p1b\nannotated/x/b_9.png,val,\n"
           "other.png,unused,\n")
  place, groups = by_table(tmp_path, table, "x/a_1.png", "y/b_2.png", "x/b_9.png")
  assert place == {"x/a_1.png": "train", "y/b_2.png": "test", "x/b_9.png": "val"}
  assert groups == ["P1", "p1b", "b"]
  place, _ = by_table(tmp_path, "file,split\na_1.png,train\nA_1.png,train\n", "a_1.png", "A_1.png")
  assert place == {"a_1.png": "train", "A_1.png": "train"}  # capitals of paths count
  with pytest.raises(UserError, match="listed twice, first in line 2"):
    by_table(tmp_path, "file,split\na_1.png,train\nx/../a_1.png,train\n", "a_1.png")
  with pytest.raises(UserError, match="does not list x/a.png"):
    by_table(tmp_path, "file,split\na.png,train\n", "x/a.png", "y/a.png")
  with pytest.raises(UserError, match="lists a.png in the lines 2 and 3"):
    by_table(tmp_path, "file,split\nclean/a.png,train\na.png,val\n", "a.png")


class Frame(frames.Item):
  """A frame whose clean image is its number, and the annotated one half of it more."""

  def __init__(self, number, size=(4, 6)):
    super().__init__(f"f{number}", f"f{number}", f"g{number}", None)
    self.size, self.cache = size, tuple(np.full((*size, 1), v, np.float32) for v in (
        number + 0.5, number, number == 2))


def data_set(**given):
  place = {f"f{k}": s for k, s in enumerate(("train", "train", "val", "test", ""))}
  found = [Frame(k, (4 + k % 2, 6 - k % 2)) for k in range(5)]
  return frames.PairDataSet("x", config(**given), found, place, [], 0)


def test_every_split_shows_its_own_frames():
  data = data_set()
  shown = lambda source: [int(source.read_one(i)["clean"][0, 0, 0]) for i in range(len(source))]
  assert data.splits == ("train", "val", "test")
  assert shown(data.split("val")) == shown(data.validation()) == [2] and shown(data.split("test")) == [3]
  assert shown(data.fitting()) == shown(data.train()) == [0, 1]
  assert data.split("val").read_one(0)["mask"].all()
  assert data.split("test").read_one(0)["image"][0, 0, 0] == 3.5
  meta = data.split("train").meta(1)
  assert (meta["height"], meta["width"], meta["group"], meta["id"]) == (5, 5, "g1", "f1")


def test_frames_of_several_sizes_are_continued_by_their_mirror_image():
  ramp = Frame(0, (3, 4))
  ramp.cache = (np.arange(12, dtype=np.float32).reshape(3, 4, 1),) * 3
  both = frames.WholeFrames([ramp, Frame(1, (5, 5))])
  assert [(both.meta(i)["height"], both.meta(i)["width"]) for i in (0, 1)] == [(3, 4), (5, 5)]  # their own
  found = both.read_one(0)
  rows = [[0, 1, 2, 3, 3], [4, 5, 6, 7, 7], [8, 9, 10, 11, 11], [8, 9, 10, 11, 11], [4, 5, 6, 7, 7]]
  for key in ("image", "clean", "mask"):
    np.testing.assert_array_equal(found[key][..., 0], rows)


@pytest.mark.parametrize("given, count", [({}, 2), ({"gamma": (0.8, 1.2)}, 3), ({"gain": (0.8, 1.2)}, 3)])
def test_brightness_varies_where_it_is_asked_for(given, count):
  assert len(data_set(**given).train().example_ops) == count


def test_mirrors_of_training_have_the_shares_of_their_own_axis():
  from data_pipelines.tf import tf
  image = tf.constant(np.arange(24, dtype=np.float32).reshape(4, 6, 1))
  corner = lambda **given: float(data_set(**given).train().example_ops[0](
      {"image": image}, tf.constant([1, 2]))["image"][0, 0, 0])
  assert corner(flip_lr=1.0, flip_ud=0.0) == 5 and corner(flip_lr=0.0, flip_ud=1.0) == 18


def test_files_are_read_at_the_size_that_is_asked_for(tmp_path):
  from PIL import Image
  Image.new("L", (30, 20), 51).save(tmp_path / "a.png")
  assert frames.read_resized(tmp_path / "a.png", config(resize=(10, 12))).shape == (10, 12, 1)
  assert frames.read_resized(tmp_path / "a.png", config()).shape == (20, 30, 1)


def test_pixels_that_differ_by_more_than_the_threshold_and_those_around_them():
  """A diamond of the radius that is asked for."""
  clean = np.full((9, 11, 3), 0.5, np.float32)
  annotated = clean.copy()
  annotated[4, 5, 1] -= 10.1 / 255
  annotated[0, 0] += 9.9 / 255  # in every channel, and yet no more than the threshold
  away = np.abs(np.arange(9)[:, None] - 4) + np.abs(np.arange(11)[None] - 5)
  for reach in (0, 1, 3):
    found = paired.difference_mask(annotated, clean, 10, reach)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[..., 0], away <= reach)


@pytest.mark.parametrize("strict", [True, False])
def test_frames_that_can_all_be_read_are_used_and_what_cannot_is_refused_where_strict(strict):
  def item(name):
    def load():
      if name == "bad":
        raise ValueError("bad is damaged")
      return np.zeros((2, 2, 1)), np.ones((2, 2, 1))
    return types.SimpleNamespace(name=name, load=load, cache=None)
  good, bad = [item("a"), item("b")], item("bad")
  usable, problems = frames.load_all(good, [], strict)
  assert usable == good and not problems and all(i.cache[1].all() for i in good)
  if strict:
    with pytest.raises(UserError, match="1 unusable files: bad is damaged"):
      frames.load_all([*good, bad], [], strict)
  else:
    assert frames.load_all([bad, *good], ["c has no partner"], strict) == (
        good, ["c has no partner", "bad is damaged"])
  with pytest.raises(UserError, match="bad is damaged"):
    frames.load_all([bad], [], strict)
  with pytest.raises(UserError, match="no usable frame"):
    frames.load_all([], [], strict)


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (4,), (4, 4, 4), (-1, 4)])
def test_a_window_has_two_sides_of_a_pixel_or_more(size):
  with pytest.raises(UserError, match="image_size"):
    frames.resolve(fields.changed(paired.defaults(), image_size=size), paired.defaults())
  for fine in ((1, 4), (4, 1)):
    frames.resolve(fields.changed(paired.defaults(), image_size=fine), paired.defaults())


@pytest.mark.parametrize("strict", [True, False])
def test_frames_are_listed_as_strictly_as_the_config_says(strict, monkeypatch):
  asked = []
  monkeypatch.setattr(frames.counts, "files", lambda *args, **named: asked.append((*args, named)))
  frames.list_frames("x", strict)
  assert asked == [("x", ("image", "dicom"), strict, {"clean": True})]


def test_a_table_that_is_named_and_not_there_is_said(tmp_path, monkeypatch):
  """Frames were split by patient, whatever the table had said."""
  names = [f"p{k}_1.png" for k in range(12)]
  assert set(splits.split_names(items(*names), tmp_path, config()).values()) == {"train", "val", "test"}
  with pytest.raises(FileNotFoundError, match="config.data.table='mine.csv': .* does not exist; leave"):
    splits.split_names(items(*names), tmp_path, config(table="mine.csv"))
  monkeypatch.setattr(splits.scored_alone, "now", lambda: True)  # another hospital's frames, of the same run
  assert splits.split_names(items(*names), tmp_path, config(table="mine.csv"))
