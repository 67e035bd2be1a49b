"""One's own folder: sides, masks, patients and splits, for images and for volumes."""

import collections

import nibabel
import numpy as np
from PIL import Image
import pytest

from data_pipelines import dataset as datasets, fields
from data_pipelines.brains import own_scans
from data_pipelines.datasets import own_folder
from data_pipelines.errors import UserError
from data_pipelines.intake import folder_words, sides


def image(path, value=100, size=(20, 30), mark=None):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.full(size, value, np.uint8)
  if mark:
    pixels[mark] = 255
  Image.fromarray(pixels).save(path)
  return path


def volume(path, seed=0, lesion=False):
  path.parent.mkdir(parents=True, exist_ok=True)
  array = np.zeros((16, 20, 6), np.float32)
  array[3:13, 4:16, 1:5] = np.random.default_rng(seed).uniform(50, 60, (10, 12, 4))
  if lesion:
    array[6:8, 6:9, 2] = 90
  nibabel.save(nibabel.Nifti1Image(array, np.diag([-1.0, -1, 3, 1])), path)
  return path


def opened(root, **given):
  given = {"prepared_dir": str(root.parent / "prepared"), **given}
  cfg = fields.changed(own_folder.defaults(), dir=str(root), image_size=(16, 16), noise_res=2, workers=1,
                       field_mm=24.0, **given)
  return datasets.open_dataset(cfg, 0)


def twelve_normals(folder):
  for i in range(12):
    image(folder / "normal" / f"p{i:02d}.png", 60 + i)
  return folder


@pytest.fixture
def normals(tmp_path):
  return twelve_normals(tmp_path / "set")


def split_of(data):
  return {row["file"]: row["split"] for row in data.listing}


def test_normals_alone_are_split_by_patient_and_scored(normals):
  data = opened(normals)
  assert collections.Counter(split_of(data).values()) == {"train": 6, "val": 3, "test": 3}
  assert data.splits == ("val", "test") and data.decided == {"modalities": ()}
  assert set(data.split("test").read_one(0)) == {"image", "label"} and not data.has_lesions("test")
  assert len(data.train()) == 6 and len(data.validation()) == 3


@pytest.mark.parametrize("folder", ["abnormal", "Pneumonia", "ANOMALY", "defect/kind_2"])
def test_abnormal_scans_are_tested_on_never_trained(normals, folder):
  image(normals / folder / "x.png")
  image(normals / "normal" / "x_2.png")  # the same patient's normal image
  data = opened(normals)
  found = split_of(data)
  assert found[f"{folder}/x.png"] == "test" == found["normal/x_2.png"]
  assert [int(data.split("test").read_one(i)["label"]) for i in range(len(data.split("test")))].count(1) == 1


def test_a_folder_without_known_names_holds_normals_alone(tmp_path, caplog):
  for i in range(6):
    image(tmp_path / "set" / f"case{i}" / "a.png")
  with caplog.at_level("INFO"):
    assert len(opened(tmp_path / "set").listing) == 6
  assert "all of its 6 scans are taken for normal, and what lies in them is learnt" in caplog.text


@pytest.mark.parametrize("place", ["masks/x.png", "masks/abnormal/x.png", "masks/x_mask.png",
                                   "Masks/x_seg.tif", "masks/x_segmentation.bmp"])
def test_masks_are_found_by_path(normals, place):
  image(normals / "abnormal" / "x.png", mark=np.s_[4:9, 5:12])
  image(normals / place, 0, mark=np.s_[4:9, 5:12])
  data = opened(normals)
  test = data.split("test")
  row, = [i for i in range(len(test)) if test.meta(i)["id"] == "abnormal/x.png"]
  example = test.read_one(row)
  assert data.has_lesions("test") and example["label"] == 1
  inside = example["image"][..., 0][example["mask"][..., 0] > 0]
  assert inside.size and inside.min() > 0.8
  assert not test.read_one((row + 1) % len(test))["mask"].any()


def test_masks_that_fit_nothing_and_sizes_that_differ_are_refused(normals):
  image(normals / "abnormal" / "x.png")
  image(normals / "masks" / "y.png", 0)
  with pytest.raises(UserError, match="1 of 1 masks belong to no image.*y.png"):
    opened(normals)
  (normals / "masks" / "y.png").rename(normals / "masks" / "x.png")
  image(normals / "masks" / "x.png", 0, (10, 15))
  with pytest.raises(UserError, match="mask .*x.png is 15x10"):
    test = opened(normals).split("test")
    [test.read_one(i) for i in range(len(test))]


