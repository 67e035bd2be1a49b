"""What voxels say against their header, label and neighbours (SYNTHETIC volumes)."""

import logging

import nibabel
import numpy as np
import pytest

from data_pipelines.brains import normalise, prepare_scan, volumes
from data_pipelines.errors import UserError
from data_pipelines.ops import anatomy


def head(shape=(24, 20, 12)):
  """Background 0, an anatomy of 1 ... 100 that no mirror image equals."""
  place = np.indices(shape).reshape(3, -1).T / (np.array(shape) - 1)
  inside = ((place - [0.4, 0.55, 0.45]) ** 2 / [0.12, 0.14, 0.16]).sum(1) < 0.8
  inside |= ((place - [0.75, 0.8, 0.3]) ** 2).sum(1) < 0.02
  return np.where(inside, 1 + np.arange(inside.size) % 100, 0).reshape(shape).astype(float)


def prepared(*arrays):
  return normalise.prepare(arrays, None, (8, 8))


def test_a_bright_background_is_none():
  array = head()
  padded, side, offset = array.copy(), array.copy(), array.copy()
  padded[array == 0] = 4095
  side[:3] = 4095
  offset[array == 0] = 50  # between the values of the anatomy
  with pytest.raises(normalise.BadScan, match="^flair has 4095 at all corners"):
    normalise.prepare([padded], None, (8, 8), names=("flair",))
  with pytest.raises(normalise.BadScan, match="modality 0 has negative values"):
    prepared(-array)
  for odd, words in ((padded, "modality 0 has 4095 at all corners.*padding"), (100 - array, "turned round"),
                     (side, "largest value, 4095, in all of its first plane across axis 1"),
                     (offset, "50 at all corners.*down to 1")):
    with pytest.raises(normalise.BadScan, match=words):
      prepared(odd)
  noise = array + np.random.default_rng(0).integers(1, 4, array.shape)
  noise[np.ix_(*[(0, -1)] * 3)] = 2  # by chance: it is as good as none
  for good in (array, array + 1000, np.minimum(array, 60), noise):
    prepared(good)


def test_a_label_lies_in_the_anatomy_and_is_not_all_of_it():
  array = head()
  anatomy.check_label((array > 60) * 1, [array])  # 40 %
  anatomy.check_label(array * 0, [array])
  anatomy.check_label(array > 0, [array], most=1.0)  # somebody has said that it is lesion
  anatomy.check_label(array > 0, [array + np.arange(array.size).reshape(array.shape)])  # no background
  with pytest.raises(UserError, match="marks 100% of the anatomy.*lesion_values"):
    anatomy.check_label(array > 0, [array])
  edge = (array > 60) | (np.roll(array, 14, 0) > 60) & (array == 0)
  with pytest.raises(UserError, match=r"seg lies by \d\d% outside the anatomy"):
    anatomy.check_label(edge & (array == 0) | (array > 95), [array, array])


def test_the_preparation_checks_labels(tmp_path):
  array = head()
  image, label = tmp_path / "P1_t1.nii", tmp_path / "P1_seg.nii"
  nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), np.eye(4)), image)
  nibabel.save(nibabel.Nifti1Image((array > 0).astype(np.uint8), np.eye(4)), label)
  job = {"patient": "P1", "volumes": [str(image)], "seg": str(label), "modalities": ("t1",), "size": (8, 8),
         "storage": "float16", "folder": str(tmp_path), "key": {}, "orientation": "", "placement": "scan",
         "field_mm": 0.0, "unit": "percentile", "lesion_values": ()}
  (tmp_path / "records").mkdir()
  assert "marks 100% of the anatomy" in prepare_scan.run(job)["bad"]
  assert "record" in prepare_scan.run({**job, "lesion_values": (1,)})


@pytest.mark.parametrize("axis", (0, 1, 2))
def test_modalities_that_are_mirror_images(axis, tmp_path):
  array = head()
  files = {"t1": tmp_path / "t1.nii", "t2": tmp_path / "t2.nii"}
  for path, values in zip(files.values(), (array, np.flip(array, axis) * 3)):
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), path)
  with pytest.raises(UserError, match=rf"t2.nii is .*t1.nii turned round along axis {axis + 1}"):
    volumes.read(files, "")


