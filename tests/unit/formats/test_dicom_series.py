"""DICOM series are the volumes that they were made from; what is no regular volume is refused by name."""

import nibabel
import numpy as np
import pydicom
import pytest

from data_pipelines.brains import inputs
from data_pipelines.errors import UserError
from data_pipelines.formats import dicom_series
from tests import dicom_series_files as series
from tests.stored_volumes import LPS, NAMES, egg, predicted, predictor, stored, write as write_nifti

TURNED = nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.3, -0.2, 0.1) @ np.diag([1.0, 2, 3]),
                                     [5, -7, 11])


@pytest.mark.parametrize("affine", [LPS, TURNED, stored(egg()[0], "SRA")[1]])
def test_a_series_is_its_volume(tmp_path, affine):
  volume = np.random.default_rng(0).integers(0, 900, (6, 5, 4)) * 2.0 + 10
  files = series.write(tmp_path / "s", volume, affine, slope=2, intercept=10)
  array, found = dicom_series.read_series(sorted(files))
  ornt = nibabel.io_orientation(np.linalg.inv(affine) @ found)  # files know no first slice
  np.testing.assert_array_equal(nibabel.orientations.apply_orientation(array, ornt), volume)
  voxels = np.argwhere(volume == volume.max())[:1]
  place = nibabel.affines.apply_affine(found, np.argwhere(array == array.max()))
  np.testing.assert_allclose(place[0], nibabel.affines.apply_affine(affine, voxels)[0], atol=1e-3)


def change(name, value, at=2):
  return lambda data, k: setattr(data, name, value) if k == at else None


@pytest.mark.parametrize("name, value, word", [
    ("Units", "CNTS", "unit"), ("PixelRepresentation", 1, "sign of its pixels"),
    ("ImageType", ["ORIGINAL", "PRIMARY", "P"], "part of the signal"),
    ("EchoNumbers", 2, "echo"), ("InversionTime", "900", "inversion time"), ("FlipAngle", "90", "flip angle"),
    ("ConvolutionKernel", "B70", "reconstruction kernel"), ("ContrastBolusAgent", "GD", "contrast agent"),
    ("EchoTime", "95", "echo time"), ("Modality", "CT", "modality"), ("RepetitionTime", "500", "repetition"),
    ("TemporalPositionIdentifier", 3, "time"),
    ("StudyInstanceUID", "1.9", "study"), ("PatientPosition", "FFS", "position of the patient"),
    ("ScanningSequence", "IR", "scanning sequence"), ("KVP", "80", "tube voltage"),
    ("DiffusionBValue", 700.0, "diffusion"), ("PatientID", "Q", "patient"),
    ("ImageType", ["ORIGINAL", "PRIMARY", "DIXON", "FAT"], "part of the signal"),
    ("RescaleType", "US", "unit"), ("SeriesDescription", "Ax T1", "description"),
    ("ProtocolName", "t1", "protocol"),
    ("SequenceName", "*ep_b700#1", "sequence name"),
    ("RescaleSlope", None, "rescaling")])
def test_slices_of_two_kinds_are_no_volume_wherever_they_lie(tmp_path, name, value, word):
  files = series.write(tmp_path / "s", np.ones((4, 4, 6)), LPS, edit=change(name, value))
  with pytest.raises(UserError, match=f"another .*{word}"):
    dicom_series.read_series(sorted(files))


def test_slices_of_philips_whose_greys_are_of_a_screen_are_no_volume(tmp_path):
  """Rescale Slope 2 and 4 undo a private scale of 1/2 and 1/4, or they do not."""
  def edit(private):
    def of(data, k):
      data.RescaleSlope, data.RescaleIntercept = str(2 + 2 * (k == 2)), "0"
      data.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", private(k))
    return of
  files = series.write(tmp_path / "a", np.ones((4, 4, 6)), LPS, edit=edit(lambda k: 1 / (2 + 2 * (k == 2))))
  assert dicom_series.read_series(sorted(files))[0].shape == (4, 4, 6)
  files = series.write(tmp_path / "b", np.ones((4, 4, 6)), LPS, edit=edit(lambda k: 0.5))
  with pytest.raises(UserError, match="another scale .of Philips"):
    dicom_series.read_series(sorted(files))


@pytest.mark.parametrize("between, thick, said", [
    (2, 2, False), (1, 1, True), (1, 1.1, True), (0.5, None, True), (1, 5, False), (0, 2, False),
    (-2, 2, False), (1.5, 1, False), (None, 1, False)])
