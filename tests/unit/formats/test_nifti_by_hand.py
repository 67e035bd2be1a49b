"""Headers of NIfTI by hand: which affine, which unit, what is written beside the voxels."""

import struct

import nibabel
import numpy as np
import pytest

from data_pipelines.brains import volumes
from data_pipelines.errors import UserError
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


@pytest.mark.parametrize("at, change, said", [
    (108, struct.pack("<f", 353), "voxels begin at byte 353, no multiple of 16"),
    (108, struct.pack("<f", 352.5), "byte 352.5, no multiple of 16"),
    (254, struct.pack("<h", 99), "sform_code is 99"), (252, struct.pack("<h", -1), "qform_code is -1"),
    (344, b"ni1", ""), (254, struct.pack("<h", 5), "")])
def test_headers_by_which_other_bytes_would_be_the_voxels_or_their_place(tmp_path, at, change, said):
  """One byte late every number is another; nibabel leaves out forms whose code it does not know."""
  path = save(tmp_path / "a.nii")
  content = bytearray(path.read_bytes()) + bytes(16)
  content[at:at + len(change)] = change
  path.write_bytes(content)
  if said:
    with pytest.raises(UserError, match=said):
      nifti.read(path)
  else:
    np.testing.assert_array_equal(nifti.read_volume(path), VOXELS)


def test_the_header_of_a_pair_says_what_to_do_and_doubts_have_no_lines_without_a_name(tmp_path, caplog):
  nibabel.save(nibabel.Nifti1Pair(VOXELS, SFORM), tmp_path / "a.img")
  (tmp_path / "a.hdr").rename(tmp_path / "a.nii")
  with pytest.raises(UserError, match="that of a pair, .hdr and .img: save it as one .nii.gz"):
    nifti.read(tmp_path / "a.nii")
  path = save(tmp_path / "b.nii")
  content = bytearray(path.read_bytes())
  content[80:84] = struct.pack("<f", -2)
  path.write_bytes(content)
  np.testing.assert_array_equal(nifti.read_volume(path), VOXELS)
  assert "pixdim" not in caplog.text


@pytest.mark.parametrize("code, said", [
    (5, "a statistic by its header (intent code 5)"), (1002, "labels"), (1007, "matrices or vectors"),
    (0, ""), (1001, ""), (2001, ""), (24, "a statistic"), (25, ""), (1010, "")])
def test_volumes_that_are_no_pictures_by_their_headers_are_said(tmp_path, caplog, code, said):
  path = save(tmp_path / "a.nii", codes=(1, 0), intent_code=code)
  volumes.read({"flair": path}, "", save(tmp_path / "s.nii", codes=(1, 0), intent_code=1002))
  assert said in caplog.text if said else "intent" not in caplog.text
  assert f"{tmp_path / 's.nii'} holds" not in caplog.text


@pytest.mark.parametrize("values, said", [
    ((0, 1), "0, 1"), ((0, 2, 4), "0, 2, 4"), ((0, 5), ""), ((0, 0.5), ""), ((1, 2), ""), ((0, 0), "")])
def test_a_label_given_as_a_scan_is_said(tmp_path, caplog, values, said):
  array = np.resize(np.array(values, np.float32), (8, 8, 8))
  path = save(tmp_path / "a.nii", array, codes=(1, 0))
  volumes.read({"flair": path}, "", save(tmp_path / "s.nii", (array > 0).astype(np.uint8), codes=(1, 0)))
  line = f"a.nii holds the values {said} alone, as labels do"
  assert line in caplog.text if said else "as labels do" not in caplog.text
  assert "s.nii holds" not in caplog.text


def test_one_volume_as_two_modalities_is_said(tmp_path, caplog):
  files = {"flair": save(tmp_path / "a.nii"), "t1": save(tmp_path / "b.nii", VOXELS + (VOXELS == 5)),
           "t2": save(tmp_path / "c.nii.gz")}
  volumes.read(files, "")
  assert caplog.text.count("hold the same voxels") == 1
  assert f"{files['flair']} and {files['t2']} hold the same voxels, as flair and as t2" in caplog.text


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


@pytest.mark.parametrize("kept, as_type, said", [
    (np.float32, np.int32, "which are floats by their bits"), (np.float32, np.uint32, "which are floats"),
    (np.int32, np.float32, "holds floats up to 2e-43 alone"), (np.int64, np.float64, "holds floats up to"),
    (np.float32, np.float32, ""), (np.int32, np.int32, ""), (np.int32, np.uint32, "")])
def test_numbers_of_another_type_than_the_header_says(tmp_path, kept, as_type, said):
  """Floats in a file of whole numbers were read as grey values near 2^30."""
  values = np.arange(120).reshape(4, 5, 6).astype(kept)
  path = tmp_path / "a.nii.gz"
  nibabel.save(nibabel.Nifti1Image(values.view(as_type), np.eye(4), dtype=as_type), path)
  if said:
    with pytest.raises(UserError, match=said):
      nifti.read(path)
  else:
    assert nifti.read(path)[0].max() == 119


@pytest.mark.parametrize("kept, slope, said", [(np.float32, 2, "which are floats by their bits"),
                                               (np.int32, 1e7, "")])
