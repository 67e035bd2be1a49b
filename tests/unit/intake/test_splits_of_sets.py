"""Splits that are made here, and lists of splits: no patient is divided, in no data set."""

import types

import numpy as np
import pytest

from data_pipelines.brains import files, inputs, tfds_brats
from data_pipelines.datasets import nih
from data_pipelines.errors import UserError
from data_pipelines.intake import patients
from tests import image_files
from tests.small_sets import save


# --------------------------------------------------------------------------------- one-class folders
def one_class(root, **fields):
  cfg = nih.defaults()
  cfg.update({"root": str(root), "layout": "folder", **fields})
  return nih.build(cfg, 0)


def write_one_class(root, sides=("train/normal", "val/anomaly", "test/normal", "test/anomaly")):
  """Six patients with three pictures each in every folder, none of them in two."""
  for k, side in enumerate(sides):
    for i in range(18):
      save(root / side / f"P{10 * k + i // 3:02d}_{i}.png")


@pytest.mark.parametrize("fields", [{"fold": k} for k in range(3)]
                         + [{"val_fraction": share} for share in (0.1, 0.34, 0.5)]
                         + [{"val_fraction": 0.3, "fold_seed": s} for s in (1, 2)])
def test_parts_of_the_training_folder_are_divided_by_patient(tmp_path, fields):
  write_one_class(tmp_path)
  data = one_class(tmp_path, **fields)
  groups = {part: {i.group for i in items} for part, items in data.lists.items()}
  assert groups["train"] and not groups["train"] & (groups["val_normal"] | groups["test_normal"])
  for part, items in data.lists.items():
    count = {g: sum(i.group == g for i in items) for g in groups[part]}
    assert set(count.values()) <= {3}, part  # whole patients
  held = len(groups["val_normal"]) + (len(groups["test_normal"]) if "fold" in fields else 0)
  assert len(groups["train"]) + held == 6
  alone = one_class(tmp_path, grouping="file", **fields)
  assert len({i.group for i in alone.lists["train"]}) == len(alone.lists["train"])


def test_a_fold_leaves_out_anomalies_of_patients_it_trains_on(tmp_path, caplog):
  caplog.set_level("INFO")
  write_one_class(tmp_path)
  save(tmp_path / "val" / "anomaly" / "p00_99.png")
  for k in range(3):
    data = one_class(tmp_path, fold=k)
    trained = {i.group for part in ("train", "val_normal") for i in data.lists[part]}
    assert not trained & {i.group for i in data.lists["test_anomaly"]}
  assert "1 anomalies of groups with normal images in train or val are not tested on" in caplog.text


# ------------------------------------------------------------------------------------ lists of scans
NAMES = [f"S{i:02d}a" for i in range(8)]


def write_scans(root, lists=None, names=NAMES, encoding="utf-8", end="\n", top="data_splits"):
  for name in names:
    for kind in ("flair", "t1", "seg"):
      path = root / name / f"{name}_{kind}.nii.gz"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.touch()
  lists = lists or {"train": NAMES[:5], "val": NAMES[5:6], "test": NAMES[6:]}
  for split, listed in lists.items():
    (root / top / split).mkdir(parents=True, exist_ok=True)
    (root / top / split / "scans.csv").write_bytes(end.join(listed).encode(encoding))


def splits_of(root, **fields):
  found = files.find_scans(root, ("flair", "t1"), **fields)
  return {s: sorted(x.patient for x in found.scans if x.split == s) for s in files.SPLITS}, found


@pytest.mark.parametrize("form", [
    {}, {"encoding": "utf-8-sig"}, {"encoding": "utf-16"}, {"end": "\r\n"}, {"end": " \r\n\r\n "},
    {"end": "\r"}, {"top": "."}])
def test_lists_of_scans_are_read_alike(tmp_path, form):
  write_scans(tmp_path, **form)
  assert splits_of(tmp_path)[0] == {"train": NAMES[:5], "val": NAMES[5:6], "test": NAMES[6:]}


def test_lists_that_name_nobody_and_scans_in_no_list_are_reported(tmp_path):
  write_scans(tmp_path, {"train": NAMES[:4], "val": ["S99a"], "test": NAMES[5:]})
  found = splits_of(tmp_path)[1]
  assert found.incomplete == {"S04a": "in no list of files data_splits/*/scans.csv",
                              "S99a": "listed in files data_splits/*/scans.csv, but has no folder"}


@pytest.mark.parametrize("lists, message", [
    ({"train": NAMES[:5], "val": NAMES[4:6], "test": NAMES[6:]}, "S04a in train and val"),
    ({"train": NAMES[:5], "val": NAMES[5:6], "test": [*NAMES[6:], "s00A"]}, "S00a in train and test"),
    ({"train": NAMES[:5], "val": NAMES[5:7], "test": NAMES[6:]}, "S06a in val and test"),
    ({"train": [*NAMES[:5], "S01a"], "val": NAMES[5:6], "test": NAMES[6:]}, "6: 'S01a' is listed twice")])
