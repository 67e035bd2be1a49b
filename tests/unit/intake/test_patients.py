"""The one rule of patients, the one leak check, the one split."""

import pathlib

import numpy as np
import pydicom
import pytest

from data_pipelines.errors import UserError
from data_pipelines.intake import patients, splits, tables

# {case: (names, pattern, patients)}
RULES = {
    "a folder a patient": (["P00/1.png", "P00/2.png", "P01/1.png"], "", ["P00", "P00", "P01"]),
    "sessions below": (["P00/s1/1.png", "P00/s2/1.png", "P01/s1/1.png"], "", ["P00", "P00", "P01"]),
    "a folder above all": (["clean/P00/1.png", "clean/P01/1.png"], "", ["P00", "P01"]),
    "an unknown folder above all": (["hospital/P00/1.png", "hospital/P01/1.png"], "", ["P00", "P01"]),
    "split and side folders": (["train/normal/P1/1.png", "test/Normal/P1/2.png", "test/anomaly/P2/1.png"], "",
                               ["P1", "P1", "P2"]),
    "words of kinds": (["benign/p1_1.png", "malignant/p1_2.png", "benign/p2_1.png"], "", ["p1", "p1", "p2"]),
    "bids": (["siteA/sub-01/ses-1/a.png", "siteB/sub-01/ses-2/a.png", "siteA/sub-02/a.png"], "",
             ["sub-01", "sub-01", "sub-02"]),
    "names": (["LUM00054_2.png", "LUM00054_3.png", "LUM00055_1.png"], "",
              ["LUM00054", "LUM00054", "LUM00055"]),
    "names with hyphens": (["IM-0115-0001.jpeg", "IM-0115-0002.jpeg", "IM-0116-0001.jpeg"], "",
                           ["IM-0115", "IM-0115", "IM-0116"]),
    "initials": (["a_1.png", "a_2.png", "b_1.png"], "", ["a", "a", "b"]),
    "counters are no patients": (["img_1.png", "img_2.png", "frame_1.png"], "",
                                 ["img_1", "img_2", "frame_1"]),
    "words that are unknown are names": (["scanA_c0.png", "scanA_c1.png", "mary_1.png"], "",
                                         ["scanA", "scanA", "mary"]),
    "sets of data": (["busi_benign_1.png", "ISIC2018_7.png", "ISIC_2017_8.png", "busi_benign_2.png"], "",
                     ["busi_benign_1", "ISIC2018_7", "ISIC_2017_8", "busi_benign_2"]),
    "the set's name is no patient": (["ISIC2017_1.png", "ISIC2017_2.png"], "",
                                     ["ISIC2017_1", "ISIC2017_2"]),
    "a word before all names is that of the set": (["mine_1.png", "mine_2.png"], "", ["mine_1", "mine_2"]),
    "single files": (["x1.png", "x2.nii.gz", "d/x2.png"], "", ["x1", "x2", "d"]),
    "folders of hospitals": (["A/P01/1.png", "B/P02/1.png", "B/P02/2.png"], "", ["P01", "P02", "P02"]),
    "folders of years": (["2019/patient 3/1.png", "2020/patient 3/1.png", "2020/Case_4/2.png"], "",
                         ["patient 3", "patient 3", "Case_4"]),
    "sessions in names": (["P01_s1_3.png", "P01_s2_3.png", "p02_s1_1.png"], "", ["P01", "P01", "p02"]),
    "views in names": (["0012_L_CC.png", "0012_R_MLO.png", "0013_L_CC.png"], "", ["0012", "0012", "0013"]),
    "tiles of slides": (["tumor_007_normal_x_768_y_0.jpg", "tumor_007_tumor_x_0_y_0.jpg",
                         "normal_001_normal_x_0_y_9.jpg"], "", ["tumor_007", "tumor_007", "normal_001"]),
    "dates in names": (["77_20200102_1.png", "77_20210102_1.png", "78_20200102_1.png"], "",
                       ["77", "77", "78"]),
    "kinds in names": (["person1_bacteria_1.png", "person1_virus_2.png", "person2_virus_1.png"], "",
                       ["person1", "person1", "person2"]),
    "bids names": (["sub-01_ses-1_a.png", "sub-01_ses-2_a.png", "sub-02_a.png"], "",
                   ["sub-01", "sub-01", "sub-02"]),
    "a single file": (["mary7_2.png"], "", ["mary7"]),
    "a folder above all in two spellings": (["Hosp/x1_1.png", "hosp/x2_1.png"], "", ["x1", "x2"]),
    "a first word that could be a detail": (["s1_1.png", "s1_2.png", "v2_1.png"], "", ["s1", "s1", "v2"]),
    "forms of a scan": (["a_1.png", "a_1_resized.png", "x_FLAIR.nii", "x_FLAIR_brain_n4.nii",
                         "smith_brain.nii", "smith_head.nii", "img_norm.png"], "",
                        ["a", "a", "x", "x", "smith", "smith", "img_norm"]),
    "a file and its forms": (["normal/a1.png", "normal/a1_resized.png", "normal/b1.png",
                              "normal/b1 - Copy.png"], "",
                             ["a1", "a1", "b1", "b1"]),
    "copies of augmentation": (["p00.png", "aug_p00.png", "p00_flip.png", "p01_rot90_2.png", "img_1.png",
                                "img_1_aug_2.png", "rotated_img_1.png"], "",
                               ["p00", "p00", "p00", "p01", "img_1", "img_1", "img_1"]),
    "folders of forms": (["normal/original/a1.png", "normal/enhanced/a1.png", "augmented/normal/a1.png",
                          "normal/a2.png", "abnormal/a1.png", "raw/b.png", "crops/b.png"], "",
                         ["normal/a1"] * 3 + ["normal/a2", "abnormal/a1", "b", "b"]),
    "MIAS: two films of a woman": (["mdb001.png", "mdb002.png", "mdb003ll.png", "MDB004rl.png"], "",
                                   ["mdb pair 1", "mdb pair 1", "mdb pair 2", "mdb pair 2"]),
    "INbreast": (["20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm", "20586934_6c613a14b80a8591_MG_L_CC_ANON.dcm",
                  "20587054_b6a4f750c6df4f90_MG_R_CC_ANON.dcm"], "",
                 ["6c613a14b80a8591", "6c613a14b80a8591", "b6a4f750c6df4f90"]),
    "BreaKHis": (["adenosis/SOB_B_A-14-22549AB-40-001.png", "adenosis/SOB_B_A-14-22549AB-100-001.png",
                  "SOB_M_DC-14-2523-40-001.png"], "", ["22549", "22549", "2523"]),
    "OCT2017": (["CNV/CNV-1016042-1.jpeg", "DRUSEN/DRUSEN-1016042-3.jpeg", "NORMAL/NORMAL-12494-1.jpeg"], "",
                ["1016042", "1016042", "12494"]),
    "DDSM": (["A_1141_1.LEFT_CC.png", "A_1141_1.RIGHT_MLO.png", "B_3005_1.RIGHT_CC.png"], "",
             ["A_1141_1", "A_1141_1", "B_3005_1"]),
    "TCGA and ADNI": (["blk-AAFD-TCGA-CM-6171-01Z-00-DX1.png", "TCGA-CM-6171-11A.png",
                       "ADNI_002_S_0295_MR_2.png", "002_S_0295_m12_x.png"], "",
                      ["TCGA-CM-6171", "TCGA-CM-6171", "002_S_0295", "002_S_0295"]),
    "MIMIC: folders of many people": (["files/p10/p10000032/s5/a.jpg", "files/p10/p10000764/s6/b.jpg",
                                       "files/P11/P12/c.jpg"], "", ["p10000032", "p10000764", "P11"]),
    "views first": (["OD_101.png", "OS_101.png", "left_12.png", "right_12.png", "AP_0013.png"], "",
                    ["101", "101", "12", "12", "0013"]),
    "a person behind kinds": (["normal_P01_1.png", "tumor_P01_2.png", "slice_3_P02.png", "2019-03-04_P02.png",
                               "t1_0003_sub-01.png", "t1_0004_sub-01.png", "smith_P03_1.png"], "",
                              ["P01", "P01", "P02", "P02", "sub-01", "sub-01", "smith_P03"]),
    "blanks and brackets": (["P01 slice 3.png", "P01.slice4.png", "Patient 1 (12).png", "Patient 1 (13).png",
                             "patient02Slice3.png", "patient02Slice4.png", "benign (1).png"], "",
                            ["P01", "P01", "Patient 1", "Patient 1", "patient02", "patient02", "benign (1)"]),
    "sides written together": (["RET002OD.jpg", "RET002OS.jpg", "Image_01L.jpg", "Image_01R.jpg",
                                "90L.png"], "",
                               ["RET002", "RET002", "Image_01", "Image_01", "90"]),
    "0 and 1 among other numbers": (["0_left.jpg", "0_right.jpg", "1_1.jpg", "1_2.jpg", "10_left.jpg"], "",
                                    ["0", "0", "1", "1", "10"]),
    "0 and 1 as labels": (["0_101.png", "0_102.png", "1_103.png"], "", ["0_101", "0_102", "1_103"]),
    "a number before three words": (["0001_129_01_WRI-L1_M014.png", "0001_130_01_WRI-L2_M014.png",
                                     "2019_1_2_3_4.png", "20190304_1_2_3_4.png"], "",
                                    ["0001", "0001", "2019_1_2_3", "20190304_1_2_3"]),
    "patches by their places": (["tumor_001_12_33.png", "tumor_001_9_3.png", "slide07_2_x10_y3.png",
                                 "slide07_9_x1_y3.png", "normal_3_12_33.png"], "",
                                ["tumor_001", "tumor_001", "slide07", "slide07", "normal_3_12"]),
    "letters behind a number": (["P01A.png", "P01b.png", "P02A.png", "12a/1.png", "12b/1.png", "3c.png"], "",
                                ["P01", "P01", "P02A", "12", "12", "3c"]),
    "folders of sides": (["NORMALS/a1.png", "Abnormals/a2.png", "controls/a3.png"], "",
                         ["NORMALS/a1", "Abnormals/a2", "controls/a3"]),
    "pattern on names": (["s/a12b3.png", "t/a12b4.png", "t/a13b1.png"], r"^(a\d+)b", ["a12", "a12", "a13"]),
    "pattern on folders": (["x/P1/1.png", "y/P1/2.png", "y/P2/1.png"], r"/(P\d+)/", ["P1", "P1", "P2"]),
    "pattern that does not fit": (["P1/z.png", "P2/q7_1.png"], r"^(q\d+)_", ["P1", "q7"]),
}


