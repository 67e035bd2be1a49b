"""What a table's cell means where it names a folder of DICOM series, or one slice of a series."""

import pathlib
import types

import numpy as np
import pytest

from data_pipelines.brains import inputs, own_scans, series
from data_pipelines.errors import UserError
from data_pipelines.formats.dicom_series import Series
from data_pipelines.intake import find
from data_pipelines.intake.sides import Member
from tests import dicom_series_files


@pytest.fixture
def there(tmp_path, monkeypatch):
  """((uid, description, reason), ...) -> their series, two files each, in one folder."""
  def make(*given):
    made = []
    for uid, text, reason in given:
      files = [tmp_path / f"{uid}{i}.dcm" for i in range(2)]
      for file in files:
        file.write_bytes(bytes(128) + b"DICM")
      made.append(Series(uid, files, (text, ""), reason=reason))
    monkeypatch.setattr(series.dicom_series, "gather", lambda files: made if sorted(files) == sorted(
        f for s in made for f in s.files) else pytest.fail("other files were looked at"))
    return tmp_path
  return make


def names(files):
  return [f.name for f in files]


def test_a_folder_of_one_series_means_it_whatever_it_says(there):
  folder = there(("a", "localizer", "is a localizer"), ("b", "", ""))
  assert names(series.of_cell(folder, "flair")) == ["b0.dcm", "b1.dcm"]


def test_of_several_the_one_that_says_the_modality_is_meant(there):
  folder = there(("a", "AX T1", ""), ("b", "AX T2 FLAIR", ""), ("c", "AX T2 FLAIR", "is a derived picture"))
  assert names(series.of_cell(folder, "flair")) == ["b0.dcm", "b1.dcm"]


@pytest.mark.parametrize("texts, said", [(("AX T1", "AX T2"), "holds 2 series, and none"),
                                         (("AX T2 FLAIR", "COR FLAIR"), "holds 2 series, and 2")])
def test_none_or_two_that_say_it_are_refused(there, texts, said):
  with pytest.raises(UserError, match=said):
    series.of_cell(there(("a", texts[0], ""), ("b", texts[1], "")), "flair")


def test_a_folder_without_images_is_refused_with_the_reason_of_what_is_there(there, tmp_path):
  with pytest.raises(UserError, match="holds no DICOM series: a0.dcm is a segmentation"):
    series.of_cell(there(("a", "", "is a segmentation")), "flair")
  (tmp_path / "empty").mkdir()
  there()
  with pytest.raises(UserError, match="empty holds no DICOM series$"):
    series.of_cell(tmp_path / "empty", "flair")


def test_a_slice_means_its_own_series_of_those_beside_it(there):
  folder = there(("a", "AX T1", ""), ("b", "AX T2 FLAIR", ""))
  (folder / "deeper").mkdir()
  (folder / "deeper/c0.dcm").write_bytes(bytes(128) + b"DICM")
  assert names(series.of_cell(folder / "b1.dcm", "t1")) == ["b0.dcm", "b1.dcm"]


def test_other_files_and_nothing_are_no_series(tmp_path):
  (tmp_path / "a.nii.gz").write_bytes(b"")
  assert series.of_cell(tmp_path / "a.nii.gz", "t1") == [] == series.of_cell(pathlib.Path("none.dcm"), "t1")


# --------------------------------------------------------------- which series are which modalities
def series_of(folder, uid, text="", patient="p", **more):
  folder.mkdir(parents=True, exist_ok=True)
  file = folder / f"{uid}.dcm"
  file.write_bytes(bytes(128) + b"DICM")
  return Series(uid, [file], (text, ""), patient=patient, **{"study": "s", **more})


def test_contrast_agent_may_go_unsaid_and_nothing_else(tmp_path):
  given = [series_of(tmp_path / "t1ce/1", "a", "AX T1"), series_of(tmp_path / "flair/1", "b", "AX T2 FLAIR"),
           series_of(tmp_path / "t2/1", "c", "AX T1")]
  found = find.Found(tmp_path, [f for s in given for f in s.files])
  scan, = series.scans(found, ("t1", "t1ce", "flair", "t2"), given)
  assert {m: f[0].stem for m, f in scan.files.items()} == {"t1ce": "a", "flair": "b"}
  assert [i.reason for i in found.left_out] == ["lies in a folder of t2, its description says t1"]


@pytest.mark.parametrize("people, patient", [(("p", "p"), "p"), (("p", "q"), "")])
def test_a_scan_is_of_a_patient_where_its_headers_agree(tmp_path, people, patient):
  given = [series_of(tmp_path / "x", m, f"AX {m}", person) for m, person in zip(("T1", "FLAIR"), people)]
  scan, = series.scans(find.Found(tmp_path, [f for s in given for f in s.files]), ("t1", "flair"), given)
  assert scan.patient == patient


@pytest.mark.parametrize("study, wanted", [("", [["a", "b"], ["c", "d"]]), ("s", "twins")])
def test_series_without_a_study_belong_to_those_of_their_folder(tmp_path, study, wanted):
  """Of two patients whose identifiers were removed; one study with each modality twice is no scan."""
  given = [series_of(tmp_path / place, uid, text, "", study=study) for place, uid, text in (
      ("x", "a", "AX T1"), ("x", "b", "AX FLAIR"), ("y", "c", "AX T1"), ("y", "d", "AX FLAIR"))]
  found = find.Found(tmp_path, [f for s in given for f in s.files])
  scans = series.scans(found, ("t1", "flair"), given)
  assert ([[files[0].stem for files in s.files.values()] for s in scans] or "twins") == wanted