def test_outlines_that_are_none_or_far(caplog):
  array, noisy = head(), head() + 5
  rough = array * (np.random.default_rng(0).random(array.shape) > 0.05)  # another mask of the brain
  anatomy.check_outlines({"a": array, "b": rough, "c": np.flip(noisy, 0)})
  assert not caplog.records
  with pytest.raises(UserError, match="b is a turned round"):  # an outline is what is above 0, in any unit
    anatomy.check_outlines({"a": array / 200, "b": np.flip(array, 0) / 200})
  with caplog.at_level(logging.WARNING):
    other = array * (np.random.default_rng(1).random(array.shape) > 0.2)
    anatomy.check_outlines({"a": array, "b": np.roll(other, 10, 1)})
  assert "a and b share little of their outlines" in caplog.text


@pytest.mark.parametrize("axis, by", [(0, 8), (1, -9), (2, 4)])
def test_a_modality_that_lies_elsewhere_is_named(axis, by):
  """A modality rolled by a third of its width was scored, with a warning of its intensities alone."""
  array = head()
  with pytest.raises(UserError, match=rf"^b is a moved by {abs(by)} voxels along axis {axis + 1} by their"):
    anatomy.check_outlines({"a": array, "b": 3 * np.roll(array, by, axis)})
  anatomy.check_outlines({"a": array, "b": np.roll(array, 1, axis)})  # heads move a little


def test_a_slab_whose_slices_are_strips(tmp_path):
  strips = np.ones((3, 64, 65), np.float32)
  strips[:, 20:40, 20:40] = 9
  nibabel.save(nibabel.Nifti1Image(strips, np.diag([-1, -1, 1, 1])), tmp_path / "zyx.nii")
  volumes.read({"t1": tmp_path / "zyx.nii"}, "")
  with pytest.raises(UserError, match="zyx.nii has 3 x 64 x 65 voxels.*axes exchanged"):
    volumes.read({"t1": tmp_path / "zyx.nii"}, "LPS")
  for shape, spacing in (((3, 64, 65), (5, 1, 1)), ((64, 65, 3), (1, 1, 1)), ((3, 12, 63), (1, 1, 1)),
                         ((64, 17, 64), (1, 1, 1))):  # thick sections, a stack, what is small, a half head
    anatomy.check_slab("x", shape, spacing)
  with pytest.raises(UserError, match="strips of 16"):
    anatomy.check_slab("x", (64, 16, 64), (1, 1.5, 1))


@pytest.mark.parametrize("axis", (0, 1, 2))
def test_a_label_that_is_turned_round_within_the_brain_is_said(tmp_path, caplog, axis):
  """A label written with another sign of its x axis marked the healthy side of every brain."""
  grid, column = np.indices((24, 20, 12)), lambda values: np.reshape(values, (3, 1, 1, 1))
  ball = lambda centre, radius: (((grid - column(centre)) / radius) ** 2).sum(axis=0) < 1
  flair = np.where(ball((11.5, 9.5, 5.5), column([11, 9.2, 5.5])), 100.0, 0)
  lesion = ball((7, 6, 3), 3)
  bright, cavity = np.where(lesion, 150, flair), np.where(lesion, 40, flair)
  turned = np.flip(lesion, axis)
  said = anatomy.mirrored(turned, bright)
  assert "is 1.00 times as bright" in said and f"turned round along axis {axis + 1} 1.50 times" in said
  for label, image in ((lesion, bright), (lesion, cavity), (turned, cavity), (turned, flair),
                       (0 * lesion, bright), (lesion, 0 * flair)):
    assert anatomy.mirrored(label, image) == ""
  for name, array in (("flair", bright), ("seg", turned)):
    nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), np.eye(4)), tmp_path / f"P1_{name}.nii")
  job = {"patient": "P1", "volumes": [str(tmp_path / "P1_flair.nii")], "seg": str(tmp_path / "P1_seg.nii"),
         "modalities": ("flair",), "size": (8, 8), "storage": "float16", "folder": str(tmp_path), "key": {},
         "orientation": "", "placement": "scan", "field_mm": 0.0, "unit": "percentile", "lesion_values": ()}
  (tmp_path / "records").mkdir()
  assert "is it mirrored?" in prepare_scan.run(job)["record"]["warning"] and "P1: " in caplog.text
  assert "mirrored" not in prepare_scan.run({**job, "lesion_values": (1,)})["record"]["warning"]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("end, word", [(0, "first"), (-1, "last")])
def test_a_plane_of_padding_is_named_by_its_end_and_axis(axis, end, word):
  array = head()
  np.moveaxis(array, axis, 0)[end] = 4095
  with pytest.raises(normalise.BadScan, match=f"4095, in all of its {word} plane across axis {axis + 1}"):
    prepared(array)
