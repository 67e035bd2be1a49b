"""Types, scales, forms and damage of NIfTI files: what is equal gives equal maps, the rest is one line."""

import gzip
import json

import nibabel
import numpy as np
import pytest

from data_pipelines.brains import volumes
from data_pipelines.errors import UserError
from data_pipelines.formats import nifti
from tests.stored_volumes import LPS, NAMES, egg, moved, patch, predicted, save, write


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  """(row, map, mask) of the egg as BraTS stores brains."""
  path = tmp_path_factory.mktemp("base")
  found = predicted(write(path / "in", egg()), path / "out")
  assert found[1].max() > 0.5 and 0 < found[2].sum() < 2000
  return found


HEADERS = {
    "int16": dict(dtype=np.int16), "uint16": dict(dtype=np.uint16), "float64": dict(dtype=np.float64),
    "int32": dict(dtype=np.int32), "uint32": dict(dtype=np.uint32),
    "NIfTI-2": dict(kind=nibabel.Nifti2Image), "sform only": dict(codes=(2, 0)),
    "qform only": dict(codes=(0, 1)), "template code": dict(codes=(4, 1)),
    "forms disagree: sform": dict(codes=(2, 1), qform=moved(LPS, (3, 1, 2))),
    "metres": dict(units="meter", affine=np.diag([1e-3, 1e-3, 1e-3, 1]) @ LPS),
    "micrometres": dict(units="micron", affine=np.diag([1e3, 1e3, 1e3, 1]) @ LPS),
    "no place at all": dict(codes=(0, 0)),
    "uint8": dict(dtype=np.uint8, scale=255 / 1000), "times 1000": dict(scale=1000.0),
    "times 1e-6": dict(scale=1e-6),
}


@pytest.mark.parametrize("name", HEADERS)
def test_types_scales_and_forms_of_headers(base, tmp_path, name):
  options = dict(HEADERS[name])
  scale = options.pop("scale", 1)
  volumes = [v * scale for v in egg()]
  row, anomaly, _ = predicted(write(tmp_path / "in", volumes, **options), tmp_path / "out")
  np.testing.assert_allclose(anomaly, base[1], atol=0.02 if name == "uint8" else 1e-5)
  assert row["mask_ml"] == pytest.approx(base[0]["mask_ml"], rel=0.1 if name == "uint8" else 1e-4)


STORED = {  # name: (dtype, slope, intercept, value of the stored background)
    "air of CT at -1024": (np.int16, 1, 0, -1024), "offset of 37": (np.int16, 1, 0, 37),
    "slope 0.25": (np.int16, 0.25, 0, 0), "slope and intercept": (np.int16, 2, -500, 250),
    "unsigned with intercept": (np.uint16, 1, -1024, 0), "negative slope": (np.int16, -1, 0, 0),
}


@pytest.mark.parametrize("name", STORED)
def test_backgrounds_that_are_not_zero(base, tmp_path, name):
  dtype, slope, intercept, background = STORED[name]
  for modality, v in zip(NAMES, egg()):
    values = v / slope + background if slope < 0 else v + background
    path = save(tmp_path / "in" / f"p_{modality}.nii.gz", values, dtype=dtype)
    patch(path, 112, "ff", slope, intercept)
  _, anomaly, _ = predicted(tmp_path / "in", tmp_path / "out")
  np.testing.assert_allclose(anomaly, base[1], atol=1e-5)


def test_a_singular_sform_gives_way_to_the_qform(base, tmp_path):
  folder = write(tmp_path / "in", egg())
  for path in folder.iterdir():
    patch(path, 280, "12f", *([0.0] * 12))
  _, anomaly, _ = predicted(folder, tmp_path / "out")
  np.testing.assert_array_equal(anomaly, base[1])
  found, source = (nibabel.load(p) for p in (tmp_path / "out/p_anomaly.nii.gz", folder / "p_t1.nii.gz"))
  np.testing.assert_array_equal(found.header.get_qform(), source.header.get_qform())


