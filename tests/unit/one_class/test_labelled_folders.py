"""Labelled folders: which image is on which list, by the table's words, kinds and folds."""

import hashlib

import numpy as np
from PIL import Image
import pytest

from data_pipelines.datasets import chest_xray, nih
from data_pipelines.errors import UserError
from data_pipelines.one_class import folders, folds, lists, transforms

ROWS = [*((f"train/n{i}.png", "train", "normal", f"p{i // 2}", "") for i in range(6)),
        *((f"val/n{i}.png", "val", "Normal", f"q{i}", "") for i in range(2)),
        *((f"val/a{i}.png", "val", "pneumonia", f"r{i}", ("virus", "bacteria", "Virus", "virus")[i])
          for i in range(4)),
        ("test/n.png", "test", "healthy", "s", ""), ("test/a.png", "test", "1", "t", ""),
        ("test/b.png", "test", "anomaly", "u", "nodule"), ("other.png", "unused", "normal", "p0", "")]


@pytest.fixture(name="root")
def table(tmp_path):
  (tmp_path / "labels.csv").write_text("\n".join(",".join(r) for r in (
      ("file", "split", "label", "group", "subtype"), *ROWS)))
  for name, *_ in ROWS:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    Image.new("L", (8, 8), 90).save(tmp_path / name)
  return tmp_path


def of(root, **given):
  cfg = nih.defaults()
  cfg.update(layout="folder", root=str(root), **given)
  return {part: [i.name.rpartition("/")[2][:-4] for i in items]
          for part, items in folders.folder_lists(cfg).items()}


def test_the_lists_are_those_of_the_table(root):
  normals = [f"n{i}" for i in range(6)]
  found = of(root, val_fraction=0.5)  # the table has validation images of its own
  assert found == {"train": normals, "val_normal": ["n0", "n1"], "val_anomaly": ["a0", "a1", "a2", "a3"],
                   "test_normal": ["n"], "test_anomaly": ["a", "b"]}
  assert of(root, val_kind="VIRUS")["val_anomaly"] == ["a0", "a2", "a3"]
  assert of(root, val_kind="virus", val_anomalies=2)["val_anomaly"] == ["a0", "a2"]
  cfg = nih.defaults()
  items = folders.read_labels(root, cfg)
  assert [i.kind for i in items["val", "anomaly"]] == ["virus", "bacteria", "virus", "virus"]
  assert [i.kind for i in items["test", "anomaly"]] == ["1", "nodule"]
  assert {i.kind for i in items["train", "normal"] + items["val", "normal"]} == {"normal"}
  assert [i.name for i in items["", "normal"]] == ["other.png"]


def test_files_of_a_table_are_told_apart_by_capitals_and_not_by_the_way_to_them(root):
  head, table = "file,split,label\ntrain/n0.png,train,normal\n", root / "labels.csv"
  table.write_text(head + "train/N0.png,train,normal\n")
  assert of(root, val_fraction=0.0)["train"] == ["n0", "N0"]
  table.write_text(head + "train/../train/n0.png,val,1\n")
  with pytest.raises(UserError, match="line 3: file .* is listed twice, first in line 2"):
    of(root)


def test_an_older_run_reads_its_table_as_it_did(root):
  """normal alone was normal, and train, val, test alone were splits."""
  rows = ("file,split,label", "a,train,normal", "b,train,healthy", "c,Test,0", "d,test,normal")
  (root / "labels.csv").write_text("\n".join(rows))
  found = folders.read_labels(root, {**nih.defaults(), "grouping": "legacy"})
  assert {place: [i.name for i in items] for place, items in found.items()} == {
      ("train", "normal"): ["a"], ("train", "anomaly"): ["b"], ("", "anomaly"): ["c"],
      ("test", "normal"): ["d"]}


def test_images_that_are_not_there_are_counted_before_training(root):
  item = lambda path: lists.Item(path, "p", "kind", str(root / path))
  for lost in ("train/gone.png", "nowhere/n0.png"):
    with pytest.raises(FileNotFoundError, match=f"x: 1 of 2 listed images are not there, e.g. .*{lost}"):
      lists._check_files("x", [item("train/n0.png"), item(lost)])