def test_the_bits_are_those_that_the_file_stores_whatever_its_slope(tmp_path, kept, slope, said):
  """Scaled, whole numbers such as 119e7 have the bits of floats, and floats' bits twice their size."""
  values = np.arange(100, 120).reshape(4, 5, 1).astype(kept)
  path = tmp_path / "a.nii"
  nibabel.save(nibabel.Nifti1Image(values.view(np.int32), np.eye(4), dtype=np.int32), path)
  data = bytearray(path.read_bytes())
  data[112:116] = np.float32(slope).tobytes()  # scl_slope
  path.write_bytes(data)
  if said:
    with pytest.raises(UserError, match=said):
      nifti.read(path)
  else:
    np.testing.assert_allclose(nifti.read(path)[0].max(), 119e7)


def smooth(top):
  x, y, z = np.mgrid[:24, :20, :5]
  return (top * np.exp(-((x - 11) ** 2 + (y - 9) ** 2) / 60) * (1 + z / 9) / 1.5).astype(np.int16)


@pytest.mark.parametrize("array, refused", [
    (smooth(30000), True), (smooth(3000), True), (smooth(900), True),
    (np.random.default_rng(0).integers(0, 3000, (24, 20, 5)).astype(np.int16), False),  # noise is noise
    ((smooth(3000) > 900).astype(np.int16), False), (smooth(120) << 8, False)])
@pytest.mark.parametrize("order", "<>")
def test_sixteen_bits_whose_bytes_are_exchanged(tmp_path, array, refused, order):
  """They were read as noise, without a word."""
  header = nibabel.Nifti1Header(endianness=order)
  header.set_data_dtype(f"{order}i2")
  nibabel.save(nibabel.Nifti1Image(array, SFORM, header), tmp_path / "a.nii")
  np.testing.assert_array_equal(nifti.read_volume(tmp_path / "a.nii"), array)
  content = (tmp_path / "a.nii").read_bytes()
  (tmp_path / "b.nii").write_bytes(content[:352] + np.frombuffer(content[352:], "u2").byteswap().tobytes())
  if not refused:  # nobody can know
    nifti.read_volume(tmp_path / "b.nii")
    return
  with pytest.raises(UserError, match="b.nii holds 16-bit numbers whose bytes are in the other order"):
    nifti.read_volume(tmp_path / "b.nii")


@pytest.mark.parametrize("axes", [(2, 0, 1), (0, 2, 1)])
def test_the_order_of_bytes_is_seen_whichever_axis_has_the_slices(tmp_path, axes):
  swapped = np.ascontiguousarray(smooth(3000).transpose(axes)).byteswap()
  nibabel.save(nibabel.Nifti1Image(swapped, SFORM), tmp_path / "b.nii")
  with pytest.raises(UserError, match="b.nii holds 16-bit numbers whose bytes are in the other order"):
    nifti.read_volume(tmp_path / "b.nii")


def test_the_order_of_scaled_numbers_is_that_of_what_is_stored(tmp_path):
  """The slope is undone: with it no order of bytes would be smooth. A wrong intercept would change little."""
  nibabel.save(nibabel.Nifti1Image(smooth(3000), SFORM), tmp_path / "a.nii")
  content = bytearray((tmp_path / "a.nii").read_bytes())
  content[112:120] = np.array([0.02, -40], np.float32).tobytes()  # scl_slope, scl_inter
  (tmp_path / "a.nii").write_bytes(content)
  np.testing.assert_allclose(nifti.read_volume(tmp_path / "a.nii"), 0.02 * smooth(3000) - 40, atol=1e-5)
  (tmp_path / "b.nii").write_bytes(content[:352] + np.frombuffer(content[352:], "u2").byteswap().tobytes())
  with pytest.raises(UserError, match="b.nii holds 16-bit numbers whose bytes are in the other order"):
    nifti.read_volume(tmp_path / "b.nii")


def test_headers_of_pairs_and_of_analyze_are_called_so(tmp_path):
  nibabel.save(nibabel.AnalyzeImage(VOXELS, np.eye(4)), tmp_path / "a.img")
  (tmp_path / "a.nii").write_bytes((tmp_path / "a.hdr").read_bytes())
  with pytest.raises(UserError, match="that of Analyze 7.5: save it as one .nii.gz"):
    nifti.read_volume(tmp_path / "a.nii")


@pytest.mark.parametrize("shape", [(40, 32, 24), (24, 40, 20), (40, 24, 32)])
@pytest.mark.parametrize("one, other", [(0, 1), (1, 2), (0, 2)])
def test_axes_that_the_header_has_exchanged(tmp_path, shape, one, other):
  """Each slice was sheared: a map of it means nothing."""
  x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
  volume = np.float32(1000 * np.exp(-(x**2 + 2 * y**2 + 1.5 * z**2)) + 20 * np.sin(9 * x * y))
  path, exchanged = tmp_path / "a.nii", list(shape)
  exchanged[one], exchanged[other] = shape[other], shape[one]
  for wanted in (shape, exchanged):
    array = volume.reshape(-1, order="F").reshape(wanted, order="F")
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    if wanted == shape:
      assert nifti.read_volume(path).shape == shape
  torn, whole = (" x ".join(map(str, sides)) for sides in (exchanged, shape))
  with pytest.raises(UserError, match=f"torn with {torn} voxels, and whole with {whole}: "):
    nifti.read_volume(path)


def test_volumes_of_noise_and_labels_are_not_torn(tmp_path):
  rng = np.random.default_rng(0)
  for volume in (rng.normal(size=(40, 20, 30)), (rng.random((40, 20, 30)) > 0.9).astype(np.uint8)):
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii")
    assert nifti.read_volume(tmp_path / "a.nii").shape == (40, 20, 30)