BAD = {  # what one damaged file says of itself
    "RGB": (lambda p: nibabel.save(nibabel.Nifti1Image(
        np.zeros((4, 4, 3), [(c, "u1") for c in "RGB"]), LPS), p), "not grey values"),
    "complex": (lambda p: save(p, np.ones((4, 4, 3)), dtype=np.complex64), "not grey values"),
    "four axes": (lambda p: save(p, np.ones((4, 4, 3, 2))), "three axes"),
    "two axes": (lambda p: save(p, np.ones((4, 4))), "three axes"),
    "no voxels": (lambda p: patch(save(p, np.ones((4, 4, 3))), 40, "8h", 3, 4, 0, 3, 1, 1, 1, 1), "voxels"),
    "a header of 30000^3": (lambda p: patch(save(p, np.ones((4, 4, 3))), 40, "4h", 3, 30000, 30000, 30000),
                            "30000 x 30000 x 30000"),
    "NaN": (lambda p: save(p, np.full((4, 4, 3), np.nan)), "NaN"),
    "infinity": (lambda p: save(p, np.full((4, 4, 3), np.inf)), "NaN or infinite"),
    "text": (lambda p: p.write_text("hello"), "corrupt"),
    "empty": (lambda p: p.write_bytes(b""), "corrupt"),
    "packed twice": (lambda p: p.write_bytes(gzip.compress(save(p, np.ones((4, 4, 3))).read_bytes())),
                     "does not begin as one"),
    "last bytes missing": (lambda p: p.write_bytes(save(p, np.ones((9, 9, 9))).read_bytes()[:-4]), "corrupt"),
    "cut in half": (lambda p: p.write_bytes(save(p, _noise()).read_bytes()[:900]), "corrupt"),
    "one bit flipped": (lambda p: _flip(save(p, _noise())), "corrupt"),
    "checksum flipped": (lambda p: _flip(save(p, _noise()), -6), "corrupt"),
    "voxels missing": (lambda p: p.write_bytes(gzip.compress(gzip.decompress(
        save(p, _noise()).read_bytes())[:-40])), "truncated"),
    "no size": (lambda p: patch(save(p, np.ones((4, 4, 3)), codes=(0, 1)), 80, "3f", 0, 0, 0),
                "voxels of size 0, 0, 0 (pixdim) and no sform"),
    "folder": (lambda p: p.mkdir(), "is a folder"),
    "singular": (lambda p: (patch(save(p, np.ones((4, 4, 3)), codes=(1, 0)), 280, "12f", *[0.0] * 12)),
                 "singular"),
}


def _noise():
  return np.random.default_rng(0).normal(size=(9, 9, 9))


def _flip(path, at=600):
  data = bytearray(path.read_bytes())
  data[at] ^= 4
  path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_file_is_one_line_with_its_name(tmp_path, name):
  path = tmp_path / "p_flair.nii.gz"
  spoil, reason = BAD[name]
  spoil(path)
  with pytest.raises(UserError, match="p_flair.nii.gz") as e:
    nifti.read_on_grid(path)
  assert reason in str(e.value) and "\n" not in str(e.value)


def test_a_header_that_tells_of_fewer_slices_than_there_are_is_said(tmp_path, caplog):
  path = save(tmp_path / "a.nii.gz", _noise() + 9)
  patch(path, 46, "h", 8)
  assert nifti.read_volume(path).shape == (9, 9, 8) and "bytes behind its voxels" in caplog.text


def test_a_code_of_units_that_is_none_counts_as_mm(tmp_path):
  """It was a KeyError."""
  path = save(tmp_path / "a.nii.gz", _noise())
  wanted = nifti.read_on_grid(path)[1].spacing
  patch(path, 123, "B", 7)
  assert nifti.read_on_grid(path)[1].spacing == wanted


