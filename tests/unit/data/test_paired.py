"""Pairs from folders and from clean frames: pairing, masks, splits, synthesised annotations."""

import collections

import numpy as np
from PIL import Image
import pytest

from data_pipelines import dataset, stream
from data_pipelines.datasets import annotations, paired
from data_pipelines.pairs import splits


def save(path, array):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.round(np.asarray(array) * 255).astype(np.uint8)).save(path)


def write_pairs(root, names=("p1_1", "p1_2", "p2_1", "p3_1", "p4_1"), size=(40, 48), ending=".png"):
  """Grey clean frames and annotated partners with a bright square; returns {name: square's corner}."""
  rng, corners = np.random.default_rng(0), {}
  for k, name in enumerate(names):
    clean = rng.uniform(0.1, 0.5, size)
    annotated = clean.copy()
    annotated[5 + k:9 + k, 6:12] = 1.0
    save(root / "clean" / (name + ending), clean)
    save(root / "annotated" / (name + ending), annotated)
    corners[name] = 5 + k
  return corners


def config(root, make=paired.defaults, **kw):
  cfg = make()
  cfg.update(dir=str(root), image_size=(16, 16), channels=1)
  cfg.update(kw)
  return cfg


def open_pairs(root, **kw):
  return dataset.open_dataset(config(root, **kw), 0)


# ------------------------------------------------------------------------------------- reading
def test_pairs_and_difference_mask(tmp_path):
  write_pairs(tmp_path)
  data = open_pairs(tmp_path)
  assert data.splits == ("train", "val", "test") and not data.synthetic
  total = 0
  for split in data.splits:
    source = data.split(split)
    for i in range(len(source)):
      example = source.read_one(i)
      assert example["mask"].sum() == 24 and example["image"].shape == (40, 48, 1)
      np.testing.assert_array_equal(example["mask"] > 0, example["image"] != example["clean"])
      total += 1
  assert total == 5


def test_jpeg_noise_is_no_mark(tmp_path):
  """JPEG of two qualities: exact inequality marks far more than was drawn, the threshold does not."""
  rng = np.random.default_rng(1)
  clean = np.clip(np.cumsum(rng.normal(0, 0.01, (64, 64)), 1) + 0.4, 0, 1)
  annotated = clean.copy()
  annotated[20:24, 20:40] = 1
  for name, image, quality in (("clean", clean, 95), ("annotated", annotated, 85)):
    (tmp_path / name).mkdir()
    Image.fromarray(np.round(image * 255).astype(np.uint8)).save(
        tmp_path / name / "a_1.jpg", quality=quality)
  data = open_pairs(tmp_path, val_share=0.0, test_share=0.0)
  example = data.train().read_one(0)
  drawn, unequal = 80, int((example["image"] != example["clean"]).sum())
  assert unequal > 5 * drawn
  assert example["mask"].sum() < 3 * drawn
  assert example["mask"][20:24, 20:40].all()
  wider = open_pairs(tmp_path, val_share=0.0, test_share=0.0, mask_dilate=2).train().read_one(0)
  assert wider["mask"].sum() > example["mask"].sum()
  finer = open_pairs(tmp_path, val_share=0.0, test_share=0.0, mask_threshold=0).train().read_one(0)
  assert finer["mask"].sum() == unequal


def test_drawn_mask_wins(tmp_path):
  write_pairs(tmp_path, names=("a_1", "b_1"))
  drawn = np.zeros((40, 48))
  drawn[0, 0] = 1
  save(tmp_path / "mask" / "a_1.png", drawn)
  train = open_pairs(tmp_path, val_share=0.0, test_share=0.0).train()
  sums = {train.meta(i)["id"]: train.read_one(i)["mask"].sum() for i in range(2)}
  assert sums == {"a_1.png": 1, "b_1.png": 24}


@pytest.mark.parametrize("inverted", [True, False])
def test_a_mask_of_what_was_not_drawn(tmp_path, inverted):
  write_pairs(tmp_path, names=("a_1",))
  mask = np.ones((40, 48))
  mask[5:9, 6:12] -= inverted
  save(tmp_path / "mask" / "a_1.png", mask)
  with pytest.raises(ValueError, match="it is inverted" if inverted else "marks every pixel of a_1.png"):
    open_pairs(tmp_path)


def test_a_mask_belongs_to_the_frame_whose_path_it_shares(tmp_path, caplog):
  """Frames of one name in many folders, masks in the same tree, in another format, and misplaced ones."""
  names = [f"P{p}/{i}" for p in range(3) for i in range(2)]
  write_pairs(tmp_path, names=names)
  drawn = np.zeros((40, 48))
  drawn[0, :3] = 1
  save(tmp_path / "mask" / "P1" / "0.tif", drawn)
  for misplaced in ("0.png", "P9/0.png", "P1_1.png", "P2/1_drawn.png"):
    save(tmp_path / "mask" / misplaced, drawn)
  data = open_pairs(tmp_path, val_share=0.0, test_share=0.0)
  train = data.train()
  sums = {train.meta(i)["id"]: train.read_one(i)["mask"].sum() for i in range(6)}
  assert sums == {f"{n}.png": 3 if n == "P1/0" else 24 for n in names}
  left_out = data.describe()["left_out"]
  assert [text.partition("/mask/")[2].split()[0] for text in left_out] == [
      "0.png", "P1_1.png", "P2/1_drawn.png", "P9/0.png"]
  assert all("fits no frame and is not used" in text and text in caplog.text for text in left_out)
  save(tmp_path / "mask" / "P1" / "0.png", drawn)
  with pytest.raises(ValueError, match="P1/0.png has two masks"):
    open_pairs(tmp_path)