@pytest.mark.parametrize("name", RULES)
def test_patients_of_files(name):
  names, pattern, expected = RULES[name]
  assert list(patients.name_patients(names, pattern).values()) == expected


def test_a_person_of_two_patients_by_a_folder_is_said(caplog):
  patients.name_patients(["s/p1_1.png", "p1_2.png", "p2_1.png"])
  assert "s/p1_1.png counts as one of patient s and p1_2.png as one of p1" in caplog.text
  caplog.clear()
  patients.name_patients(["s/p1_1.png", "s/p1_2.png", "p2_1.png"])
  patients.name_patients(["P01/p1_1.png", "P02/p1_1.png", "A/x_1.png", "x_2.png"])
  assert not caplog.text


def test_a_folder_of_a_kind_of_things_is_nobody():
  """Each word that folders of findings, parts and forms have; another word is a patient's name."""
  words = """benign normal abnormal train val test images image img imgs im frames frame pictures picture pic
      photo photos scans scan slices slice series study studies data dataset all clean annotated masks mask
      labels label noisy png jpg jpeg tif tiff bmp dicom dcm nifti nii raw original originals patients patient
      subjects subject cases case file files anat func isic us noisy_img noisy_gt clean_img clean_gt train_img
      val_gt test_img mr mri ct xr cr dx left right"""
  two = lambda word: patients.of_files([f"{word}/cat.png", f"{word}/dog.png", "other/ape.png"])[:2]
  forms = {"original", "originals", "raw", "left", "right"}  # of one image, or person: they part nothing
  assert [w for w in words.split() if w not in forms and two(w) != [f"{w}/cat", f"{w}/dog"]] == []
  assert [w for w in (*forms, "enhanced", "crops") if two(w) != ["cat", "dog"]] == []
  assert two("smith") == ["smith", "smith"]


