"""Which scans of a table count, and which fields of brain volumes make sense; no volume is read."""

import itertools
import pathlib

import pytest

from data_pipelines.brains import fields, files, inputs, scan_folders
from data_pipelines.errors import UserError
from data_pipelines.intake import find as finder
from tests.unit.intake.test_sequence_names import folder_of


def found(root, table, **rule):
  (root / "manifest.csv").write_text(table)
  for name in ("a", "b", "c", "d"):
    (root / f"{name}.nii.gz").touch()
  return files.find_scans(root, ("flair",), **rule)


def test_the_label_of_a_scan_is_looked_for_in_rounds():
  """seg, mask and label, of which there may be one; else another ending; else words before an ending."""
  rounds = [["P01_seg", "P01_MASK", "p01-label"], ["P01_gt"], ["P01_tumor_seg"], []]
  others = ["P01_flair", "P02_seg", "P011_seg", "P01_t1"]
  for k in range(4):
    there = [pathlib.Path(f"{n}.nii.gz") for n in (*others, *itertools.chain(*rounds[k:]))]
    found = scan_folders.find_files(there, "P01", "seg")
    assert [finder.stem_of(p) for p in found] == rounds[k]
    assert [p.name for p in scan_folders.find_files(there, "p01", "flair")] == ["P01_flair.nii.gz"]


def test_rows_that_are_unused_or_empty_are_no_scans(tmp_path):
  scans = found(tmp_path, "patient,split,flair,Institution,seg\nP1,Train,a.nii.gz,Bern,\n"
                "P2,unused,b.nii.gz,,\nP3,val,,Bern,\nP4,test,d.nii.gz,Basel,c.nii.gz\n")
  assert [(s.patient, s.split, s.site, s.volumes, s.seg) for s in scans.scans] == [
      ("P1", "train", "Bern", (str(tmp_path / "a.nii.gz"),), None),
      ("P4", "test", "Basel", (str(tmp_path / "d.nii.gz"),), str(tmp_path / "c.nii.gz"))]
  assert list(scans.incomplete) == ["P3"] and scans.split_rule == "column split of manifest.csv"


@pytest.mark.parametrize("column, values, said", [
    ("diagnosis", ("healthy", "glioma", "glioma"), "P2"), ("Tumor label", ("0", "1", "1"), "P2"),
    ("group", ("controls", "patients", "patients"), "P2"), ("diagnosis", ("normal", "normal", "tumour"), ""),
    ("sex", ("0", "1", "1"), ""), ("vital status", ("0", "1", "1"), ""), ("age", ("40", "1", "1"), ""),
    ("note", ("normal", "see letter", "1"), "")])
def test_a_column_that_calls_scans_without_a_label_abnormal_is_said(tmp_path, caplog, column, values, said):
  """Gliomas without a label were trained on as normal, without a word: P3 has its label."""
  rows = zip(values, ("P1,train,a.nii.gz,", "P2,train,b.nii.gz,", "P3,train,c.nii.gz,d.nii.gz"))
  found(tmp_path, f"patient,split,flair,seg,{column}\n" + "".join(f"{row},{v}\n" for v, row in rows))
  text = f"1 scans have no label and are abnormal by column {column.lower()!r} ({values[1]}), the first P2:"
  assert (text in caplog.text) == bool(said) == ("no label" in caplog.text)


@pytest.mark.parametrize("names", [("sub-{}/anat/sub-{}_FLAIR",), ("S{}/S{}_flair",)])
def test_a_table_beside_scans_without_labels_is_said(tmp_path, caplog, names):
  """participants.tsv says who is a patient, and all were taken for normal with a line that named no table."""
  for i in range(3):
    folder_of(tmp_path, *(name.format(i, i) for name in names))
  files.find_scans(tmp_path, ("flair",))
  assert "taken for normal" in caplog.text and "is not read" not in caplog.text
  (tmp_path / "participants.tsv").write_text("participant_id\tgroup\n")
  files.find_scans(tmp_path, ("flair",))
  assert "participants.tsv is not read: where it says who is not, leave these scans out" in caplog.text