@pytest.mark.parametrize("study, taken", [("", ["a", "c"]), ("s", ["a"])])
def test_a_series_without_a_name_stands_back_for_a_named_one_of_its_study_alone(tmp_path, study, taken):
  given = [series_of(tmp_path / place, uid, text, "", study=study) for place, uid, text in (
      ("x", "a", "AX FLAIR"), ("x", "b", ""), ("y", "c", ""))]
  found = find.Found(tmp_path, [f for s in given for f in s.files])
  scans = series.scans(found, ("flair",), given)
  assert [files[0].stem for s in scans for files in s.files.values()] == taken


@pytest.mark.parametrize("words, modality, taken", [
    (["DERIVED", "PRIMARY", "ADC"], "flair", False), (["ORIGINAL", "PRIMARY", "M"], "flair", True),
    (["DERIVED", "PRIMARY", "ADC"], "adc", True), (["DERIVED", "SECONDARY", "MIP"], "flair", False),
    (["DERIVED", "SECONDARY", "MPR"], "flair", True)])
def test_maps_and_projections_are_no_scans_by_their_image_type(tmp_path, words, modality, taken):
  """A study with nothing but a map of diffusion was read as the one modality of the model."""
  files = dicom_series_files.write(tmp_path / "s", np.ones((4, 4, 5)), np.eye(4), ImageType=words)
  found = find.find(tmp_path, ("dicom",))
  scans = [s.files for s in series.scans(found, (modality,))]
  assert scans == ([{modality: sorted(files)}] if taken else [])
  reason = f"is of a series that its ImageType calls {words[-1]}"
  assert taken or {i.reason for i in found.left_out} == {reason}


def test_a_folder_of_series_has_the_sequences_that_all_of_its_scans_have(monkeypatch):
  """In the order of the known names; where no series names any, each is a scan of one."""
  def sequences_of(asked, *scans, named=True):
    given = [series.SeriesScan(f"s{i}", {m: [pathlib.Path(f"s{i}/{m}.dcm")] for m in names}, pathlib.Path())
             for i, names in enumerate(scans)]
    files = [f for s in given for part in s.files.values() for f in part]
    one = types.SimpleNamespace(folder="s0")
    found = types.SimpleNamespace(series=[one], root=pathlib.Path(), labels=[], found=types.SimpleNamespace(
        files=files, leave_out=left.update))
    monkeypatch.setattr(series, "unnamed", lambda *_: [] if named else [one])
    monkeypatch.setattr(series, "scans", lambda *_: given)
    monkeypatch.setattr(own_scans, "_as_members", lambda scans, _: [
        Member(s.name, pathlib.Path(s.name), 0) for s in scans])
    for name in ("say", "refuse_broken"):
      monkeypatch.setattr(own_scans.counts, name, lambda found: None)
    left.clear()
    groups, chosen = own_scans.group_series(found, asked)
    assert all(tuple(g.volumes) == chosen for g in groups) and len(groups) == len(scans)
    return chosen

  left, both = {}, tuple(k for k in own_scans.KNOWN if k in ("t1", "flair"))
  assert sequences_of((), ("t1", "flair"), ("flair", "t1", "t2")) == both
  assert list(left.values()) == [f"is of a series that is none of {', '.join(both)}"]
  assert sequences_of(("t1",), ("t1", "flair")) == ("t1",) and len(left) == 1
  assert sequences_of((), (own_scans.ANY,), named=False) == (own_scans.ANY,)
  with pytest.raises(UserError, match="1 of 2 scans lack a modality"):
    sequences_of(("t1", "flair"), ("t1", "flair"), ("t1",))
  with pytest.raises(UserError, match="2 of 2 scans lack a modality"):
    sequences_of((), ("t1",), ("flair",))
  with pytest.raises(UserError, match="neither folder nor SeriesDescription"):
    sequences_of(("t1", "flair"), ("t1", "flair"), named=False)


def test_each_series_that_is_left_out_is_named_with_its_own_reason(there):
  folder = there(("a", "FLAIR", "is a localizer"), ("b", "FLAIR", ""), ("c", "FLAIR", "is a derived picture"))
  found = find.find(folder, ("dicom",))
  assert [s.name for s in series.scans(found, ("flair",))] != [] and {
      item.path.name: item.reason for item in found.left_out} == {
          **dict.fromkeys(("a0.dcm", "a1.dcm"), "is a localizer"),
          **dict.fromkeys(("c0.dcm", "c1.dcm"), "is a derived picture")}


def test_of_one_file_its_own_series_is_read_or_its_own_reason_told(tmp_path):
  """A folder of several series; the others were not asked for."""
  volume, made = np.arange(480).reshape(8, 10, 6), {}
  for name, text in (("a", "AX T2 FLAIR"), ("b", "AX localizer"), ("c", "AX DWI")):
    made[name] = [f.rename(tmp_path / f"{name}_{f.name}") for f in dicom_series_files.write(
        tmp_path / name, volume, np.eye(4), SeriesDescription=text)]
    (tmp_path / name).rmdir()
  scans, found = inputs.find_all(made["a"][2], ("flair",), ("dicom",))
  assert [sorted(s.all_files) for s in scans] == [sorted(made["a"])] and found.left_out == []
  assert sorted(found.files) == sorted(made["a"])
  scans, found = inputs.find_all(made["b"][1], ("flair",), ("dicom",))
  assert not scans and [item.path for item in found.left_out] == [made["b"][1]]


def test_a_volume_and_a_series_of_one_name_are_two_results(tmp_path):
  scans = [inputs.Scan(name, {"any": tmp_path / file}) for name, file in (
      ("P1", "P1.nii.gz"), ("P1", "P1/0.dcm"), ("P2", "P2.nii.gz"))]
  assert [(s.name, s.files["any"].name) for s in inputs._told_apart(scans)] == [
      ("P1", "P1.nii.gz"), ("P1_2", "0.dcm"), ("P2", "P2.nii.gz")]
