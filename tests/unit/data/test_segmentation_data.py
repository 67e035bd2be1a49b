"""Segmentation data: pairing, checked masks, streams, paired augmentation, one line an error."""

import csv

import numpy as np
from PIL import Image
import pytest

from configs import noisy_skin
from data_pipelines import stream
from data_pipelines.datasets import segmentation
from data_pipelines.masks import images as paired_images, synthetic_lesions
from data_pipelines.prepare import noisy_study


def config(**data):
  c = noisy_skin.get_config("smoke").copy_and_resolve_references()
  with c.unlocked():
    c.data.update(data)
  return c


def folders(folder, **data):
  return config(layout="folders", dir=str(folder), noise="", **data)


def write_pairs(folder, name, n, start=0, suffix="_segmentation"):
  for kind in ("img", "gt"):
    (folder / f"{name}_{kind}").mkdir(parents=True, exist_ok=True)
  for i in range(start, start + n):
    image, mask = synthetic_lesions.draw(1, name, i)
    Image.fromarray(image).save(folder / f"{name}_img" / f"case{i}.jpg")
    Image.fromarray((255 * mask).astype(np.uint8)).save(
        folder / f"{name}_gt" / f"case{i}{suffix}.png")


@pytest.fixture
def folder(tmp_path):
  for name, n in (("training/noisy", 6), ("training/clean", 4), ("test", 3), ("val", 2)):
    write_pairs(tmp_path, name, n)
  return tmp_path


def test_folder_layout(folder):
  c = folders(folder)
  data = segmentation.build(c.data, 0)
  assert data.splits == ("val", "test", "noisy", "clean") and not data.synthetic
  batch = next(stream.train_stream(data, c.data, batch_size=4, first_step=0, seed=0))
  assert batch["noisy"]["image"].shape == (4, 16, 16, 3)
  assert set(np.unique(batch["clean"]["mask"])) <= {0, 1}
  assert data.split("noisy").native(0)["truth"] is None
  native = data.split("test").native(0)
  assert native["image"].shape == (72, 96, 3) and native["truth"].shape == (72, 96)
  assert data.describe()["noise_dice_first_100"] is None
  noisy = segmentation.build(config(layout="folders", dir=str(folder), noise="polygon:3").data, 0)
  assert 0.2 < noisy.describe()["noise_dice_first_100"] < 0.95


def test_validation_held_out_of_the_clean_images(folder):
  for kind in ("img", "gt"):
    (folder / f"val_{kind}").rename(folder / f"unused_{kind}")
  data = segmentation.build(folders(folder, val_from_clean=1).data, 0)
  assert len(data.validation()) == 1 and len(data.train()["clean"]) == 3
  assert segmentation.build(folders(folder).data,
                           0).validation() is None


def error(folder, **data):
  with pytest.raises((ValueError, OSError)) as e:
    segmentation.build(folders(folder, **data).data, 0)
  assert "\n" not in str(e.value)
  return str(e.value)


def test_missing_partner(folder):
  (folder / "training" / "noisy_gt" / "case3_segmentation.png").unlink()
  assert "no partner" in error(folder) and "case3.jpg" in error(folder)


def test_mask_without_image(folder):
  (folder / "test_img" / "case1.jpg").unlink()
  assert "no partner" in error(folder) and "case1_segmentation.png" in error(folder)


def test_empty_mask_folder(folder):
  for file in (folder / "training" / "clean_gt").iterdir():
    file.unlink()
  assert "clean_gt holds no image" in error(folder)


def test_missing_folders(folder, tmp_path):
  (folder / "training" / "clean_gt").rename(folder / "elsewhere")
  assert "clean_gt does not exist" in error(folder)
  assert "does not exist" in error(tmp_path / "nowhere")


def test_mask_with_other_values(folder):
  path = folder / "training" / "noisy_gt" / "case2_segmentation.png"
  grey = np.zeros((72, 96), np.uint8)
  grey[10:20, 10:20] = 130
  Image.fromarray(grey).save(path)
  assert "130" in error(folder) and "soft_masks" in error(folder)
  data = segmentation.build(folders(folder, soft_masks=True).data, 0)
  mask = data.split("noisy").read_one(2)["mask"]
  assert ((mask > 0) & (mask < 1)).any()


def test_rgb_mask(folder):
  path = folder / "test_gt" / "case0_segmentation.png"
  Image.fromarray(synthetic_lesions.draw(0, "x", 0)[0]).save(path)
  assert "has colours" in error(folder)


def test_swapped_clean_folders_raise(folder):
  """The published script trains on masks as images and photographs as masks."""
  training = folder / "training"
  (training / "clean_img").rename(training / "other")
  (training / "clean_gt").rename(training / "clean_img")
  (training / "other").rename(training / "clean_gt")
  for file in (training / "clean_img").iterdir():  # as the published listing pairs them: by place
    file.rename(file.with_name(file.name.replace("_segmentation", "")))
  assert "swapped" in error(folder)


