"""Headers of NIfTI by hand: which affine, which unit, what is written beside the voxels."""

import nibabel
import numpy as np
import pytest

from data_pipelines.formats import nifti

SFORM, QFORM = np.diag([2.0, 3, 4, 1]), np.diag([2.0, 3, 5, 1])  # they say other distances of slices
VOXELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def save(path, array=VOXELS, codes=(1, 1), units=2, **fields):
  image = nibabel.Nifti1Image(array, None)
  image.header.set_sform(SFORM, codes[0])
  image.header.set_qform(QFORM, codes[1])
  image.header["xyzt_units"] = units
  for name, value in fields.items():
    image.header[name] = value
  nibabel.save(image, path)
  return path


@pytest.mark.parametrize("codes, want, known", [
    ((1, 1), SFORM, True), ((4, 2), SFORM, True), ((0, 1), QFORM, True), ((1, 0), SFORM, True),
    ((0, 0), None, False)])
def test_the_sform_places_a_volume_and_the_qform_where_there_is_none(tmp_path, codes, want, known):
  _, grid, _ = nifti.read_on_grid(save(tmp_path / "a.nii.gz", codes=codes))
  assert grid.known == known
  if known:
    np.testing.assert_allclose(grid.affine, want)


@pytest.mark.parametrize("units, mm", [
    (0, 1), (1, 1000), (2, 1), (3, 1e-3), (2 + 8, 1), (1 + 8, 1000), (3 + 16, 1e-3)])
def test_units_of_space_with_and_without_units_of_time(tmp_path, units, mm):
  _, grid, _ = nifti.read_on_grid(save(tmp_path / "a.nii", units=units))
  np.testing.assert_allclose(grid.affine, np.diag([mm, mm, mm, 1]) @ SFORM)


@pytest.mark.parametrize("beside", [(1,), (1, 1), (1, 1, 1)])
def test_axes_of_length_1_are_none(tmp_path, beside):
  path = save(tmp_path / "a.nii", VOXELS.reshape(2, 3, 4, *beside))
  np.testing.assert_array_equal(nifti.read_volume(path), VOXELS)


@pytest.mark.parametrize("dtype, intent", [(np.float32, "estimate"), (np.uint8, "label")])
def test_a_result_has_the_place_of_its_scan_and_nothing_else_of_it(tmp_path, dtype, intent):
  """Slope, window and words of the scan would change or explain other values."""
  source = nibabel.load(save(tmp_path / "a.nii", cal_max=900, cal_min=100, intent_code=5, db_name=b"Jane",
                             aux_file=b"Jane", intent_name=b"Jane", descrip=b"Jane", units=10))
  source.header["scl_slope"], source.header["scl_inter"] = 2, 50
  result = (VOXELS % 2).astype(dtype) if dtype == np.uint8 else VOXELS.astype(dtype) / 7
  nifti.write_like(tmp_path / "b.nii", result, source, "scores", 3.5)
  found = nibabel.load(tmp_path / "b.nii")
  assert found.get_data_dtype() == dtype and found.header.get_intent()[0] == intent
  np.testing.assert_array_equal(np.asarray(found.dataobj, dtype), result)
  assert (found.header["cal_min"], found.header["cal_max"]) == (0, 3.5)
  codes = [int(found.header[name]) for name in ("sform_code", "qform_code", "xyzt_units")]
  assert codes == [1, 1, 10]
  np.testing.assert_allclose(found.header.get_sform(), SFORM)
  np.testing.assert_allclose(found.header.get_qform(), QFORM)
  assert b"Jane" not in (tmp_path / "b.nii").read_bytes()
  assert found.header["descrip"].item() == b"scores"


def test_a_grid_of_another_format_becomes_a_header_that_every_viewer_reads(tmp_path):
  """Some go by the sform, others by the qform; both are of the scanner, in mm."""
  affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 4, 9], [0, 0, 0, 1]])
  mask = np.zeros(VOXELS.shape, np.uint8)
  nifti.write_like(tmp_path / "b.nii", mask, nifti.image_of(VOXELS, affine), "x" * 99)
  header = nibabel.load(tmp_path / "b.nii").header
  assert [int(header[name]) for name in ("sform_code", "qform_code")] == [1, 1]
  assert header.get_xyzt_units()[0] == "mm" and header.get_zooms() == (1.5, 2, 4)
  for form in (header.get_sform(), header.get_qform()):
    np.testing.assert_allclose(form, affine, atol=1e-6)
  assert header["descrip"].item() == b"x" * 79