def test_scans_of_a_group_are_of_one_person_and_so_are_times_of_a_patient(tmp_path):
  table = ("patient,split,flair,group\nP1_visit1,train,a.nii.gz,\nP1_visit2,train,b.nii.gz,\n"
           "x,val,c.nii.gz,G\n")
  groups = lambda **rule: [s.group for s in found(tmp_path, table, **rule).scans]
  assert groups() == ["P1", "P1", "G"] and groups(grouping="file") == ["P1_visit1", "P1_visit2", "x"]
  with pytest.raises(UserError, match="P1 in train and val"):
    found(tmp_path, table.replace("P1_visit2,train", "P1_visit2,val"))


def test_one_unknown_scan_is_enough_for_the_seeded_rule():
  published = files.published_split()
  some = [published[s][0] for s in ("train", "val", "test")]
  assert files._split_lists(some, pathlib.Path("/none"))[1] == "published BraTS2021 lists"
  lists, rule = files._split_lists([*some, "BraTS2021_99999"], pathlib.Path("/none"))
  assert rule.startswith("seeded rule") and sum(map(len, lists.values())) == 4


@pytest.mark.parametrize("given, said", [
    ({"orientation": "LLS"}, "orientation"), ({"orientation": "LPX"}, "orientation"),
    ({"orientation": "LP"}, "orientation"), ({"field_mm": 0.0}, "positive number of mm"),
    ({"unit": "median", "tfds_dir": "x"}, "unit=median needs the scans"),
    ({"modalities": ("t1", "t1")}, "differ"),
    ({"lesion_values": (0, 1)}, "none of them 0"), ({"image_size": (16, 0)}, "image_size")])
def test_fields_that_make_no_sense(given, said):
  with pytest.raises(UserError, match=said):
    fields.resolve(given)


def test_fields_that_do_and_the_noise_they_ask_for():
  cfg = fields.resolve({"orientation": "RAS", "image_size": 16})
  assert cfg.image_size == (16, 16) and fields.spec(cfg).shape == (16, 16, 4)
  assert len(fields.batch_ops(cfg)) == 1 and fields.augment_ops(cfg) == ()
  for off in ({"noise_std": 0.0}, {"noise_on_device": True}, {"resident": True}):
    assert fields.batch_ops(fields.resolve(off)) == ()
  assert len(fields.augment_ops(fields.resolve({"flip": True, "gain": 0.1}))) == 2
  assert len(fields.augment_ops(fields.resolve({"gain": 0.1}))) == 1