def test_one_missing_mask_leaves_pixel_metrics_out(normals):
  image(normals / "abnormal" / "x.png")
  image(normals / "abnormal" / "y.png")
  image(normals / "masks" / "x.png", 0, mark=np.s_[2:5, 2:5])
  data = opened(normals)
  assert "mask" not in data.split("test").read_one(0)
  assert data.describe()["abnormal images with a mask"] == "1 of 2"


@pytest.mark.parametrize("spoil, reason", [
    (lambda d: [p.unlink() for p in list((d / "normal").iterdir())[2:]], "too few"),
    (lambda d: (d / "normal").rename(d / "abnormal"), "no normal scan"),
    (lambda d: volume(d / "normal" / "v.nii.gz"), "both NIfTI volumes and images"),
    (lambda d: [p.unlink() for p in (d / "normal").iterdir()], "or image or DICOM"),
])
def test_folders_that_cannot_train_are_one_line(normals, spoil, reason):
  spoil(normals)
  with pytest.raises((UserError, FileNotFoundError), match=reason) as e:
    opened(normals)
  assert "\n" not in str(e.value)


def test_images_are_not_squeezed_and_maps_come_back(normals, tmp_path):
  module = datasets.module("own_folder")
  cfg = module.resolve(fields.changed(own_folder.defaults(), image_size=(16, 16)))
  path = image(tmp_path / "wide.png", 200, (10, 40))
  shown = module.read_example(path, cfg)
  assert (shown[6:10] > 0.7).all() and not shown[:6].any() and not shown[10:].any()
  spot = np.zeros((16, 16))
  spot[8, 2] = 1
  back = module.place_map(spot, (10, 40), cfg)
  assert back.shape == (10, 40) and np.unravel_index(back.argmax(), back.shape)[1] in (5, 6)


# ------------------------------------------------------------------------------------- volumes
def test_volumes_with_and_without_masks(tmp_path):
  root = tmp_path / "set"
  for i in range(6):
    volume(root / "normal" / f"n{i}.nii.gz", i)
  volume(root / "abnormal" / "a.nii.gz", 7, True)
  data = opened(root)
  assert data.decided == {"modalities": ("image",)}
  test = data.split("test")
  found = [(test.meta(i)["scan_label"], int(test.read_one(i)["label"])) for i in range(len(test))]
  assert set(found) == {(0, 0), (1, -1)}  # nobody marked the abnormal one: its slices are not known
  assert "mask" not in test.read_one(0) and not data.has_lesions("test")
  mask = np.zeros((16, 20, 6), np.uint8)
  mask[6:8, 6:9, 2] = 1
  (root / "masks").mkdir()
  nibabel.save(nibabel.Nifti1Image(mask, np.diag([-1.0, -1, 3, 1])), root / "masks" / "a.nii.gz")
  marked = opened(root, prepared_dir=str(tmp_path / "again"))
  test = marked.split("test")
  assert marked.has_lesions("test") and sum(int(test.read_one(i)["label"]) for i in range(len(test))) == 1


def test_modalities_are_told_by_names(tmp_path):
  root = tmp_path / "set"
  for i in range(4):
    for m in ("flair", "t1"):
      volume(root / f"P{i}" / f"P{i}_{m}.nii.gz", i)
  assert opened(root).decided == {"modalities": ("flair", "t1")}
  (root / "P2" / "P2_t1.nii.gz").unlink()
  assert opened(root, prepared_dir=str(tmp_path / "one")).decided == {"modalities": ("flair",)}
  with pytest.raises(UserError, match="P2/P2 .t1."):
    opened(root, modalities=("flair", "t1"))


# ------------------------------------------------------------------------------- the recorded split
def test_a_recorded_split_holds_when_files_come_and_go(normals, tmp_path, caplog):
  from medae_jax.core.files import write_csv
  first = opened(normals)
  table = tmp_path / "splits.csv"
  write_csv(table, first.listing)
  for i in range(12, 30):
    image(normals / "normal" / f"p{i}.png")
  again = opened(normals, split_table=str(table))
  assert split_of(again) == split_of(first) and "18 scans are newer" in caplog.text
  (normals / "normal" / "p03.png").unlink()
  with pytest.raises(UserError, match="1 files of .*splits.csv are not in the data folder.*p03.png"):
    opened(normals, split_table=str(table))


def test_a_recorded_split_holds_for_names_that_its_table_writes_as_text(tmp_path):
  """=a.png stands as '=a.png in splits.csv, so that no spreadsheet computes it."""
  from medae_jax.core.files import write_csv
  for i in range(8):
    image(tmp_path / "set" / f"{'=+-@'[i % 4]}p{i}.png", 60 + i)
  first = opened(tmp_path / "set", grouping="file")
  write_csv(tmp_path / "splits.csv", first.listing)
  assert "'=p0.png" in (tmp_path / "splits.csv").read_text()
  again = opened(tmp_path / "set", grouping="file", split_table=str(tmp_path / "splits.csv"))
  assert split_of(again) == split_of(first) and len(split_of(first)) == 8