def test_every_second_slice_that_is_missing_is_told_by_the_distance_that_headers_say(
    tmp_path, caplog, between, thick, said):
  """Regular distances look whole; some scanners say the gap between slices, which is less than a slice."""
  fields = {"SpacingBetweenSlices": between, "SliceThickness": thick}
  files = series.write(tmp_path / "s", np.ones((4, 4, 6)), np.diag([-1.0, -1, 2, 1]),
                       **{k: v for k, v in fields.items() if v is not None})
  assert dicom_series.read_series(sorted(files))[0].shape == (4, 4, 6)
  line = f"{tmp_path / 's'}: its slices lie 2 mm apart, {2 / (between or 1):g} times the"
  assert (line in caplog.text) == said and ("slices lie" in caplog.text) == said


@pytest.mark.parametrize("one, other, fits", [(2000, 1600, True), (1600, 2000, True), (2000, 1400, False),
                                              (600, 2000, False)])
def test_repetition_times_of_one_volume_vary_a_little_as_in_gated_scans(tmp_path, one, other, fits):
  edit = lambda data, k: setattr(data, "RepetitionTime", str(other if k == 2 else one))
  files = series.write(tmp_path / "s", np.ones((4, 4, 6)), LPS, edit=edit)
  if fits:
    assert dicom_series.read_series(sorted(files))[0].shape == (4, 4, 6)
  else:
    with pytest.raises(UserError, match="another repetition time"):
      dicom_series.read_series(sorted(files))


def shifted(axis, mm, at=None):
  def edit(data, k):
    if at is None or k == at:
      position = [float(v) for v in data.ImagePositionPatient]
      position[axis] += mm if at is not None else mm * k
      data.ImagePositionPatient = position
  return edit


def larger(data, k):
  if k == 2:
    data.Rows, data.Columns = data.Columns, data.Rows


def frames(data, k):
  if k == 2:
    data.NumberOfFrames, data.PixelData = 2, data.PixelData * 2


def enhanced(data, k):
  data.PerFrameFunctionalGroupsSequence = [pydicom.Dataset()]  # of one frame: its place stands in there


@pytest.mark.parametrize("edit,word", [
    (shifted(2, 5.0, at=2), "same position"), (shifted(2, 1.0, at=2), "unevenly"),
    (shifted(1, 1.0), "tilted"), (larger, "size"), (frames, "2 frames"), (enhanced, "multi-frame"),
    (change("ImageOrientationPatient", [0, 1, 0, 1, 0, 0]), "orientation"),
    (change("FrameOfReferenceUID", "1.9"), "frame of reference"),
    (change("PixelSpacing", [1, 1]), "pixel spacing"),
    (change("ImagePositionPatient", None), "ImagePositionPatient"),
    (change("PixelData", b"12"), "not readable")])
def test_what_is_no_volume_is_refused(tmp_path, edit, word):
  files = series.write(tmp_path / "s", np.ones((6, 5, 6)), LPS, edit=edit)
  with pytest.raises(UserError, match=word) as error:
    dicom_series.read_series(files)
  assert str(tmp_path / "s") in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name, value", [
    ("PixelSpacing", [1, 0]), ("PixelSpacing", [-1, 1]), ("PixelSpacing", [1, 1, 1]),
    ("ImagePositionPatient", [0, 0]), ("ImageOrientationPatient", [1, 0, 0, 0, 1]),
    ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), ("ImageOrientationPatient", [2, 0, 0, 0, 1, 0])])
def test_places_that_are_none_are_refused(tmp_path, name, value):
  edit = lambda data, k: setattr(data, name, value)
  files = series.write(tmp_path / "s", np.ones((4, 4, 6)), LPS, edit=edit)
  with pytest.raises(UserError, match="place no slice|no two directions at right angles"):
    dicom_series.read_series(sorted(files))


@pytest.mark.parametrize("edit, word", [
    (change("PhotometricInterpretation", "MONOCHROME1"), "another meaning of black"),
    (change("ImageOrientationPatient", [1, 0, 0, 0, -1, 0]), "another orientation"),  # the columns alone
    (lambda data, k: setattr(data, "ModalityLUTSequence", lookup()), "a modality look-up table")])
def test_slices_whose_values_or_rows_mean_something_else(tmp_path, edit, word):
  files = series.write(tmp_path / "s", np.ones((4, 4, 6)), np.diag([-1.0, -1, 1, 1]), edit=edit)
  with pytest.raises(UserError, match=word):
    dicom_series.read_series(sorted(files))