def test_unreadable_files(folder):
  (folder / "test_gt" / "case0_segmentation.png").write_bytes(b"not an image")
  assert "is not a readable mask" in error(folder)
  write_pairs(folder, "test", 1)
  (folder / "test_img" / "case0.jpg").write_bytes(b"not an image")
  assert "is not a readable image" in error(folder)
  write_pairs(folder, "test", 1)
  whole = (folder / "test_img" / "case0.jpg").read_bytes()
  (folder / "test_img" / "case0.jpg").write_bytes(whole[:len(whole) // 2])
  assert "case0.jpg is not a readable image" in error(folder) and "truncated" in error(folder)


def test_mask_of_another_size(folder):
  path = folder / "training" / "noisy_gt" / "case2_segmentation.png"
  Image.fromarray(np.zeros((72, 90), np.uint8)).save(path)
  assert "is 96x72 and its mask" in error(folder) and "is 90x72 pixels" in error(folder)


def test_zero_one_masks_are_masks(tmp_path):
  mask = np.zeros((8, 8), np.uint8)
  mask[2:4, 2:5] = 1
  Image.fromarray(mask).save(tmp_path / "m.png")
  assert paired_images.read_mask(tmp_path / "m.png").sum() == 6


def manifest(tmp_path, rows, columns=("image", "mask", "split")):
  with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8") as file:
    out = csv.writer(file)
    out.writerow(columns)
    out.writerows(rows)
  return config(layout="manifest", dir=str(tmp_path), clean=2)


def test_manifest(tmp_path):
  write_pairs(tmp_path, "all", 8)
  rows = [(f"all_img/case{i}.jpg", f"all_gt/case{i}_segmentation.png", split)
          for i, split in enumerate(["train"] * 6 + ["val", "test"])]
  c = manifest(tmp_path, rows)
  data = segmentation.build(c.data, 0)
  assert len(data.train()["clean"]) == 2 and len(data.train()["noisy"]) == 4
  clean = {i.id for i in data.parts["clean"]}
  with c.unlocked():
    c.data.clean = 3  # more clean images contain the fewer
  assert clean < {i.id for i in segmentation.build(c.data, 0).parts["clean"]}
  source = data.split("noisy")
  truth, noisy = source.native(0)["truth"], source.native(0)["mask"]
  assert (noisy != truth).any() and noisy.any()
  again = segmentation.build(c.data, 5).split("noisy").native(0)["mask"]
  np.testing.assert_array_equal(noisy, again)
  with c.unlocked():
    c.data.clean = 6
  with pytest.raises(ValueError, match="config.data.clean=6: choose 1 to 5"):
    segmentation.build(c.data, 0)


@pytest.mark.parametrize("columns, match", [(("image", "truth", "split"), "no column 'mask'"),
                                            (("a", "mask", "split"), "no column 'image'")])
def test_manifest_without_a_column(tmp_path, columns, match):
  with pytest.raises(ValueError, match=match):
    segmentation.build(manifest(tmp_path, [("a", "b", "train")], columns).data, 0)


def test_no_manifest(tmp_path):
  with pytest.raises(FileNotFoundError, match="config.data.dir"):
    segmentation.build(config(layout="manifest", dir=str(tmp_path)).data, 0)
  with pytest.raises(ValueError, match="config.data.layout"):
    segmentation.build(config(layout="nested").data, 0)


def test_augmentation_is_paired_recorded_and_the_same_for_any_share_of_hosts():
  c = config(crop=4, flip=True)
  data = segmentation.build(c.data, 0)
  batches = lambda **kw: next(stream.train_stream(data, c.data, batch_size=4, first_step=3, seed=0,
                                                  **kw))
  whole = batches()["noisy"]
  halves = [batches(process_index=p, process_count=2)["noisy"] for p in range(2)]
  for key, value in whole.items():
    np.testing.assert_array_equal(value, np.concatenate([h[key] for h in halves]), err_msg=key)
  source, seen = data.train()["noisy"], set()
  for step in range(6):
    batch = next(stream.train_stream(data, c.data, batch_size=4, first_step=step, seed=0))["noisy"]
    for i in range(4):
      full = source.read_one(batch["sample"][i])
      top, left, margin = batch["crop"][i]
      assert margin == 4 and 0 <= top <= 4 and 0 <= left <= 4
      seen.add((top, left, *batch["flip"][i]))
      for key in ("image", "mask"):
        cut = full[key][top:top + 16, left:left + 16]
        cut = cut[::-1] if batch["flip"][i][0] else cut
        cut = cut[:, ::-1] if batch["flip"][i][1] else cut
        np.testing.assert_array_equal(batch[key][i], cut)
  assert len({s[2:] for s in seen}) == 4 and len(seen) > 8


def test_all_means_noisy_and_clean_in_natural_proportion():
  data = segmentation.build(config(noisy_includes_clean=True).data, 0)
  both = data.train()["noisy"]
  assert len(both) == 16 and len(data.train()["clean"]) == 4
  samples = [both.read_one(i)["sample"] for i in range(16)]
  assert samples == [*range(12), -1, -1, -1, -1]
  expert = data.train()["clean"].read_one(0)["mask"]
  np.testing.assert_array_equal(both.read_one(12)["mask"], expert)


def test_mean_image(tmp_path):
  c = config(flip=False)
  source = segmentation.build(c.data, 0).split("noisy")
  paired_images.write_mean_image(source, tmp_path / "mean.npy")
  mean = segmentation.build(config(mean_image=str(tmp_path / "mean.npy"), flip=False).data, 0)
  images = mean.split("noisy").read(np.arange(12))["image"]
  assert np.abs(images.mean(0)).max() < 1e-5
  with pytest.raises(FileNotFoundError, match="mean_image"):
    segmentation.build(config(mean_image="nothing.npy").data, 0)


def test_a_study_written_to_disk_trains_like_the_one_in_memory(tmp_path):
  """prepare noisy_study -> layout folders: the same masks, and the Dice of each against the truth."""
  write_pairs(tmp_path / "set", "all", 8)
  rows = [(f"all_img/case{i}.jpg", f"all_gt/case{i}_segmentation.png", split)
          for i, split in enumerate(["train"] * 6 + ["val", "test"])]
  memory = segmentation.build(manifest(tmp_path / "set", rows).data, 0)
  dice = noisy_study.write_study(manifest(tmp_path / "set", rows).data, tmp_path / "study")
  disk = segmentation.build(folders(tmp_path / "study").data, 0)
  for part in ("noisy", "clean", "val", "test"):
    ours = {i.id: i for i in disk.parts[part]}
    assert set(ours) == {i.id for i in memory.parts[part]}
    for item in memory.parts[part]:
      np.testing.assert_array_equal(ours[item.id].mask(), item.mask())
      np.testing.assert_array_equal(ours[item.id].image(), item.image())
  with (tmp_path / "study" / "noise.csv").open(encoding="utf-8") as file:
    values = [float(r["dice"]) for r in csv.DictReader(file)]
  assert len(values) == 4 and abs(np.mean(values) - dice) < 1e-5 and dice < 0.95
  with pytest.raises(FileExistsError, match="is not empty"):
    noisy_study.write_study(manifest(tmp_path / "set", rows).data, tmp_path / "study")


def test_masks_are_found_by_their_path(folder):
  """Case numbers that begin anew in every patient's folder."""
  for p in ("P1", "P2"):
    write_pairs(folder / p, "x", 2, start=10 * int(p[1]))
    for kind in ("img", "gt"):
      place = folder / "training" / f"noisy_{kind}" / p
      place.mkdir()
      for i, file in enumerate(sorted((folder / p / f"x_{kind}").iterdir())):
        file.rename(place / (f"{i}.jpg" if kind == "img" else f"{i}_segmentation.png"))
  data = segmentation.build(folders(folder).data, 0)
  found = {i.id: (i.mask().sum(), i.group) for i in data.parts["noisy"]}
  for k, p in ((10, "P1"), (20, "P2")):
    for i in range(2):
      assert found[f"{p}/{i}"] == (synthetic_lesions.draw(1, "x", k + i)[1].sum(), p)


def test_ids_of_equal_stems_are_paths(tmp_path):
  write_pairs(tmp_path, "a", 3)
  write_pairs(tmp_path, "b", 3)
  rows = [(f"{k}_img/case{i}.jpg", f"{k}_gt/case{i}_segmentation.png", s, f"{k}{i}")
          for k, s in (("a", "train"), ("b", "test")) for i in range(3)]
  data = segmentation.build(manifest(tmp_path, rows, ("image", "mask", "split", "group")).data, 0)
  assert [i.id for i in data.parts["test"]] == [f"b_img/case{i}" for i in range(3)]


def test_held_out_clean_images_take_their_patient_with_them(tmp_path):
  for name, images in (("training/noisy", ("P1_0", "P2_0")), ("test", ("P5_0",)),
                       ("training/clean", ("P1_1", "P3_0", "P3_1", "P4_0"))):
    write_pairs(tmp_path, name, len(images))
    for kind, ending in (("img", ".jpg"), ("gt", "_segmentation.png")):
      for i, new in enumerate(images):
        place = tmp_path / f"{name}_{kind}"
        (place / f"case{i}{ending}").rename(place / (new + ending))
  for seed in range(4):
    parts = segmentation.build(folders(tmp_path, val_from_clean=1, clean_seed=seed).data, 0).parts
    trained = {i.group for part in ("noisy", "clean") for i in parts[part]}
    assert parts["val"] and not trained & {i.group for i in parts["val"]}