def test_patient_of_one_file():
  assert patients.patient_of("/data/P00/3.png", "/data") == "P00"
  assert patients.patient_of("/data/mary/3.png", "/data") == "mary"
  assert patients.patient_of("/data/P00_3.png", "/data", r"^P(\d+)") == "00"
  for pattern in ("(", "a"):
    with pytest.raises(UserError, match="group_pattern.* is not a regular expression with one group"):
      patients.patient_of("/data/a.png", "/data", pattern)


def test_scans_of_one_person_at_several_times():
  person = {"BraTS-GLI-00005-100": "BraTS-GLI-00005", "BraTS-GLI-00005-101": "BraTS-GLI-00005",
            "sub-01_ses-02": "sub-01", "SUB-01_ses-03": "sub-01", "P3_visit2": "P3", "P01_s2": "P01",
            "P01_glioma": "P01_glioma", "x7_s2": "x7_s2", "UPENN-00001_11": "UPENN-00001", "P4": "P4",
            "P4_bet": "P4", "P5_visit1_n4": "P5", "P6_2": "P6",
            "P7_A": "P7", "P7_b": "P7", "sub-03_B": "sub-03", "x7_A": "x7_A",  # visits by a letter
            # public sets: OASIS, UCSD-PTGBM, RHUH-GBM, ISBI 2015, ADNI, TCGA
            "OAS1_0061_MR1": "OAS1_0061", "OAS1_0061_MR2": "OAS1_0061", "OAS30001_MR_d0129": "OAS30001",
            "UCSD-PTGBM-0002_01": "UCSD-PTGBM-0002", "RHUH-0002_0": "RHUH-0002",
            "training01_02": "training01", "002_S_0295_m12": "002_S_0295", "S101_2019-01-31": "S101",
            "TCGA_CS_4941_19960909": "TCGA_CS_4941",
            # hospitals' words, fields of scanners, UK Biobank, LUMIERE
            **{f"S01_{time}": "S01" for time in (
                "V02", "T0", "t12", "preop", "post", "run-2", "scan1", "1st", "second", "control", "base",
                "scr", "1Y", "6mo", "0090d", "2021")},
            "100307_3T": "100307", "1000012_20252_2_0": "1000012", "Patient-001_week-000-1": "Patient-001",
            "site1_t12": "site1_t12", "batch2_2019": "batch2_2019", "brain_control": "brain_control",
            # numbers of sites, days alone, names of sets and of nobody
            "A12-03": "A12-03", "101-02": "101-02", "site0012_01": "site0012_01", "2019-01-31": "2019-01-31",
            "BraTS2021_00000": "BraTS2021_00000", "BraTS20_Training_353": "BraTS20_Training_353",
            "scan_20190131": "scan_20190131", "IXI012-HH-1211": "IXI012-HH-1211", "case_000": "case_000"}
  assert patients.of_scans(list(person)) == person
  assert patients.of_scans(list(person), grouping="file") == {name: name for name in person}
  assert patients.of_scans(["UPENN-00001_11", "P4", "P3_visit2"], r"-(\d+)_") == {
      "UPENN-00001_11": "00001", "P4": "P4", "P3_visit2": "P3"}