def test_a_scan_of_a_bids_set_that_cannot_be_opened_stops_it(tmp_path):
  """Left out, the set would be another one, and a label that is lost makes a normal scan."""
  for subject in ("01", "02"):
    anat = tmp_path / f"sub-{subject}" / "anat"
    anat.mkdir(parents=True)
    (anat / f"sub-{subject}_T1w.nii.gz").touch()
  rule = {"grouping": "patient", "pattern": ""}
  assert len(scan_folders.look_bids(tmp_path, ("t1",), rule).complete) == 2
  (anat / "sub-02_T1w.nii.gz").unlink()
  (anat / "sub-02_T1w.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
  with pytest.raises(UserError, match="sub-02_T1w.nii.gz is a link"):
    scan_folders.look_bids(tmp_path, ("t1",), rule)


@pytest.mark.parametrize("header, rows, said", [
    ("patient,flair,set", "p1,a.nii,train", "no column split, and its column 'set' holds words of one"),
    ("patient,flair,set", "p1,a.nii,train\np2,b.nii,", "no column split, and its column 'set' holds words"),
    ("patient,flair,set", "p1,a.nii,late", ""), ("patient,flair,split,set", "p1,a.nii,test,train", ""),
    ("patient,flair,Ground Truth", "p1,a.nii,b.nii", "no column seg, and its column 'ground truth' seems to"),
    ("patient,flair,Maske", "p1,a.nii,p1_seg.nii.gz", "column 'maske' seems to hold labels: call it seg"),
    ("patient,flair,label", "p1,a.nii,tumour", ""), ("patient,flair,t1", "p1,a.nii,p1_t1.nii", ""),
    ("patient,flair,brain_mask", "p1,a.nii,p1_brain_mask.nii", ""),
    ("patient,flair,seg,label", "p1,a.nii,,p1_label.nii", "")])
def test_columns_that_hold_what_another_is_read_for(tmp_path, caplog, header, rows, said):
  """Labels called `segmentation` were left out, and lesions trained on; so was a split called `set`."""
  if said:
    with pytest.raises(UserError, match=said):
      found(tmp_path, f"{header}\n{rows}\n")
  else:
    assert len(found(tmp_path, f"{header}\n{rows}\n").scans) == 1


def test_rows_that_hold_files_of_two_scans_are_said(tmp_path, caplog):
  table = ("patient,flair,seg,mask\na,a_flair.nii,{}_seg.nii,\nb,b_flair.nii,{}_seg.nii,\n"
           "c,c_flair.nii,x_seg.nii,\n")
  found(tmp_path, table.format("a", "b"))
  assert "several scans" not in caplog.text and "a column mask, which is not" in caplog.text
  found(tmp_path, table.format("b", "a"))
  assert "2 rows hold files of several scans by their names, the first that of a (a, b)" in caplog.text


def test_a_pattern_of_the_config_says_whose_a_scan_is(tmp_path):
  table = "patient,split,flair\ns1-anna,train,a.nii.gz\ns2-anna,train,b.nii.gz\ns3-bert,val,c.nii.gz\n"
  groups = lambda **rule: [s.group for s in found(tmp_path, table, **rule).scans]
  assert groups(group_pattern="-([a-z]+)") == ["anna", "anna", "bert"] and len(set(groups())) == 3
  with pytest.raises(UserError, match="anna in train and val"):
    found(tmp_path, table.replace("s2-anna,train", "s2-anna,val"), group_pattern="-([a-z]+)")


def test_two_endings_of_one_name_are_two_scans():
  plain, packed, other = (pathlib.Path(n) for n in ("x_t1.nii", "x_t1.nii.gz", "x_flair.nii"))
  both = [("t1", plain), ("t1", packed), ("flair", other)]
  assert inputs._apart(both) == [[("t1", plain), ("flair", other)], [("t1", packed)]]
  assert inputs._apart(both[1:]) == [both[1:]]


def test_a_manifest_is_found_in_any_capitals(tmp_path):
  (tmp_path / "Manifest.CSV").write_text("patient,flair,seg\np1,a.nii,b.nii\n")
  assert [s.name for s in inputs.find(tmp_path, ("flair",))] == ["p1"]


@pytest.mark.parametrize("header, said", [("seg", False), ("mask", False), ("seg,mask", True)])
def test_a_column_of_labels_alone_is_no_doubt(tmp_path, caplog, header, said):
  found(tmp_path, f"patient,flair,{header}\np1,p1_flair.nii,,\n")
  assert ("a column mask, which is not" in caplog.text) == said


def test_labels_with_words_are_found_whatever_the_capitals_of_either():
  for name, patient in (("P01_tumor_seg.nii.gz", "p01"), ("p01_tumor_seg.nii.gz", "P01")):
    path = pathlib.Path(name)
    assert scan_folders.find_files([path], patient, "seg") == [path]


def test_lists_of_a_split_count_where_each_split_has_one(tmp_path):
  ids = [f"P{i}" for i in range(40)]
  (tmp_path / "train").mkdir()
  (tmp_path / "train/scans.csv").write_text("P0\n")
  assert files._split_lists(ids, tmp_path)[1].startswith("seeded rule")
  for name in ("val", "test"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "scans.csv").write_text("P1\n")
  lists, rule = files._split_lists(ids, tmp_path)
  assert rule.startswith("files") and lists == {"train": ["P0"], "val": ["P1"], "test": ["P1"]}


def test_a_scan_is_called_as_its_user_calls_it_where_its_results_cannot_be(tmp_path):
  path = tmp_path / "sub/a:b_flair.nii.gz"
  (scan,) = inputs._named([(path, "a:b", {"flair": path})], tmp_path)
  assert scan.title == "sub/a:b" and ":" not in scan.name