def test_sides_of_words():
  names = ("Normal", "healthy", "masks", "tumour", "xyz")
  assert [folder_words.side((w,), (set(), set())) for w in names] == [0, 0, "mask", 1, None]


def test_a_mask_beside_its_image_is_no_image(normals):
  image(normals / "abnormal" / "q.png")
  image(normals / "abnormal" / "q_mask.png", 0)
  found = sides.look(normals)
  assert [m.name for m in found.members if m.label] == ["abnormal/q.png"]
  assert any("named as a label" in x.reason for x in found.found.left_out)


@pytest.mark.parametrize("name", ["normal/Abnormal/q.png", "abnormal/x/normal/q.png"])
def test_a_folder_of_one_side_below_one_of_the_other(normals, name):
  image(normals / name)
  with pytest.raises(UserError, match="below a folder of normal and one of abnormal"):
    sides.look(normals)


def test_masks_are_read_before_training_and_inverted_ones_are_said(normals, caplog):
  for i in range(3):
    image(normals / "abnormal" / f"q{i}.png")
    image(normals / "masks" / f"q{i}.png", 255 if i else 0)
  opened(normals)
  assert "2 of 3 masks mark all four corners" in caplog.text
  image(normals / "masks" / "q1.png", 100)
  with pytest.raises(UserError, match="q1.png holds values such as 100"):
    opened(normals)


def test_a_recorded_split_that_lists_a_mask_as_image_says_what_happened(normals, tmp_path):
  """As a run of an earlier version wrote it, which took masks beside their images for images."""
  table = tmp_path / "splits.csv"
  rows = [f"normal/{name},p,train,normal" for name in ("p00.png", "p00_mask.png")]
  table.write_text("\n".join(["file,patient,split,label", *rows]))
  image(normals / "normal" / "p00_mask.png")
  with pytest.raises(UserError, match="lists 1 files as scans.*normal/p00_mask.png is named as a label or a "
                     "result of p00.png, which lies beside it.*trained or tested.*take their lines out"):
    opened(normals, split_table=str(table))


def test_labels_that_contradict_the_side_of_their_scan(tmp_path, caplog, monkeypatch):
  """A normal scan with marks was trained on, an abnormal one without any was scored as normal."""
  root, label = tmp_path / "set", np.zeros((16, 20, 6), np.uint8)
  for i in range(4):
    volume(root / "normal" / f"P{i}.nii.gz", i)
  volume(root / "abnormal/P9.nii.gz", 9, lesion=True)

  def mark(name, value):
    label[6:8, 6:9, 2] = value
    nibabel.save(nibabel.Nifti1Image(label, np.diag([-1.0, -1, 3, 1])), root / name)
  mark("abnormal/P9_seg.nii.gz", 1)
  assert opened(root).has_lesions("test") and "of no scan" not in caplog.text  # P9 itself was called a label
  assert "marks nothing" not in caplog.text
  for value, fields_ in ((0, {}), (3, {"lesion_values": (1, 2)})):
    caplog.clear()
    mark("abnormal/P9_seg.nii.gz", value)
    opened(root, prepared_dir=str(tmp_path / f"p{value}"), **fields_)
    assert "P9.nii.gz is abnormal by its folder, and its label marks nothing" in caplog.text
  mark("normal/P0_seg.nii.gz", 1)
  with pytest.raises(UserError, match="P0.nii.gz is normal by its folder, and its label marks something"):
    opened(root, prepared_dir=str(tmp_path / "late"))
  assert not (tmp_path / "late").exists()  # said before the preparation
  mark("normal/P0_seg.nii.gz", 0)
  opened(root, prepared_dir=str(tmp_path / "late"))
  with monkeypatch.context() as patched:
    patched.setattr(own_scans, "_check_first_labels", None)  # no label is read once all are prepared
    opened(root, prepared_dir=str(tmp_path / "late"))
    mark("normal/P0_seg.nii.gz", 1)
    with pytest.raises(UserError, match="P0.nii.gz is normal by its folder, and its label marks something"):
      opened(root, prepared_dir=str(tmp_path / "late"))
  nibabel.save(nibabel.load(root / "normal/P1.nii.gz"), root / "normal/P1.nii")
  with pytest.raises(UserError, match="P1.nii and .*P1.nii.gz differ only in their ending"):
    opened(root)