@pytest.mark.parametrize("names", [
    ["OAS1_0061_MR1/x_T1w.nii.gz", "OAS1_0061_MR2/x_T1w.nii.gz"],
    ["UPENN-GBM-00001_11/a.nii.gz", "UPENN-GBM-00001_21/a.nii.gz"],
    ["UPENN-GBM-00001_11_FLAIR.nii.gz", "UPENN-GBM-00001_21_FLAIR.nii.gz"],
    ["BraTS-MET-00002-000/a.nii.gz", "BraTS-MET-00002-001/a.nii.gz"],
    ["sub-01_ses-1/1.png", "sub-01_ses-2/1.png"],
    ["P01_s1/1.png", "P01_s2/1.png"], ["normal/S101_20190131/1.png", "normal/S101_20200131/1.png"]])
def test_folders_of_one_person_s_visits_are_on_one_side(names):
  """Each visit was a patient of its own in one's own folder: it could be trained and tested on."""
  first, second, other = patients.of_files([*names, "zoe/1.png"])
  assert first == second != other


@pytest.mark.parametrize("pair", [("train", "val"), ("train", "test"), ("val", "test")])
def test_every_pair_of_splits_is_compared(pair):
  sides = {s: [s, *(["P 1"] if s in pair else [])] for s in ("train", "val", "test")}
  with pytest.raises(UserError, match=f"set: 1 patient is on two sides of the split: P 1 in {pair[0]} and "
                                      f"{pair[1]}; put all"):
    splits.check_no_leak(sides, "set")
  assert splits.check_no_leak(sides, "set", allow=True) == {pair: ["P 1"]}


