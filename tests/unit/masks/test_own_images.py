"""Images of one's own folder, pairs and segmentation sets, as training and scoring see them."""

import dataclasses

import numpy as np
from PIL import Image
import pytest

from data_pipelines import fields
from data_pipelines.datasets import (
  own_folder,
  paired,
  segmentation,
  synthetic_radiographs,
  synthetic_textures,
)
from data_pipelines.errors import UserError
from data_pipelines.masks import images as mask_images
from data_pipelines.masks.images import Item


def save(path, pixels):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path)
  return path


@pytest.fixture(scope="module", name="root")
def own(tmp_path_factory):
  root = tmp_path_factory.mktemp("own") / "set"
  for i in range(12):
    save(root / "normal" / f"p{i:02d}.png", np.full((8, 8), 60 + i, np.uint8))
  mark = np.zeros((8, 8), np.uint8)
  mark[:, :5] = 255
  save(root / "abnormal" / "x.png", mark)
  save(root / "masks" / "x.png", mark)
  return root


def opened(root, **given):
  given = {"image_size": (8, 8), **given}
  return own_folder.build(fields.changed(own_folder.defaults(), dir=str(root), **given), 0)


def test_one_inverted_mask_among_right_ones_is_said(tmp_path, caplog):
  """More than half of them were, one was not: most of its image counted as lesion."""
  pairs = []
  for i in range(4):
    right = np.zeros((20, 24), np.uint8)
    right[:, :9 + i], right[3, 4] = 255, 0  # it reaches the border on three sides, and has a hole
    right = 255 - np.pad(right[2:-2, 2:-2], 2) if i == 2 else right if i else np.full_like(right, 255)
    pairs.append((save(tmp_path / f"{i}.png", right // 2), save(tmp_path / f"{i}_m.png", right)))
  shares = mask_images.check_pairs([pairs[k] for k in (0, 1, 3)])
  assert shares[0] == 1 and not caplog.text
  mask_images.check_pairs(pairs)
  assert "1 of 4 masks mark the whole border" in caplog.text and f"first {pairs[2][1]}: is it" in caplog.text


def test_masks_beside_abnormal_images_are_said(root, tmp_path, caplog):
  """BUSI's way: they were left out with a line of information, and nothing was measured by pixels."""
  import shutil
  shutil.copytree(root, tmp_path / "set")
  (tmp_path / "set/masks/x.png").rename(tmp_path / "set/abnormal/x_mask.png")
  (tmp_path / "set/masks").rmdir()
  opened(tmp_path / "set")
  assert "1 files beside abnormal images are named as their masks" in caplog.text
  caplog.clear()
  opened(root)
  assert "are named as their masks" not in caplog.text


def test_abnormal_images_are_scored_and_never_learned_from(root):
  """Also where a split has some: neither weights nor what is fitted afterwards sees them."""
  data = opened(root)
  ill, = (m for m in data.parts["test"] if m.label)
  assert data.has_lesions("test") and not data.has_lesions("val")
  for split in ("train", "val"):
    data.parts[split] = [dataclasses.replace(ill, split=split), *data.parts[split]]
  for source, split in ((data.train(), "train"), (data.fitting(), "train"), (data.validation(), "val")):
    assert len(source) == len(data.parts[split]) - 1
    assert "abnormal/x.png" not in [source.meta(i)["id"] for i in range(len(source))]
  assert len(data.split("val")) == len(data.parts["val"]) and data.has_lesions("val")
  assert not data.fitting().batch_ops
  described = opened(root).describe()
  assert described["synthetic"] is False and described["source"] == str(root)
  assert sum(s["abnormal"] for s in described["splits"].values()) == 1
  assert sum(s["normal"] for s in described["splits"].values()) == 12


@pytest.mark.parametrize("signed", [False, True])
def test_values_and_masks_of_ones_own_images(root, tmp_path, signed):
  data = opened(root, signed=signed)
  spec = own_folder.spec(fields.changed(own_folder.defaults(), image_size=(8, 8), signed=signed))
  assert (spec.low, spec.high) == (-1 if signed else 0, 1)
  test = data.split("test")
  example = next(e for e in map(test.read_one, range(len(test))) if e["label"])
  np.testing.assert_array_equal(example["image"][:, 0, 0], 1)
  np.testing.assert_array_equal(example["image"][:, 7, 0], -1 if signed else 0)
  np.testing.assert_array_equal(example["mask"][0, :, 0], [1] * 5 + [0] * 3)
  deep = save(tmp_path / "a.png", np.linspace(0, 4000, 64).astype(np.uint16).reshape(8, 8))
  cfg = fields.changed(own_folder.defaults(), image_size=(8, 8), signed=signed, window=(0, 4000))
  want = np.linspace(0, 4000, 64).astype(np.uint16).reshape(8, 8, 1) / 4000
  np.testing.assert_allclose(own_folder.read_example(deep, cfg), 2 * want - 1 if signed else want, atol=1e-6)
  masks = opened(root, signed=signed, image_size=(2, 2)).split("test")  # columns 0 to 3, and 4 of 4 to 7
  found = next(e["mask"] for e in map(masks.read_one, range(len(masks))) if e["label"])
  np.testing.assert_array_equal(found[..., 0], [[1, 0]] * 2)


@pytest.mark.parametrize("given", [dict(flip=True), dict(gain=0.2)])
def test_what_varies_volumes_is_refused_for_images(root, given):
  with pytest.raises(UserError, match="flip and gain are of volumes"):
    opened(root, **given)


# ------------------------------------------------------------------------------- segmentation, pairs
def items(part, n, truth=True):
  image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
  expert, other = np.zeros((8, 8), np.float32), np.zeros((8, 8), np.float32)
  expert[:, :4], other[:, 2:6] = 1, 1
  return [Item(f"{part}{k}", lambda: image, lambda: other if part == "noisy" else expert,
               (lambda: expert) if truth else None) for k in range(n)]


def test_streams_of_noisy_and_clean_masks(tmp_path):
  def made(**given):
    cfg = segmentation.resolve(fields.changed(segmentation.defaults(), image_size=8, **given))
    return segmentation.Segmentation(cfg, {"noisy": items("noisy", 3), "clean": items("clean", 2)}, "x")
  data = made(crop=4, noisy_includes_clean=True)
  streams = data.train()
  samples = lambda source: [int(source.read_one(i)["sample"]) for i in range(len(source))]
  assert samples(streams["noisy"]) == [0, 1, 2, -1, -1] and samples(streams["clean"]) == [-1, -1]
  assert samples(data.split("noisy")) == [0, 1, 2] and samples(data.split("clean")) == [-1, -1]
  assert streams["noisy"].read_one(0)["image"].shape == (12, 12, 3)  # 4 pixels for the crop
  names = lambda **given: [o.__qualname__.partition(".")[0] for o in made(**given).train()["clean"].batch_ops]
  assert names(crop=4) == ["paired_crop", "paired_flip"] and names() == ["paired_flip"]
  assert names(crop=4, flip=False) == ["paired_crop"] and not names(flip=False)
  assert data.noise_dice() == 0.5  # against the experts': 2 of 4 columns


def test_the_mean_image_is_taken_off_everywhere(tmp_path):
  np.save(tmp_path / "mean.npy", np.full((4, 4, 3), 0.25, np.float32))
  cfg = fields.changed(segmentation.defaults(), image_size=8, mean_image=str(tmp_path / "mean.npy"))
  pixels = np.full((8, 8, 3), 51, np.uint8)
  np.testing.assert_allclose(segmentation.of_pixels(cfg)[0](pixels), 0.2 - 0.25, atol=1e-6)
  path = save(tmp_path / "a.png", pixels)
  np.testing.assert_allclose(segmentation.read_example(path, cfg), -0.05, atol=1e-6)
  assert segmentation.spec(cfg).low == -1 and segmentation.spec(segmentation.defaults()).low == 0


def test_differences_grow_by_the_pixels_that_are_asked_for():
  clean = np.zeros((9, 9, 3), np.float32)
  annotated = clean.copy()
  annotated[4, 4, 1] = 1
  for steps, pixels in ((0, 1), (1, 5), (3, 25)):  # diamonds
    assert paired.difference_mask(annotated, clean, 8, steps).sum() == pixels


def test_deep_frames_of_a_pair_are_read_by_the_window(tmp_path):
  frames = np.linspace(0, 3000, 64).astype(np.uint16).reshape(8, 8)
  both = [save(tmp_path / side / "a.png", frames) for side in ("annotated", "clean")]
  cfg = paired.resolve(fields.changed(paired.defaults(), channels=1, window=(0, 4095)))
  for found in paired.FilePair("a", both[0], "p", cfg, both[1]).load()[:2]:
    np.testing.assert_allclose(found[..., 0], frames / 4095, atol=1e-6)


@pytest.mark.parametrize("module", [synthetic_textures, synthetic_radiographs])
def test_drawn_images_and_files_are_shown_alike(module, tmp_path):
  path = save(tmp_path / "a.png", np.full((16, 16), 51, np.uint8))
  shown = {}
  for signed in (False, True):
    cfg = fields.changed(module.defaults(), image_size=16, signed=signed, n_train=2, n_val=2, n_test=2)
    np.testing.assert_allclose(module.read_example(path, cfg), 0.4 - 1 if signed else 0.2, atol=1e-6)
    data = module.build(cfg, 0)
    shown[signed] = data.split("test").read_one(0)["image"], data.train().read_one(0)["image"]
  for plain, both in zip(*shown.values()):
    np.testing.assert_allclose(both, 2 * plain - 1, atol=1e-6)


def test_several_masks_of_an_image_are_to_be_joined(root, tmp_path):
  """BUSI's, put into masks/ as the warning says: the line told of a mask without an image."""
  import shutil
  shutil.copytree(root, tmp_path / "set")
  (tmp_path / "set/masks/x.png").rename(tmp_path / "set/masks/x_mask.png")
  shutil.copy(tmp_path / "set/masks/x_mask.png", tmp_path / "set/masks/x_mask_1.png")
  with pytest.raises(UserError, match=r"x_mask_1.png is one of several masks of x by its name: join them"):
    opened(tmp_path / "set")
  (tmp_path / "set/masks/x_mask.png").rename(tmp_path / "set/masks/x_mask_2.png")
  for call in (lambda: opened(tmp_path / "set"),
               lambda: mask_images.pair(tmp_path / "set/abnormal", tmp_path / "set/masks")):
    with pytest.raises(UserError, match="x_mask_1.png is one of several masks of"):
      call()


def noise(k):
  return np.random.default_rng(k).integers(50, 200, (12, 10)).astype(np.uint8)


def pictures(root):
  """Eight normal and three abnormal pictures of more greys than a mask has."""
  for k in range(11):
    side = "normal" if k < 8 else "abnormal"
    save(root / side / "images" / f"p{k}.png", noise(k))
  return root


def marked(k):
  mark = np.zeros((12, 10), np.uint8)
  mark[2:5 + k % 3, 3:7] = 255
  return mark


@pytest.mark.parametrize("folder", ["lesion_masks", "tumor masks", "mask_png", "boxes"])
def test_folders_of_masks_beside_abnormal_images_are_none_of_them(tmp_path, folder):
  """Each mask was an abnormal image of the test, without a word."""
  root = pictures(tmp_path)
  for k in range(8, 11):
    save(root / "abnormal" / folder / f"p{k}.png", marked(k))
  why = "has two grey values .* count as abnormal images" if folder == "boxes" else (
      f"lies in {folder}, which is named as a folder of masks")
  with pytest.raises(UserError, match=f"{folder}/p10.png {why}"):
    opened(root)


@pytest.mark.parametrize("name, refused", [
    ("p{}_tumor", True), ("p{}_other1", True), ("bw_p{}", True), ("p{}_anno", False), ("p{}_2", True)])
def test_masks_beside_an_image_by_their_greys_are_no_images(tmp_path, caplog, name, refused):
  """case001_tumor.png of BrEaST, testA_1_anno.bmp of GlaS: a lesion was an abnormal image of its own."""
  root = pictures(tmp_path)
  for k in range(8, 11):
    save(root / "abnormal/images" / f"{name.format(k)}.png", marked(k))
  if refused:
    with pytest.raises(UserError, match="has two grey values alone, as the mask of p10.png has"):
      opened(root)
  else:
    assert len(opened(root).listing) == 11 and "3 files beside abnormal images are named as" in caplog.text


def test_copies_that_somebody_drew_on_are_no_images(tmp_path):
  root = pictures(tmp_path)
  for k in range(8, 11):
    save(root / "abnormal/annotated" / f"p{k}.png", marked(k))
  assert len(opened(root).listing) == 11


def test_pictures_beside_each_other_are_images(tmp_path, caplog):
  root = pictures(tmp_path)
  for k in range(8, 11):
    save(root / "abnormal/images" / f"p{k}_2.png", noise(k + 9))
    save(root / "abnormal/views" / f"q{k}.png", noise(k + 99))
  assert len(opened(root).listing) == 17 and "views" not in caplog.text


@pytest.mark.parametrize("name, text, said", [
    ("instances.json", '{"images": [{"file_name": "a.png"}]}', True),
    ("a.xml", "<annotations><image/>", True),
    ("about.json", '{"licence": "x"}', False), ("note.xml", "<svg/>", False)])
def test_lists_of_outlines_beside_images_are_said(tmp_path, caplog, name, text, said):
  """COCO, CVAT and VIA have one file for all images: nothing of it was read, without a word."""
  root = pictures(tmp_path)
  (root / name).write_text(text)
  opened(root)
  assert (f"{name} lists boxes or outlines of images, which are not read" in caplog.text) == said


def test_lateral_views_by_their_names_are_said(tmp_path, caplog):
  root = pictures(tmp_path)
  names = [f"normal/images/p{k}_{view}.png" for k in range(2) for view in ("lateral", "pa")]
  for k, name in enumerate(names):
    save(root / name, noise(k + 50))
  opened(root)
  assert "lateral" not in caplog.text
  for name in names[1::2]:
    (root / name).rename(root / name.replace("_pa", "_frontal"))
  opened(root)
  assert "2 of 15 images are lateral views by their names, the first normal/images/p0_lat" in caplog.text


@pytest.mark.parametrize("name", ["a_mask", "a_seg", "a"])
def test_masks_of_pairs_may_end_as_others_do(tmp_path, name):
  found, foreign = paired.masks_of(["a.png", "b.png"], save(tmp_path / f"{name}.png", marked(1)).parent)
  assert list(found) == ["a.png"] and not foreign