def test_a_fold_regroups_the_training_normals_alone(root):
  tested = []
  for k in range(3):
    found = of(root, fold=k, val_kind="virus")
    assert sorted(found["train"] + found["val_normal"] + found["test_normal"]) == [f"n{i}" for i in range(6)]
    assert set(found["test_anomaly"]) < {"a0", "a2", "a3"} and "val_anomaly" not in found
    tested += found["test_normal"] + found["test_anomaly"]
  assert sorted(tested) == sorted([f"n{i}" for i in range(6)] + ["a0", "a2", "a3"])
  with pytest.raises(UserError, match="fold=3: use 0 to 2"):
    of(root, fold=3)


def test_who_may_have_a_group_on_two_sides(root):
  cfg = nih.defaults()
  allowed = lambda **given: folders.leak_options(nih.resolve({**cfg, **given}))["allow_leaks"]
  assert not allowed() and allowed(folds="published")
  assert not allowed(layout="folder", root=str(root))
  assert allowed(layout="folder", root=str(root), grouping="legacy")


def test_folders_of_masks_and_unknown_findings(tmp_path):
  """Any word may name a finding that is tested on, not one among the images that are trained on."""
  for name in ("train/normal/a", "test/normal/b", "test/plaque/c", "Masks/plaque/c", "train/plaque/d",
               "train/e", "f"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), 90).save(tmp_path / f"{name}.png")
  with pytest.raises(UserError, match="train/plaque: label 'plaque' is not a word that is known"):
    folders.read_folders(tmp_path, chest_xray.defaults())
  (tmp_path / "train/plaque/d.png").unlink()
  found = folders.read_folders(tmp_path, chest_xray.defaults())
  assert {place: [i.name for i in items] for place, items in found.items()} == {
      ("train", "normal"): ["train/normal/a.png"], ("test", "normal"): ["test/normal/b.png"],
      ("test", "anomaly"): ["test/plaque/c.png"]}
  assert {i.kind for items in found.values() for i in items} == {"normal", "plaque"}


# ------------------------------------------------------------------------------------ the data set
def data_set(**parts):
  item = lambda name: lists.Item(name, name[:2], "kind")
  made = {"train": ["p1_a", "p2_a"], "test_normal": ["q1_a"], "test_anomaly": ["q2_a"], **parts}
  return lists.OneClassDataSet("x", {k: [item(n) for n in v] for k, v in made.items()},
                               lambda it: np.zeros((4, 4, 1), np.uint8), findings=True)


def test_masks_and_thumbnails_beside_images_are_no_images(tmp_path, caplog):
  """test/mass/masks/a.png counted as an anomaly, train/good/thumbs/a.png was trained on."""
  caplog.set_level("INFO")
  names = ("train/good/a.png", "train/good/thumbs/a.png", "test/good/b.png", "test/mass/c.png",
           "test/mass/Masks/c.png", "test/mass/sub/d.png", "val/good/e.png")
  for name in names:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), 90).save(tmp_path / name)
  found = of(tmp_path)
  assert found["train"] == ["a"] and found["test_anomaly"] == ["c", "d"]
  assert "test/mass/Masks/c.png lies in a folder of masks" in caplog.text
  assert "train/good/thumbs/a.png is a thumbnail by its folder" in caplog.text


@pytest.mark.parametrize("part", ["val_normal", "val_anomaly", "test_normal", "test_anomaly"])
def test_a_patient_who_is_trained_on_is_on_no_other_list(part):
  with pytest.raises(UserError, match="1 patient is on two sides of the split: p2 in train and"):
    data_set(**{part: ["p2_b"]})
  other = "test_anomaly" if part.startswith("val") else "val_anomaly"
  with pytest.raises(UserError, match="r1 in val and test"):
    data_set(**{part: ["r1_a"], other: ["r1_b"]})


def test_validation_may_hold_anomalies_alone():
  data = data_set(val_anomaly=["r1_a"])
  assert data.splits == ("val", "test") and data.validation() is None and len(data.split("val")) == 1
  test = data.split("test")
  assert [test.meta(i)["finding"] for i in range(2)] == ["normal", "kind"]


def test_random_ops_get_images_as_they_are_stored():
  load = lambda item: np.full((2, 2, 1), 51, np.uint8)
  make = lambda ops: lists.ImageSource([lists.Item("a", "a")], (), load, ops, cache={}).read_one(0)["image"]
  raw, shown = make((lambda batch, *_: batch,)), make(())
  assert raw.dtype == np.uint8 and raw[0, 0, 0] == 51
  assert shown.dtype == np.float32 and shown[0, 0, 0] == pytest.approx(-0.6)