def lookup():
  item = pydicom.Dataset()
  item.LUTDescriptor = [2, 0, 16]
  item.add_new(0x00283006, "OW", bytes(4))
  return [item]


def test_what_is_a_volume_by_its_places(tmp_path):
  """Four slices at places of their own, and a place for more than half of the files."""
  def sort(name, slices, placed=None, edit=None):
    def keep(data, k):
      if placed is not None and k >= placed:
        data.ImagePositionPatient = None
      if edit:
        edit(data, k)
    files = series.write(tmp_path / name, np.ones((4, 4, slices)), LPS, edit=keep)
    return dicom_series.gather(files)[0]
  assert [sort(f"n{n}", n).sort for n in (1, 3, 4)] == ["image", "unclear", "volume"]
  assert [sort(f"p{n}", 8, n).sort for n in (0, 4, 5)] == ["image", "unclear", "volume"]
  here = lambda data, k: setattr(data, "ImagePositionPatient", [0, 0, 0])
  assert sort("one place", 5, edit=here).sort == "image"
  assert sort("other", 4, edit=change("PatientID", "Q", at=1)).patient == ""  # of two people
  assert sort("some", 4, edit=change("PatientID", "", at=1)).patient == "P"


def test_gaps_single_slices_and_damaged_files_are_refused(tmp_path):
  files = series.write(tmp_path / "s", np.ones((6, 5, 6)), LPS)
  for wrong, word in ((files[:3] + files[4:], "missing"), (files[:1], "one slice")):
    with pytest.raises(UserError, match=word):
      dicom_series.read_series(wrong)
  copy = tmp_path / "copy" / files[2].name
  copy.parent.mkdir()
  copy.write_bytes(files[2].read_bytes())
  with pytest.raises(UserError, match=f"{tmp_path}/copy.*same position"):
    dicom_series.read_series([*files, copy])
  files[-1].write_bytes(b"nothing")  # the last slice: no gap tells
  found = dicom_series.gather(files)[0].files
  with pytest.raises(UserError, match=files[-1].name):
    dicom_series.read_series(found)


@pytest.mark.parametrize("layout", ["folders", "prefix", "description", "one folder"])
def test_predict_gives_the_maps_of_nifti(tmp_path, layout):
  want = predicted(write_nifti(tmp_path / "nifti", egg()), tmp_path / "out")
  root = tmp_path / "in"
  for i, (modality, volume) in enumerate(zip(NAMES, egg())):
    folder = {"folders": f"p/{modality}", "prefix": f"p_{modality}", "description": f"p/s{i}",
              "one folder": "p"}[layout]
    text = f"AX {modality.upper()}" if layout in ("description", "one folder") else ""
    files = series.write(root / folder, volume, LPS, SeriesDescription=text)
    if layout == "one folder":  # names of the second series must not cover those of the first
      [f.rename(f.with_name(modality + f.name)) for f in files]
  scan, = inputs.find_all(root, NAMES, ("nifti", "image", "dicom"))[0]
  assert scan.name == "p" and len(scan.all_files) == 18
  out = tmp_path / "dicom"
  out.mkdir()
  row = predictor().predict_one(scan, out)
  image = nibabel.load(out / "p_anomaly.nii.gz")
  np.testing.assert_allclose(image.affine, LPS, atol=1e-4)
  np.testing.assert_allclose(image.get_fdata(), want[1], atol=1e-6)
  assert row["mask_ml"] == pytest.approx(want[0]["mask_ml"])


TILT = nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.2, -0.25, 0.15))


@pytest.mark.parametrize("codes, tilt", [("LPS", np.eye(4)), ("PIR", np.eye(4)), ("LIA", np.eye(4)),
                                         ("PIL", TILT), ("RSP", TILT), ("LPS", TILT)])
def test_axial_sagittal_coronal_and_oblique_series_give_one_map(tmp_path, codes, tilt):
  """Slices across any axis: the network sees the scan as in NIfTI, and maps lie in its place."""
  affine = tilt @ LPS
  want = predicted(write_nifti(tmp_path / "nifti", egg(), affine=affine), tmp_path / "out")
  for modality, volume in zip(NAMES, egg()):
    series.write(tmp_path / "in" / f"p_{modality}", *stored(volume, codes, affine))
  row, found, _ = predicted(tmp_path / "in", tmp_path / "dicom", kinds=("dicom",))
  image = nibabel.load(tmp_path / "dicom/p_anomaly.nii.gz")
  change = nibabel.orientations.ornt_transform(*map(nibabel.io_orientation, (image.affine, affine)))
  image = nibabel.Nifti1Image(found, image.affine).as_reoriented(change)
  np.testing.assert_allclose(image.affine, affine, atol=1e-3)
  np.testing.assert_allclose(image.get_fdata(), want[1], atol=1e-4)
  assert row["mask_ml"] == pytest.approx(want[0]["mask_ml"], rel=1e-3) and row["mask_ml"] > 0


