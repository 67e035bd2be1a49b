"""Patches straight from slides: cells, random places, stains, lesions, what is kept."""

import numpy as np
from PIL import Image
import pytest

from data_pipelines import fields, stream
from data_pipelines.datasets import slides
from data_pipelines.errors import UserError
from data_pipelines.slides import plan, stain
from tests import slide_files

IMAGE = slide_files.tissue(320, 400)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  folder = tmp_path_factory.mktemp("root")
  rows = ["file,split,label,group"]
  for i, (split, label) in enumerate([("train", "normal"), ("train", "normal"), ("val", "normal"),
                                      ("test", "normal"), ("test", "tumour")]):
    slide_files.write_slide(folder / f"s{i}.tif", slide_files.tissue(320, 400, i), downsamples=(1, 2))
    rows.append(f"s{i}.tif,{split},{label},p{i}")
  (folder / "labels.csv").write_text("\n".join(rows) + "\n")
  mask = np.zeros((32, 40), np.uint8)
  mask[12:20, 20:30] = 9
  masks = tmp_path_factory.mktemp("masks")
  Image.fromarray(mask).save(masks / "s4.png")
  (folder / "where").write_text(str(masks))
  return folder


def build(root, **given):
  return slides.build(fields.changed(slides.defaults(), root=str(root), crop_size=16, magnification=20,
                                     jitter=8, **given), 0)


def test_cells_lie_where_their_names_say(root):
  data = build(root)
  source = data.fitting()
  for i in (0, len(source) // 2, len(source) - 1):
    meta = data.lists["train"][i]
    number, x, y = (int(meta.name.replace(".tif", "").split("_")[k].lstrip("s")) for k in (0, 2, 4))
    half = slide_files.tissue(320, 400, number).reshape(160, 2, 200, 2, 3).mean((1, 3))
    patch = (source.read_one(i)["image"] + 1) * 127.5
    assert np.abs(patch - half[y:y + 16, x:x + 16]).max() < 1


def test_masks_say_which_cells_are_lesions(root):
  lists = build(root, masks_dir=(root / "where").read_text()).lists
  ill = {i.name.partition("_")[2] for i in lists["test_anomaly"]}
  assert ill and all("s4" in i.name for i in lists["test_anomaly"])
  for name in ill:  # the mask covers rows 120 to 200, columns 200 to 300 of level 0
    x, y = (int(v) * 2 for v in name.split("_")[1::2])
    assert 184 <= x <= 288 and 104 <= y <= 184
  assert any("s4" in i.name for i in lists["test_normal"])


def test_the_stream_is_a_function_of_the_step(root):
  batches = lambda data, first: stream.train_stream(data, {}, batch_size=4, first_step=first, seed=3)
  whole = batches(build(root), 0)
  taken = [next(whole)["image"] for _ in range(4)]
  again = next(batches(build(root), 3))
  np.testing.assert_array_equal(taken[3], again["image"])
  assert set(again) == {"image", "index"} and again["image"].shape == (4, 16, 16, 3)
  assert again["image"].min() >= -1 and again["image"].max() <= 1
  varied = next(batches(build(root, stain=0.3), 3))["image"]
  plain = next(batches(build(root, stain=0.0), 3))["image"]
  assert 0.005 < np.abs(varied - plain).mean() < 0.3


def test_stain_augmentation_moves_amounts_and_keeps_glass():
  import tensorflow as tf

  from data_pipelines.ops.stain import stain_jitter
  patch = IMAGE[100:164, 200:264]
  matrix = stain.find_stains(np.ascontiguousarray(patch)).matrix.astype(np.float32)
  image = np.stack([patch, np.full_like(patch, 255), patch])
  stains = np.stack([matrix, matrix, np.zeros_like(matrix)])
  op = lambda lo, hi: stain_jitter(0.3)({"image": tf.constant(image[lo:hi]), "stains": stains[lo:hi]},
                                        tf.constant([0, 7]), lo, hi, 3)["image"].numpy()
  found = op(0, 3)
  np.testing.assert_array_equal(found[1:], image[1:])
  assert np.abs(found[0].astype(int) - patch).mean() > 1
  np.testing.assert_array_equal(found[:1], op(0, 1))  # rows do not depend on who else is in the batch
  change = np.log(np.maximum(found[0], 1) / 255.0) - np.log(np.maximum(patch, 1) / 255.0)
  bright = (found[0] > 40).all(-1) & (patch > 40).all(-1)
  normal = np.cross(matrix[0], matrix[1])
  assert np.abs(change[bright] @ (normal / np.linalg.norm(normal))).mean() < 0.01  # in their plane


def test_plans_are_kept(root, tmp_path, monkeypatch):
  names = lambda data: [i.name for i in data.lists["train"]]
  first = names(build(root, tissue_dir=str(tmp_path)))
  assert len(list(tmp_path.glob("*.npz"))) == 5
  monkeypatch.setattr(plan, "make", None)
  assert names(build(root, tissue_dir=str(tmp_path))) == first
  kept = next(iter(tmp_path.glob("*.npz")))
  for damaged in (b"half", kept.read_bytes()[:300]):  # the second begins as a zip archive
    kept.write_bytes(damaged)
    with pytest.raises(UserError, match="is damaged .*: delete it, it is made again"):
      build(root, tissue_dir=str(tmp_path))


def test_limits_and_refusals(root):
  assert len(build(root, per_slide=5).lists["train"]) == 10
  with pytest.raises(UserError, match="coarser than the 80"):
    slides.build(fields.changed(slides.defaults(), root=str(root), magnification=80), 0)
  with pytest.raises(UserError, match="stain=1.5 below 1"):
    build(root, stain=1.5)
  with pytest.raises(UserError, match="cut when they are asked for"):
    build(root).resident_arrays()