def test_a_scan_in_two_lists_is_refused(tmp_path, lists, message):
  write_scans(tmp_path, lists)
  with pytest.raises(UserError, match=message):
    splits_of(tmp_path)


def test_two_times_of_a_person_in_two_lists_are_refused(tmp_path):
  names = [f"BraTS-GLI-0000{p}-00{t}" for p in range(4) for t in range(2)]
  write_scans(tmp_path, {"train": names[:5], "val": names[5:6], "test": names[6:]}, names)
  with pytest.raises(UserError, match="BraTS-GLI-00002 in train and val"):
    splits_of(tmp_path)
  assert splits_of(tmp_path, grouping="legacy")[0]["train"] == names[:5]


def test_the_rule_divides_people_and_is_the_published_one_where_each_has_one_scan(tmp_path):
  names = [f"BraTS-GLI-000{p:02d}-00{t}" for p in range(20) for t in range(2)]
  write_scans(tmp_path, {"train": []}, names)
  found = splits_of(tmp_path)[0]
  assert {s: len(v) for s, v in found.items()} == {"train": 30, "val": 2, "test": 8}
  assert all(len({n[:-4] for n in v}) == len(v) / 2 for v in found.values())
  single = [f"X{i}" for i in range(40)]
  assert files.split_by_rule(single) == files.split_by_rule(single, groups={n: n for n in single})


def test_a_tfds_set_with_a_person_in_two_splits_is_refused(tmp_path, monkeypatch):
  (tmp_path / "dataset_info.json").touch()
  row = lambda name: {"patient": name.encode(), "slice": 0, "image": np.zeros((4, 4, 1), np.float32),
                      "mask": np.zeros((4, 4, 1), np.uint8)}
  rows = {"train": [row("sub-01_ses-1"), row("sub-02_ses-1")], "test": [row("sub-01_ses-2")]}
  info = types.SimpleNamespace(features={"image": np.zeros((4, 4, 1))}, metadata={}, splits=rows)
  monkeypatch.setattr(tfds_brats.tfds, "builder_from_directory", lambda folder: types.SimpleNamespace(
      info=info, as_dataset=lambda split, shuffle_files: rows[split]))
  monkeypatch.setattr(tfds_brats.tfds, "as_numpy", lambda found: found)
  cfg = {"image_size": (4, 4), "modalities": ("t1",), "group_pattern": "", "grouping": "patient"}
  with pytest.raises(UserError, match="sub-01 in train and test"):
    tfds_brats.read_scans(tmp_path, cfg)
  assert len(tfds_brats.read_scans(tmp_path, {**cfg, "grouping": "legacy"})[0]["test"]) == 1
  assert len(tfds_brats.read_scans(tmp_path, {**cfg, "group_pattern": "(sub-.._ses-.)"})[0]["test"]) == 1


def test_predict_reads_tables_by_any_ending(tmp_path):
  for name in ("a.CSV", "b.tsv"):
    (tmp_path / name).write_text("Patient\tT1\nP1\tx.nii.gz\n")
    scan, = inputs.find(tmp_path / name, ("t1",))
    assert scan.files == {"t1": tmp_path / "x.nii.gz"}


@pytest.mark.parametrize("rows, words", [
    ("A,train,a_f,a_f,\n", "line 2: a_f is listed twice, first in line 2"),
    ("A,train,a_f,a_t,\nB,test,a_f,b_t,\n", "line 3: a_f is listed twice, first in line 2"),
    ("A,train,a_f,a_t,s\nB,test,b_f,b_t,s\n", "line 3: s is listed twice, first in line 2"),
    ("A,train,a_f,a_t,a_f\n", "line 2: a_f is listed twice, first in line 2")])
def test_one_file_is_one_volume_of_one_scan(tmp_path, caplog, rows, words):
  table = tmp_path / "manifest.csv"
  table.write_text(f"patient,split,flair,t1,seg\n{rows}")
  with pytest.raises(UserError, match=words):
    files.find_scans(tmp_path, ("flair", "t1"))
  if "a_f,a_f" in rows:  # predict refuses it, too; a scan under two names does no harm there
    with pytest.raises(UserError, match=words):
      inputs.find(table, ("flair", "t1"))
  else:
    assert len(inputs.find(table, ("flair", "t1"))) == rows.count("\n")
    assert ("a_f is also of line 2" in caplog.text) == ("B,test,a_f" in rows)