def test_a_batch_is_normalised_as_one_image_is():
  image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
  wanted = transforms.normalize(image)
  assert (wanted[0, 0, 0], wanted[-1, -1, 0]) == (-1, 1)
  found = transforms.normalize_batch()({"image": image[None], "label": 1}, None, 0, 1, 1)
  np.testing.assert_allclose(found["image"][0], wanted, atol=1e-6)


def test_shares_of_groups_are_rounded():
  """0.35 of ten patients are four, with both of their images."""
  groups = [f"g{i // 2}" for i in range(20)]
  held = folds.split_groups(groups, 0.35, 3)
  assert held.sum() == 8 and len({g for g, h in zip(groups, held) if h}) == 4
  train, val = lists.hold_out([lists.Item(str(i), g) for i, g in enumerate(groups)],
                              {"val_fraction": 0.35, "fold_seed": 3})
  assert [int(i.name) for i in val] == np.flatnonzero(held).tolist() and len(train) == 12


def test_groups_of_anomalies_are_drawn_for_every_fold():
  normal, anomalous = [f"n{i}" for i in range(9)], [f"a{i:02}" for i in range(30)]
  made = [[f["test_anomaly"].tolist() for f in folds.group_folds(normal, anomalous, seed)] for seed in (0, 1)]
  assert made[0] != made[1] and sorted(i for part in made[0] for i in part) == list(range(30))
  assert [len(part) for part in made[0]] == [10] * 3


def test_names_of_patches_and_lists():
  assert folds.slide_of("tumor_007_normal_x_139776_y_61440_w_768_h_768.jpg") == "tumor_007"
  assert folds.checksum(["a", "b"]) == hashlib.sha256(b"a\nb\n").hexdigest()[:16]


def test_what_a_method_is_fitted_on_is_not_what_training_prepared(root):
  """Whatever was read before: images kept in memory are those of one preparation."""
  Image.fromarray(np.random.default_rng(0).integers(60, 90, (40, 40), np.uint8)).save(
      root / "train/n0.png")
  cfg = nih.resolve({**nih.defaults(), "layout": "folder", "root": str(root), "crop_size": 40, "resize": 40,
                     "equalize_hist_test": True})
  data = nih.build(cfg, 0)
  trained, fitted = (source.read_one(0)["image"] for source in (data.train(), data.fitting()))
  raw = np.asarray(Image.open(root / "train/n0.png"))[..., None]
  np.testing.assert_array_equal(trained, transforms.normalize(raw))
  np.testing.assert_array_equal(fitted, transforms.normalize(transforms.equalize(raw)))
  assert not np.array_equal(trained, fitted)
  told = data.describe()
  assert {k: told[k] for k in ("crop_size", "resize", "equalize_hist", "equalize_hist_test")} == {
      "crop_size": 40, "resize": 40, "equalize_hist": False, "equalize_hist_test": True}


@pytest.mark.parametrize("shape, corner", [((301, 303), (38, 40)), ((303, 224), (40, 0)),
                                           ((226, 259), (1, 18))])
def test_a_crop_comes_back_to_where_it_was_taken(shape, corner):
  """Halves are rounded to even, in both directions alike."""
  image = np.random.default_rng(0).uniform(1, 2, shape)
  crop = transforms.center_crop(image[..., None], 224)[..., 0]
  expected = np.zeros(shape)
  inside = tuple(slice(c, c + 224) for c in corner)
  expected[inside] = image[inside]
  np.testing.assert_array_equal(transforms.uncrop(crop, 224, shape, shape), expected)
  with pytest.raises(UserError, match="crop_size=224 exceeds"):
    transforms.center_crop(np.zeros((300, 223, 1)), 224)


# ------------------------------------------------------------------------------- published lists
@pytest.mark.parametrize("fold, said", [(-1, "final lists"), (0, "fold 0, published lists"),
                                        (2, "fold 2, published lists")])
