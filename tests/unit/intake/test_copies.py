"""One picture on two sides of a split, under two names: said before training."""

import logging
import shutil

from PIL import Image

from data_pipelines import dataset as datasets, fields
from data_pipelines.datasets import own_folder
from data_pipelines.intake import copies


def write(folder, *names):
  for i, name in enumerate(names):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(bytes([i]) * 100 + b"the same end")
  return [str(folder / n) for n in names]


def test_only_the_same_bytes_on_two_sides_are_copies(tmp_path):
  a, b, c, d = write(tmp_path, "a", "b", "c", "d")
  shutil.copy(a, d)
  assert copies.find({"train": [a, b], "val": [c], "test": [d]}) == [(a, "train", d, "test")]
  shutil.copy(a, b)
  shutil.copy(a, c)
  assert copies.find({"train": [a, b], "val": [c], "test": [d]}) == [
      (a, "train", c, "val"), (a, "train", d, "test")]
  assert copies.find({"train": [a, b], "test": [str(tmp_path / "absent"), str(tmp_path)]}) == []
  assert copies.find({"train": [a, b], "test": []}) == []


def test_a_copy_that_differs_at_its_end_is_none(tmp_path):
  a, b = write(tmp_path, "a", "b")
  big = bytes(20000)
  (tmp_path / "a").write_bytes(big + b"1")
  (tmp_path / "b").write_bytes(big + b"2")
  assert copies.find({"train": [a], "test": [b]}) == []


def test_too_many_files_of_one_size_are_not_opened(tmp_path, monkeypatch):
  a, b = write(tmp_path, "a", "b")
  shutil.copy(a, b)
  monkeypatch.setattr(copies, "_MOST", 1)
  assert copies.find({"train": [a], "test": [b]}) == []


def test_a_data_set_is_told_before_it_is_trained_on(tmp_path, caplog):
  for i in range(12):
    path = tmp_path / "set" / f"p{i:02d}x.png"
    path.parent.mkdir(exist_ok=True)
    Image.new("L", (16, 16), 40 + i % 6).save(path)  # p00x = p06x, ...
  cfg = fields.changed(own_folder.defaults(), dir=str(tmp_path / "set"), image_size=(16, 16), noise_res=2)
  with caplog.at_level(logging.WARNING):
    copies.say(datasets.open_dataset(cfg, 0))
  assert "byte for byte, on two sides" in caplog.text and "x.png (train)" in caplog.text


def test_nothing_is_said_of_sets_without_copies(tmp_path, caplog):
  for i in range(12):
    path = tmp_path / "set" / f"p{i:02d}x.png"
    path.parent.mkdir(exist_ok=True)
    Image.new("L", (16, 16), 40 + i).save(path)
  cfg = fields.changed(own_folder.defaults(), dir=str(tmp_path / "set"), image_size=(16, 16), noise_res=2)
  copies.say(datasets.open_dataset(cfg, 0))
  assert "byte for byte" not in caplog.text