def test_leaks_are_named_with_all_their_splits():
  sides = {"train": ["p0", "p1", "p2", "p3", "q"], "val": ["P0", "p1 "], "test": ["p0", "p2", "p3"]}
  with pytest.raises(UserError) as caught:
    splits.check_no_leak(sides, "labels.csv", "do this")
  assert str(caught.value) == ("labels.csv: 4 patients are on two sides of the split: "
                               "p0 in train, val and test; "
                               "p1 in train and val; p2 in train and test and 1 more; do this")
  assert not splits.check_no_leak({"train": ["a", "a"], "val": [], "test": ["b"]}, "x")


def test_split_by_patient_is_that_of_groups():
  """Shares are rounded up; names that differ in case go together; repeats do not matter."""
  names = [f"p{i:02d}" for i in range(20)]
  place = splits.split_patients([*names, *names, "P03"], {"val": 0.1, "test": 0.12}, 42)
  order = np.random.default_rng(42).permutation(20)
  assert {k for k, v in place.items() if v == "val"} - {"P03"} == {names[i] for i in order[:2]}
  assert {k for k, v in place.items() if v == "test"} - {"P03"} == {names[i] for i in order[2:5]}
  assert place["P03"] == place["p03"] and len(place) == 21
  assert place == splits.split_patients(["P03", *reversed(names)], {"val": 0.1, "test": 0.12}, 42)


def test_rows_that_share_a_group_or_a_patient_are_of_one_patient():
  rows = [tables.Row(cells, "t.csv", 2) for cells in (
      {"group": "1", "patient": "a"}, {"group": "2", "patient": "A "}, {"group": "2", "patient": "b"},
      {"group": "3", "patient": ""}, {"group": "", "patient": "b"}, {"group": "", "patient": ""})]
  names = [f"x{i}_1.png" for i in range(6)]
  assert patients.of_rows(rows, names) == ["1", "1", "1", "3", "1", "x5"]
  assert patients.of_rows(rows, names, grouping="legacy") == ["1", "2", "2", "3", "b", "x5_1.png"]
  assert patients.of_rows(rows, names, grouping="file") == names