def test_predict_reads_the_cells_of_a_manifest(tmp_path):
  want = predicted(write_nifti(tmp_path / "nifti", egg()), tmp_path / "out")[1]
  flair = []
  for folder, volume, text in (("a", egg()[1], "T1"), ("a", egg()[0], "x"), ("b", egg()[0], "")):
    files = series.write(tmp_path / "in" / folder, volume, LPS, SeriesDescription=text)
    flair = [f.rename(f.with_name(f"{text}{f.stem}")) for f in files]
  table = tmp_path / "in/manifest.csv"
  table.write_text(f"patient,flair,t1\np,b/{flair[3].name},a\nq,b,nowhere\nr,a,b\n")
  scans, found = inputs.find_all(tmp_path / "in", NAMES, ("nifti", "image", "dicom"))
  assert [s.name for s in scans] == ["p", "q", "r"]
  predictor().predict_one(scans[0], tmp_path / "out")
  got = nibabel.load(tmp_path / "out/p_anomaly.nii.gz").get_fdata()
  np.testing.assert_allclose(got, want, atol=1e-6)
  with pytest.raises(FileNotFoundError, match="nowhere"):
    inputs.read_scan(scans[1], NAMES)
  with pytest.raises(UserError, match="holds 2 series, and none of them say flair"):
    inputs.read_scan(scans[2], NAMES)
  assert len(found.files) == 18 and {item.path.name[0] for item in found.left_out} == {"m", "x"}


def test_a_damaged_slice_beside_two_series_costs_both(tmp_path):
  for modality, volume in zip(NAMES, egg()):
    files = series.write(tmp_path / "in/p", volume, LPS, SeriesDescription=modality)
    [f.rename(f.with_name(modality + f.name)) for f in files]
  (tmp_path / "in/p/a.dcm").write_bytes(b"nothing")
  scan, = inputs.find_all(tmp_path / "in", NAMES, ("dicom",))[0]
  with pytest.raises(UserError, match="a.dcm"):
    inputs.read_scan(scan, NAMES)


def test_series_that_are_no_input_are_named(tmp_path):
  for name in ("p_flair", "p_t2", "localizer"):
    series.write(tmp_path / name, np.ones((6, 5, 4)), LPS)
  scans, found = inputs.find_all(tmp_path, ("flair",), ("nifti", "image", "dicom"))
  assert [s.name for s in scans] == ["p"]
  assert {item.path.parent.name for item in found.left_out} == {"p_t2", "localizer"}
  scans, found = inputs.find_all(tmp_path / "localizer", ("flair",), ("nifti", "image", "dicom"))
  assert [s.name for s in scans] == ["localizer"]  # one modality: a series alone is a scan
  scans, found = inputs.find_all(tmp_path, NAMES, ("nifti", "image", "dicom"))
  assert [list(s.files) for s in scans] == [["flair"]]
  assert {item.path.parent.name for item in found.left_out} == {"p_t2", "localizer"}
  one = next((tmp_path / "p_flair").iterdir())
  scan, = inputs.find_all(one, ("flair",), ("nifti", "image", "dicom"))[0]
  assert len(scan.all_files) == 4  # a slice stands for its series


def test_scans_of_two_studies_beside_each_other_keep_names_of_their_own(tmp_path):
  for study in "12":
    for modality in NAMES:
      series.write(tmp_path / f"s{study}{modality[0]}", np.ones((6, 5, 4)), LPS, study=f"1.{study}",
                   SeriesDescription=modality)
  scans, _ = inputs.find_all(tmp_path, NAMES, ("nifti", "image", "dicom"))
  assert [s.name for s in scans] == ["s1f", "s2f"]
  assert {f.parent.name for f in scans[0].all_files} == {"s1f", "s1t"}


def test_a_model_of_images_takes_each_file_of_a_series_by_itself(tmp_path):
  files = series.write(tmp_path / "in", np.arange(45).reshape(3, 3, 5), np.eye(4))
  scans, found = inputs.find_all(tmp_path / "in", (), ("image", "dicom"))
  assert sorted(s.files[""] for s in scans) == sorted(files) == found.files
