"""Files whose kind, size or colours alone tell normal images from others."""

import pathlib

import numpy as np
from PIL import Image
import pytest

from data_pipelines.formats import doubts

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)


@pytest.mark.parametrize("normal, ill, said", [
    ("a{}.png", "b{}.png", ""), ("a{}.jpg", "b{}.png", "other kinds of file than all others (JPEG and PNG)"),
    ("a{}.png", "b{}.dcm", "")])
def test_the_kind_of_file_alone_tells_normal_from_abnormal(tmp_path, caplog, normal, ill, said):
  paths = [[str(tmp_path / name.format(i)) for i in range(4)] for name in (normal, ill)]
  for path in [*paths[0], *paths[1]]:
    Image.fromarray(GREY).save(path, format=None if not path.endswith("dcm") else "PPM")
  if ill.endswith("dcm"):
    [pathlib.Path(p).write_bytes(b"no picture") for p in paths[1]]
  doubts.say_told_by_form(*paths)
  assert said in caplog.text and bool(caplog.text) == bool(said)


def test_sizes_and_colours_alone_tell_normal_from_abnormal(tmp_path, caplog):
  pictures = {"s": GREY, "big": np.kron(GREY, np.ones((2, 2), np.uint8)), "rgb": np.stack([GREY] * 3, -1)}
  paths = {}
  for name, pixels in pictures.items():
    paths[name] = [str(tmp_path / f"{name}{i}.png") for i in range(3)]
    for path in paths[name]:
      Image.fromarray(pixels).save(path)
  for other, said in (("big", "other sizes than all others (8 x 8 and 16 x 16)"),
                      ("rgb", "other kinds of pixels than all others (L and RGB)")):
    caplog.clear()
    doubts.say_told_by_form(paths["s"], paths[other])
    assert said in caplog.text
  caplog.clear()
  doubts.say_told_by_form(paths["s"], paths["s"], paths["big"])  # as of another magnification
  assert "all training images looked at have other sizes than all scored ones (16 x 16 and" in caplog.text
  caplog.clear()
  doubts.say_told_by_form(paths["s"] + paths["big"], paths["big"], paths["s"])
  doubts.say_told_by_form(paths["s"][:2], paths["rgb"])  # too few
  assert not caplog.text