def test_headers_of_dicom_files_name_their_patients(tmp_path):
  """... where they tell patients apart: anonymised sets have one PatientID, or none."""
  def write(name, ident):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data = pydicom.dataset.FileDataset(str(tmp_path / name), {}, file_meta=meta, preamble=bytes(128))
    if ident:
      data.PatientID = ident
    data.save_as(tmp_path / name)
  for name, ident in (("d1/IM1.dcm", "A7 "), ("d2/IM000002", "a7"), ("d2/IM3.dcm", "B1"), ("d3/IM4.dcm", "")):
    write(name, ident)
  names = ["d1/IM1.dcm", "d2/IM000002", "d2/IM3.dcm", "d3/IM4.dcm", "d3/x_1.png"]
  assert patients.of_files(names, root=tmp_path) == ["A7", "A7", "B1", "d3", "d3"]
  assert patients.of_files(names) == ["d1", "d2", "d2", "d3", "d3"]
  assert patients.of_files(names, r"(IM)", root=tmp_path)[:3] == ["IM"] * 3
  for i, name in enumerate(names[:4]):
    write(name, ("ANON", "anon ")[i % 2])
  assert patients.of_files(names, root=tmp_path) == ["d1", "d2", "d2", "d3", "d3"]
  (tmp_path / "d1/IM1.dcm").write_bytes(bytes(128) + b"DICM" + bytes(9))
  assert patients.of_files(names, root=tmp_path)[0] == "d1"


@pytest.mark.parametrize("column", [
    "PatientID", "patient-id", "Subject ID", "participant_id", "MRN", "Person"])
def test_columns_that_name_the_patient(tmp_path, column):
  (tmp_path / "t.csv").write_text(f"file,{column}\na.png,X\nb.png,x \n")
  rows = tables.read_table(tmp_path / "t.csv", ("file",)).rows
  assert patients.of_rows(rows, ["a.png", "b.png"]) == ["X", "X"]


@pytest.mark.parametrize("a, b", [("Doe J", "doe  j "), ("Doe J", "Doe\u00a0J"),
                                  ("M\u00fcller", "Mu\u0308ller")])
def test_one_patient_in_two_spellings_is_refused(a, b):
  with pytest.raises(UserError, match="on two sides"):
    splits.check_no_leak({"train": [a], "test": [b]}, "t.csv")


@pytest.mark.parametrize("a, b, alike", [
    ("001", "1", True), ("1", "1.0", True), ("P 01", "p-1", True), ("sub-01", "sub_01", True),
    ("\uff301", "P1", True), ("\u0420\u041e1", "PO1", True), ("Jos\u00e9", "Jose", True),
    ("M\u00adb", "mb", True),
    ("P1", "P10", False), ("P-1-2", "P12", False), ("1.2", "1.3", False), ("?", "!", False)])
def test_names_that_differ_in_zeros_and_marks_are_said(caplog, a, b, alike):
  splits.check_no_leak({"train": [a, "x"], "val": [], "test": [b, "y"]}, "t.csv")
  assert (f"{a!r} in train and {b!r} in test" in caplog.text) == alike
  caplog.clear()
  splits.check_no_leak({"train": [a, b]}, "t.csv")
  assert not caplog.text


@pytest.mark.parametrize("row, group", [
    ({"patient": "P1_T1", "group": "P1"}, "P1"), ({"patient": "P1", "subject": "S"}, "S"),
    ({"patient": "P1"}, ""), ({"patient_id": "P1", "patient": "x", "group": ""}, ""), ({}, "")])
def test_a_column_of_patients_is_no_column_of_groups(row, group):
  assert patients.group_column(row) == group


def test_columns_of_people_that_nothing_reads_are_said(caplog):
  """Whose an image is stood in a column of another name: people lay on two sides."""
  rows = [tables.Row({"image": f"{i}.png", "case": f"c{i // 2}"}, pathlib.Path("t.csv"), i) for i in range(8)]
  names = [row["image"] for row in rows]
  assert patients.of_rows(rows, names) == [str(i) for i in range(8)]
  assert "column 'case' of the table may say whose an image is (4 values in 8 rows)" in caplog.text
  caplog.clear()
  for column in ("lesion_id", "case id", "Subject no.".lower(), "donor"):
    told = [tables.Row({**row, column: row["case"]}, pathlib.Path("t.csv"), row.line) for row in rows]
    assert patients.of_rows(told, names) == [f"c{i // 2}" for i in range(8)]
  patients.of_rows([tables.Row({"lesion": str(i % 2)}, pathlib.Path("t.csv"), i) for i in range(8)], names)
  assert not caplog.text