def test_a_mask_of_twin_frames_goes_to_the_one_of_its_ending(tmp_path):
  write_pairs(tmp_path, names=("a_1",))
  write_pairs(tmp_path, names=("a_1",), ending=".tif")
  drawn = np.zeros((40, 48))
  drawn[0, 0] = 1
  save(tmp_path / "mask" / "a_1.tif", drawn)
  save(tmp_path / "mask" / "a_1.bmp", drawn)
  data = open_pairs(tmp_path, val_share=0.0, test_share=0.0)
  train = data.train()
  sums = {train.meta(i)["id"]: train.read_one(i)["mask"].sum() for i in range(2)}
  assert sums == {"a_1.png": 24, "a_1.tif": 1}
  assert "a_1.bmp fits several frames" in data.describe()["left_out"][0]


def test_unusable_files_are_reported_by_name(tmp_path):
  write_pairs(tmp_path)
  (tmp_path / "annotated" / "p1_1.png").unlink()
  (tmp_path / "clean" / "p2_1.png").unlink()
  (tmp_path / "clean" / "p3_1.png").write_text("no image")
  save(tmp_path / "clean" / "p4_1.png", np.zeros((10, 10)))
  with pytest.raises(ValueError) as caught:
    open_pairs(tmp_path)
  text = str(caught.value)
  for part in ("clean/p1_1.png has no partner", "annotated/p2_1.png has no partner", "p3_1.png",
               "p4_1.png: annotated is 40x48, clean 10x10"):
    assert part in text
  assert "\n" not in text
  data = open_pairs(tmp_path, strict=False, val_share=0.0, test_share=0.0)
  assert len(data.train()) == 1 and len(data.describe()["left_out"]) == 4


@pytest.mark.parametrize("change, error, message", [
    ({"dir": ""}, ValueError, "config.data.dir is empty"),
    ({"dir": "/nowhere"}, FileNotFoundError, "/nowhere"),
    ({"channels": 2}, ValueError, "channels=2"),
    ({"split_by": "luck"}, ValueError, "split_by='luck'"),
    ({"group_pattern": "("}, ValueError, "group_pattern"),
    ({"image_size": (0, 4)}, ValueError, "image_size"), ({"scale": (2.0, 0.5)}, ValueError, "scale"),
    ({"gain": (1.2, 0.8)}, ValueError, "gain"), ({"gamma": (1.2, 0.8)}, ValueError, "gamma"),
    ({"loss_alpha": 60}, ValueError, "loss_alpha is not a field"),
    ({"val_share": 0.9}, ValueError, "no frame is left for training")])
def test_wrong_fields_are_one_clear_line(tmp_path, change, error, message):
  write_pairs(tmp_path)
  with pytest.raises(error, match=message) as caught:
    cfg = config(tmp_path)
    cfg.update(change)
    dataset.open_dataset(cfg, 0)
  assert "\n" not in str(caught.value)


def test_empty_folder(tmp_path):
  (tmp_path / "clean").mkdir()
  (tmp_path / "annotated").mkdir()
  with pytest.raises(FileNotFoundError, match="holds no image"):
    open_pairs(tmp_path)


def test_resize_of_pairs_keeps_every_mark(tmp_path):
  write_pairs(tmp_path)
  data = open_pairs(tmp_path, resize=(20, 20), val_share=0.0, test_share=0.0)
  example = data.train().read_one(0)
  assert example["image"].shape == (20, 20, 1)
  changed = np.abs(example["image"] - example["clean"]) > 1e-6
  assert np.all(example["mask"][changed] == 1)


# -------------------------------------------------------------------------------------- splits
def test_groups_are_never_cut(tmp_path):
  names = [f"case{p:02d}_{k}" for p in range(12) for k in range(3)]
  write_pairs(tmp_path, names=names, size=(16, 16))
  data = open_pairs(tmp_path, val_share=0.2, test_share=0.2)
  where = collections.defaultdict(set)
  for split in data.splits:
    source = data.split(split)
    for i in range(len(source)):
      where[source.meta(i)["group"]].add(split)
  assert len(where) == 12 and all(len(s) == 1 for s in where.values())
  assert {s: len(data.split(s)) for s in data.splits} == {"train": 18, "val": 9, "test": 9}