@pytest.mark.parametrize("mine, other", [
    (("OAS1_0028_MR1_mpr-1_100", "OAS1_0028_MR1_mpr-4_101", "OAS1_0028_MR2_mpr-1_9"),
     "OAS1_0029_MR1_mpr-1_100"),
    (("OAS30001_MR_d0129_5", "OAS30001_MR_d0757_5"), "OAS30002_MR_d0129_5"),
    (("BraTS20_Training_001_flair_80", "BraTS20_Training_001_t1ce_80"), "BraTS20_Training_002_t1_80"),
    (("BraTS-GLI-00005-100_t2f_80", "BraTS-GLI-00005-101_t1n_8"), "BraTS-GLI-00006-100_t2f_80"),
    (("S7A_flair_80", "S7A_t1ce_80", "S7A_dwi_2"), "S8A_flair_80"),
    (("16B0001851_Block_Region_1_0_0_xini_6803_yini_5", "16B0001851_Block_Region_2_0_0_xini_6_yini_59"),
     "16B0003388_Block_Region_1_0_0_xini_7827_yini_4"),
    (("10009_CRC-Prim-HE-03_009.tif_Row_301_Col_151", "1A11_CRC-Prim-HE-03_022.tif_Row_6_Col_1"),
     "10062_CRC-Prim-HE-02_003b.tif_Row_1_Col_301"),
    (("Mass-Training_P_00001_LEFT_CC/a/1-1", "Calc-Test_P_00001_RIGHT_MLO_1/b/1-1"),
     "Mass-Training_P_00004_LEFT_CC/a/1-1"),
    (("patient_004_node_4/x", "patient_004_node_1/y"), "patient_009_node_1/x"),
    (("1.1", "1.2"), "2.1"), (("0012 1", "0012 (2)", "0012"), "0013 1")])
def test_more_public_sets_whose_names_hide_the_person(mine, other):
  """Each file, or each of several, was a patient: acquisitions, views and patches lay on both sides."""
  names = [f"{name}.png" for name in (*mine, other, "0014 2")]
  found = patients.name_patients(names)
  assert len({found[name] for name in names[:-2]}) == 1 and found[names[-2]] != found[names[0]]


def test_numbers_behind_a_blank_are_of_one_where_there_are_several():
  one = lambda *names: len(set(patients.name_patients([f"n/{name}.png" for name in names]).values()))
  assert one("0012 1", "0012 2", "0013 1", "0014 1", "0014 (1)") == 3
  assert one("0012 1", "0012 2", "0012 3") == 3  # renamed by a file manager
  assert one("0012 1", "0012 2", "0013 1") == 3 and one("2019 1", "2019 2", "2020 1", "2021 1") == 4
  assert one("scan 1", "scan 2", "mine 1", "yours 2") == 4


def test_the_patient_id_of_cbis_is_one_of_a_view(tmp_path):
  """CC and MLO of a breast, and the other breast, were three patients by their PatientID."""
  names = [f"{k}.dcm" for k in range(3)]
  for name, who in zip(names, ("P_00001_LEFT_CC", "P_00001_RIGHT_MLO", "P_00002_LEFT_CC")):
    image_files.dicom(tmp_path / name, np.zeros((4, 4), np.uint8), PatientID=f"Mass-Training_{who}")
  assert list(patients.name_patients(names, root=tmp_path).values()) == ["P_00001", "P_00001", "P_00002"]


# --------------------------------------------------------------------- sequences, planes and views
@pytest.mark.parametrize("names, whose", [
    ("T1/IXI1-Guys-08 T2/IXI1-Guys-08 T1/IXI2-HH-12", "IXI1-Guys IXI1-Guys IXI2-HH"),
    ("IXI-T1/IXI1-HH-9-T1 IXI-DTI/IXI1-HH-9-DTI-00 IXI-T1/IXI2-HH-8-T1", "IXI1-HH-9 IXI1-HH-9 IXI2-HH-8"),
    ("n/axial/001 n/coronal/001 n/axial/002", "n/001 n/001 n/002"),
    ("t1/t1_P1_010 flair/flair_P1_010 t1/t1_P2_010", "P1 P1 P2"),
    ("t1_P1_010 flair_P1_010 t1_P2_010", "P1 P1 P2"), ("CC/7 MLO/7 CC/8", "7 7 8"),
    ("file_brain_AXT2_200_6002471 file_brain_AXT2_200_6002472 file_brain_AXFLAIR_200_6002473_slice_3",
     "6002471 6002472 6002473"), ("T1/a T2/a T3/b", "T1 T2 T3"), ("T1_01 T1_02 T2_01", "T1 T1 T2"),
    ("P01_T1/a P02_T1/a P01_T2/a", "P01 P02 P01"), ("P1/T1/a P1/T2/a P2/T1/a", "P1 P1 P2")])
def test_folders_of_sequences_planes_and_views_are_no_patients(names, whose):
  """normal/t1, normal/t2 and normal/flair were three patients, and every person was on all sides."""
  names = [f"{name}.png" for name in names.split()]
  assert patients.of_files(names) == whose.split()


def test_folders_of_several_sequences_are_said(caplog):
  patients.of_files(["normal/T1/a.png", "normal/FLAIR/a.png"])
  assert "folders FLAIR, T1 are named as sequences, planes or views" in caplog.text
  caplog.clear()
  patients.of_files(["normal/FLAIR/a.png", "abnormal/FLAIR/b.png"])
  assert not caplog.text