def test_equal_voxels_under_a_mirrored_affine_are_mirrored_anatomy(tmp_path):
  """Field case 17, lefthanded: docs/geometry.md says which of two wishes holds."""
  array = np.arange(24, dtype=np.float32).reshape(2, 3, 4) + 1
  read = {}
  for name, sign in (("base", 1), ("lefthanded", -1)):
    affine = LPS @ np.diag([sign, 1, 1, 1])
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / f"{name}.nii")
    for axes in ("LPS", ""):
      found = volumes.read({"t1": tmp_path / f"{name}.nii"}, axes)
      read[name, axes] = found.arrays[0]
      np.testing.assert_array_equal(found.back(found.arrays[0]), array)
  np.testing.assert_array_equal(read["lefthanded", "LPS"], read["base", "LPS"][::-1])
  np.testing.assert_array_equal(read["lefthanded", ""], read["base", ""])


MIRROR = np.diag([-1.0, 1, 1, 1]) @ LPS


@pytest.mark.parametrize("options, words", [
    (dict(affine=np.diag([1e3, 1e3, 1e3, 1]) @ LPS), "2000 x 2000 x 5000 mm by its header"),
    (dict(affine=np.diag([1e-3, 1e-3, 1e-3, 1]) @ LPS, units="unknown"), "0.002 x 0.002 x 0.005 mm")])
def test_voxels_of_an_impossible_size(tmp_path, options, words):
  path = save(tmp_path / "a.nii.gz", egg()[0], **options)
  with pytest.raises(UserError, match=f"a.nii.gz has voxels of {words}"):
    volumes.read({"flair": path}, "LPS")


def test_headers_that_leave_the_place_open_are_said(tmp_path, caplog):
  base = save(tmp_path / "base.nii.gz", egg()[0])
  silent = save(tmp_path / "silent.nii.gz", egg()[1], codes=(0, 0))
  volumes.read({"flair": base}, "LPS")
  assert not caplog.text
  volumes.read({"flair": base, "t1": silent}, "LPS")
  assert "silent.nii.gz says nothing of its place" in caplog.text
  caplog.clear()
  sized = save(tmp_path / "sized.nii.gz", egg()[0], codes=(2, 0))
  patch(sized, 80, "2f", 4, 4)  # a program that resamples and changes the affine alone, or pixdim alone
  volumes.read({"flair": sized}, "LPS")
  assert "sized.nii.gz: its voxels are 2 x 2 x 5 mm by its affine" in caplog.text
  assert "4 x 4 x 5 mm by pixdim" in caplog.text
  for share, said in ((0.03, False), (0.1, True)):
    caplog.clear()
    affine = LPS.copy()
    affine[:3, 2] += share * LPS[:3, 1] / np.linalg.norm(LPS[:3, 1]) * np.linalg.norm(LPS[:3, 2])
    volumes.read({"flair": save(tmp_path / "tilted.nii.gz", egg()[0], affine=affine)}, "LPS")
    assert ("tilted.nii.gz: two axes of it are 5.71 degrees off a right angle" in caplog.text) == said


def _pitched(degrees):
  """LPS with the head nodding."""
  c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
  return np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]]) @ LPS


FORMS = {  # of qform and sform: (qform, sform, what is said; REFUSED where left and right are open)
    "another origin": (moved(LPS, (30, -10, 7)), LPS, ""),
    "rounding": (_pitched(0.3), LPS * (1 + 1e-3), ""),
    "other slices": (LPS @ np.diag([1, 1, 1.1, 1]), LPS, "0 degrees apart and say voxels of 2 x 2 x 5 mm and "
                     "2 x 2 x 5.5 mm: the sform is taken"),
    "a nod": (_pitched(6), LPS, "6 degrees apart"),
    "letters of 44 and 46 degrees": (_pitched(44), _pitched(46), "2 degrees apart"),
    "a mirror": (MIRROR, LPS, "REFUSED its sform says that its axes run LPS, its qform RPS: which side"),
    "axes exchanged": (LPS[:, [1, 0, 2, 3]], LPS,
                       "REFUSED its sform says that its axes run LPS, its qform PLS")}