def test_table_of_splits(tmp_path):
  write_pairs(tmp_path, names=("a", "b", "c"))
  (tmp_path / "labels.csv").write_text(
      "file,split,group\nclean/a.png,train,1\nclean/b.png,val,2\nclean/c.png,Unused ,3\n")
  data = open_pairs(tmp_path)
  assert data.splits == ("train", "val") and data.split("val").meta(0)["group"] == "2"
  (tmp_path / "labels.csv").write_text("file,split\nclean/a.png,train\nclean/b.png,other\nc.png,val\n")
  with pytest.raises(ValueError, match="labels.csv line 3: split 'other' is not a word that is known"):
    open_pairs(tmp_path)
  (tmp_path / "labels.csv").write_text("file,split\nclean/a.png,train\n")
  with pytest.raises(ValueError, match="does not list b.png"):
    open_pairs(tmp_path)
  with pytest.raises(FileNotFoundError, match="other.csv"):
    open_pairs(tmp_path, split_by="table", table="other.csv")
  (tmp_path / "labels.csv").write_text("file,split,group\na.png,train,1\nb.png,val,1\nc.png,train,2\n")
  with pytest.raises(ValueError, match="put all frames of a patient into one split"):
    open_pairs(tmp_path)
  assert open_pairs(tmp_path, grouping="legacy").splits == ("train", "val")  # as older runs had it


def test_older_runs_keep_their_groups():
  cfg = config("x", grouping="legacy", group_pattern=r"^(.*)_[^_]*$")
  assert splits.groups_of(["x/LUM00054_2.png", "y/single.png"], None, cfg) == ["LUM00054", "single"]


# --------------------------------------------------------------------- synthesised annotations
def synthetic(**kw):
  cfg = annotations.defaults()
  cfg.update(frames=(5, 2, 2), frame_size=(48, 56), image_size=(24, 24), channels=1)
  cfg.update(kw)
  return cfg


def test_stream_is_a_function_of_the_step():
  cfg = synthetic()
  data = dataset.open_dataset(cfg, 0)
  assert data.synthetic and "synthetic" in data.name
  options = dict(batch_size=4, seed=3)
  long = stream.train_stream(data, cfg, first_step=0, **options)
  batches = [next(long) for _ in range(4)]
  again = next(stream.train_stream(data, cfg, first_step=3, workers=1, **options))
  for key in batches[3]:
    np.testing.assert_array_equal(batches[3][key], again[key])
  halves = [next(stream.train_stream(data, cfg, first_step=3, process_index=p, process_count=2,
                                     **options)) for p in range(2)]
  np.testing.assert_array_equal(np.concatenate([h["image"] for h in halves]), again["image"])
  assert np.any(batches[0]["image"] != batches[1]["image"])
  batch = batches[0]
  assert set(batch) == {"image", "clean", "mask", "index"}
  np.testing.assert_array_equal(batch["mask"] > 0, batch["image"] != batch["clean"])


def test_evaluation_marks_are_fixed_and_follow_their_seed():
  read = lambda **kw: dataset.open_dataset(synthetic(**kw), 0).split("test").read_one(0)["image"]
  np.testing.assert_array_equal(read(), read())
  assert np.any(read() != read(eval_seed=8))


def test_real_clean_frames(tmp_path):
  write_pairs(tmp_path)
  data = dataset.open_dataset(config(tmp_path, annotations.defaults), 0)
  assert not data.synthetic and "real frames, synthetic annotations" in data.name
  example = data.split("val").read_one(0)
  assert example["clean"].shape == (40, 48, 1)


def test_frames_of_several_sizes(tmp_path):
  for k, size in enumerate(((40, 48), (33, 60), (50, 20), (40, 48))):
    save(tmp_path / "clean" / f"a{k}_1.png", np.full(size, 0.5))
  cfg = config(tmp_path, annotations.defaults, val_share=0.5, test_share=0.0)
  data = dataset.open_dataset(cfg, 0)
  batch = next(stream.train_stream(data, cfg, batch_size=4, first_step=0, seed=0))
  assert batch["image"].shape == (4, 16, 16, 1)
  source = data.split("val")
  sizes = [(source.meta(i)["height"], source.meta(i)["width"]) for i in range(len(source))]
  batch = next(stream.eval_batches(source, batch_size=2))
  assert batch["image"].shape[1:3] == tuple(np.max(sizes, 0))


def test_unknown_marks_field(tmp_path):
  cfg = synthetic()
  cfg.marks.kinds = ("none such",)
  with pytest.raises(ValueError, match="none such"):
    dataset.open_dataset(cfg, 0)


def test_compose_is_what_the_stream_uses():
  """The marks of one place of the stream, drawn by hand, are those in the batch."""
  cfg = synthetic(image_size=(48, 56), flip_lr=0.0)
  data = dataset.open_dataset(cfg, 0)
  batch = next(stream.train_stream(data, cfg, batch_size=1, first_step=2, seed=9))
  match = []
  for i in range(5):
    clean = data.train().read_one(i)["clean"]
    annotated, _, mask = annotations.annotate(clean, np.random.default_rng([9, 2]), cfg.marks)
    match.append(np.array_equal(annotated, batch["image"][0])
                 and np.array_equal(mask, batch["mask"][0]))
  assert sum(match) == 1