def test_published_lists_of_a_view_are_those_of_its_fold(tmp_path, fold, said):
  """Every list has an image of its own, named by patient."""
  names = {}
  for k in (-1, 0, 1, 2):
    where = tmp_path / ("train_test_split/nih/AP" if k < 0 else f"folds/nih/AP/{k}")
    for number, (side, part) in enumerate((("normal", "train"), ("normal", "val"), ("normal", "test"),
                                           ("anomaly", "test"))):
      names[k, side, part] = f"{k + 1:07d}{number}_000.png"
      (where / side).mkdir(parents=True, exist_ok=True)
      (where / side / part).write_text(names[k, side, part] + "\n")
  cfg = nih.defaults()
  cfg.update(view="AP", folds="published", fold=fold, lists_root=str(tmp_path), image_root=str(tmp_path))
  found, notes = nih._lists(cfg)
  assert notes == {"protocol": said, "view": "AP"}
  entry = lambda side, part, kind: [(names[fold, side, part], names[fold, side, part][:8], kind)]
  assert {part: [(i.name, i.group, i.kind) for i in items] for part, items in found.items() if items} == {
      "train": entry("normal", "train", "No Finding"), "test_normal": entry("normal", "test", "No Finding"),
      "test_anomaly": entry("anomaly", "test", "anomaly" if fold < 0 else "Infiltration"),
      **({} if fold < 0 else {"val_normal": entry("normal", "val", "No Finding")})}


@pytest.mark.parametrize("k, said", [(0, "fold 0"), (1, "fold 1")])
def test_images_of_the_subset_are_regrouped_by_patient(tmp_path, k, said):
  for side, part, first in (("normal", "train", 0), ("normal", "val", 30), ("anomaly", "test", 60)):
    where = tmp_path / "folds/nih/subset/0" / side
    where.mkdir(parents=True, exist_ok=True)
    (where / part).write_text("".join(f"{first + i // 2:08d}_{i % 2:03d}.png\n" for i in range(24)))
  cfg = nih.defaults()
  cfg.update(view="subset", folds="leakfree", fold=k, lists_root=str(tmp_path), image_root=str(tmp_path))
  found, notes = nih._lists(cfg)
  assert notes == {"protocol": f"{said}, published images regrouped by patient", "view": "subset"}
  groups = {part: {i.group for i in found[part]} for part in ("train", "val_normal", "test_normal")}
  assert not groups["train"] & groups["test_normal"] and not groups["val_normal"] & groups["test_normal"]
  assert sum(len(found[part]) for part in groups) == 48


def test_a_fold_that_was_not_published_is_refused(tmp_path):
  cfg = nih.defaults()
  cfg.update(view="AP", folds="published", fold=3, lists_root=str(tmp_path), image_root=str(tmp_path))
  with pytest.raises(UserError, match="config.data.fold=3: the published folds are 0 to 2"):
    nih._lists(cfg)


def test_whose_an_image_is_follows_the_pattern_and_kinds_are_nobody_s_names(tmp_path, root, monkeypatch):
  told = []
  monkeypatch.setattr(folders.patients, "of_files", lambda names, *args, **more: told.append(
      (*args[:2], more["kinds"])) or names)
  monkeypatch.setattr(folders.patients, "of_rows", lambda rows, names, *args: told.append(args[:2]) or names)
  cfg = {**nih.defaults(), "group_pattern": "(p.)", "grouping": "file",
         "anomaly_words": ("Controls2", "pneumonia")}
  for place in ("train/normal", "test/normal", "test/Controls2", "val/pneumonia"):
    (tmp_path / "set" / place).mkdir(parents=True)
    Image.fromarray(np.full((8, 8), 40 + len(place), np.uint8)).save(tmp_path / "set" / place / "a.png")
  folders.read_folders(tmp_path / "set", cfg)
  folders.read_labels(root, cfg)
  assert told == [("(p.)", "file", {"normal", "pneumonia", "controls2"}), ("(p.)", "file")]


@pytest.mark.parametrize("column, views, said", [
    ("View Position", ("PA", "LL"), "by its column 'view position' 8 of 15 images are lateral views"),
    ("projection", ("pa", "AP"), ""), ("view", ("L", "R"), ""), ("age", ("PA", "LL"), ""),
    ("view", ("LL", "LL"), "")])
def test_lateral_views_by_a_column_are_said(root, caplog, column, views, said):
  table = root / "labels.csv"
  rows = [f"{line},{views[i % 2] if i else column}" for i, line in enumerate(table.read_text().splitlines())]
  table.write_text("\n".join(rows))
  of(root, val_fraction=0.5)
  assert said in caplog.text and bool(said) == ("lateral" in caplog.text)


def test_a_kind_of_anomalies_that_is_not_there_is_refused(root, monkeypatch):
  """A misspelt one left validation without anomalies, and nothing said so."""
  with pytest.raises(UserError, match="of config.data.val_kind='virsu'; there are (virus|bacteria), "):
    of(root, val_kind="virsu")
  monkeypatch.setattr(folders.scored_alone, "now", lambda: True)  # another hospital's, scored by the same run
  assert of(root, val_kind="virsu")["val_anomaly"] == []