@pytest.mark.parametrize("name", FORMS)
def test_two_forms_that_disagree_are_said_and_refused_where_left_is_open(base, tmp_path, caplog, name):
  """By training's reader and by predict; what is read lies where the sform says."""
  qform, sform, said = FORMS[name]
  folder = write(tmp_path / "in", egg(), affine=sform, qform=qform)
  _, refused, reason = said.rpartition("REFUSED ")
  if refused:
    for read in (lambda: volumes.read({"flair": folder / "p_flair.nii.gz"}, "LPS"),
                 lambda: predicted(folder, tmp_path / "out")):
      with pytest.raises(UserError, match=f"p_flair.nii.gz: {reason}"):
        read()
    return
  volumes.read({"flair": folder / "p_flair.nii.gz"}, "LPS")
  assert (reason in caplog.text) if said else not caplog.text
  if sform is LPS:
    np.testing.assert_array_equal(predicted(folder, tmp_path / "out")[1], base[1])


def test_a_name_that_lies_of_gzip(tmp_path):
  """A browser unpacks a download and keeps its name; the bytes say what it is."""
  packed = save(tmp_path / "a.nii.gz", _noise())
  plain, named = tmp_path / "b.nii.gz", tmp_path / "c.nii"
  plain.write_bytes(gzip.decompress(packed.read_bytes()))
  named.write_bytes(packed.read_bytes())
  for path in (plain, named):
    np.testing.assert_array_equal(nifti.read_volume(path), nifti.read_volume(packed))


@pytest.mark.parametrize("step, unit, said", [
    (2.0, 8, "2 s"), (800.0, 16, "800 ms"), (1.0, 8, ""), (2.0, 0, "")])
def test_times_are_no_modalities(tmp_path, step, unit, said):
  """A series of as many times as the model has modalities was scored as these."""
  path = save(tmp_path / "a.nii.gz", np.stack(egg(), -1))
  patch(path, 92, "f", step)
  patch(path, 123, "B", 2 | unit)
  if not said:
    assert len(volumes.read_stacked(path, NAMES, "LPS").arrays) == len(NAMES)
    return
  with pytest.raises(UserError, match=f"a series of {len(NAMES)} times, {said} apart"):
    volumes.read_stacked(path, NAMES, "LPS")


@pytest.mark.parametrize("more", [-1, 1, 2])
def test_a_stack_has_as_many_channels_as_the_model_has_modalities(tmp_path, more):
  """Of more the first ones were not meant either."""
  stack = np.stack((egg() * 2)[:len(NAMES) + more], -1)
  path = save(tmp_path / "a.nii.gz", stack)
  with pytest.raises(UserError, match=rf"has {len(NAMES) + more} channel\(s\), the model needs {len(NAMES)}"):
    volumes.read_stacked(path, NAMES, "LPS")


@pytest.mark.parametrize("key, names, asked, fits", [
    ("modality", ("FLAIR", "T1w", "t1gd", "T2w"), ("t1", "t1ce", "t2", "flair"), False),
    ("channel_names", ("FLAIR", "T1w", "t1gd", "T2w"), ("flair", "t1", "t1ce", "t2"), True),
    ("modality", ("FLAIR", "T1w", "t1gd", "T2w"), ("flair", "t1", "t1ce", "pd"), False),
    ("modality", ("a", "b", "c", "d"), ("flair", "t1", "t1ce", "t2"), True),
    ("modality", ("FLAIR",), ("t1", "t1ce", "t2", "flair"), True),
    ("tensorImageSize", "4D", ("t1", "t1ce", "t2", "flair"), True)])
def test_channels_of_the_decathlon_are_in_the_order_that_its_list_says(tmp_path, key, names, asked, fits):
  """BRATS_001 has FLAIR first; a model that reads T1 first scored it so, without a word."""
  (tmp_path / "imagesTr").mkdir()
  path = tmp_path / "imagesTr/BRATS_001.nii.gz"
  nibabel.save(nibabel.Nifti1Image(np.ones((3, 4, 2, 4), np.int16), np.eye(4)), path)
  said = {str(i): name for i, name in enumerate(names)} if isinstance(names, tuple) else names
  (tmp_path / "dataset.json").write_text(json.dumps({key: said}))
  if fits:
    assert len(volumes.read_stacked(path, asked, "").arrays) == 4
  else:
    with pytest.raises(UserError, match="dataset.json its channels are FLAIR, T1w, .* give one file a modal"):
      volumes.read_stacked(path, asked, "")
