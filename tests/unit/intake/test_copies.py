"""One picture on two sides of a split, under two names: said before training."""

import logging
import re
import shutil
import types

from PIL import Image
import pytest

from data_pipelines import dataset as datasets, fields
from data_pipelines.datasets import own_folder
from data_pipelines.intake import copies, folder_words, patients, person_names, sides, tables


def write(folder, *names):
  for i, name in enumerate(names):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(bytes([i]) * 100 + b"the same end")
  return [str(folder / n) for n in names]


def test_only_the_same_bytes_on_two_sides_are_copies(tmp_path):
  a, b, c, d = write(tmp_path, "a", "b", "c", "d")
  shutil.copy(a, d)
  assert copies.find({"train": [a, b], "val": [c], "test": [d]}) == [(a, "train", d, "test")]
  shutil.copy(a, b)
  shutil.copy(a, c)
  assert copies.find({"train": [a, b], "val": [c], "test": [d]}) == [
      (a, "train", c, "val"), (a, "train", d, "test")]
  assert copies.find({"train": [a, b], "test": [str(tmp_path / "absent"), str(tmp_path)]}) == []
  assert copies.find({"train": [a, b], "test": []}) == []


def test_empty_files_are_no_copies_and_a_file_on_two_sides_counts_on_the_first(tmp_path):
  a, b, c = write(tmp_path, "a", "b", "c")
  shutil.copy(a, c)
  assert copies.find({"train": [a], "val": [a, b], "test": [c]}) == [(a, "train", c, "test")]
  for path in (a, b, c):
    open(path, "wb").close()
  assert copies.find({"train": [a], "val": [b], "test": [c]}) == []


def test_a_copy_that_differs_at_its_end_is_none(tmp_path):
  a, b = write(tmp_path, "a", "b")
  big = bytes(20000)
  (tmp_path / "a").write_bytes(big + b"1")
  (tmp_path / "b").write_bytes(big + b"2")
  assert copies.find({"train": [a], "test": [b]}) == []


def test_too_many_files_of_one_size_are_not_opened(tmp_path, monkeypatch):
  a, b = write(tmp_path, "a", "b")
  shutil.copy(a, b)
  monkeypatch.setattr(copies, "_MOST", 1)
  assert copies.find({"train": [a], "test": [b]}) == []


def test_a_data_set_is_told_before_it_is_trained_on(tmp_path, caplog):
  for i in range(12):
    path = tmp_path / "set" / f"p{i:02d}x.png"
    path.parent.mkdir(exist_ok=True)
    Image.new("L", (16, 16), 40 + i % 6).save(path)  # p00x = p06x, ...
  cfg = fields.changed(own_folder.defaults(), dir=str(tmp_path / "set"), image_size=(16, 16), noise_res=2)
  data = datasets.open_dataset(cfg, 0)
  with caplog.at_level(logging.WARNING):
    copies.say(data)
  side = {row["file"]: row["split"] for row in data.listing}
  apart = [(f"p{i:02d}x.png", f"p{i + 6:02d}x.png") for i in range(6)
           if side[f"p{i:02d}x.png"] != side[f"p{i + 6:02d}x.png"]]
  said, = [r.getMessage() for r in caplog.records if "byte for byte, on two sides" in r.getMessage()]
  assert f"{len(apart)} file(s)" in said and {"train", "val", "test"} == set(side.values())
  named = re.search(r"(p\d\dx.png) \((\w+)\) and \S*(p\d\dx.png) \((\w+)\)", said).groups()
  assert tuple(sorted(named[::2])) in apart and named[1::2] == (side[named[0]], side[named[2]])
  sides = {tuple(sorted((side[a], side[b]))) for a, b in apart}
  assert any("val" in pair for pair in sides)


def test_all_streams_of_training_and_further_splits_are_looked_at(tmp_path, caplog):
  """A set that trains on two sources, and has a split beside val and test, which counts as one of train."""
  a, b, c, d = write(tmp_path, "a", "b", "c", "d")
  shutil.copy(b, d)

  class Source(list):
    """Of paths, one of which is not known."""

    def meta(self, i):
      """As a source's."""
      return {"path": self[i]} if self[i] else {}
  parts = {"val": Source([c, None]), "test": Source([d])}
  for train, more in (({"one": Source([a]), "two": Source([b])}, {}), (Source([a]), {"more": Source([b])})):
    caplog.clear()
    copies.say(types.SimpleNamespace(name="set", train=lambda: train, splits=tuple({**parts, **more}),
                                     split=lambda name: {**parts, **more}[name]))
    assert "1 file(s) lie, byte for byte, on two sides" in caplog.text
    assert f"the first: {b} (train) and {d} (test)" in caplog.text


def test_nothing_is_said_of_sets_without_copies(tmp_path, caplog):
  for i in range(12):
    path = tmp_path / "set" / f"p{i:02d}x.png"
    path.parent.mkdir(exist_ok=True)
    Image.new("L", (16, 16), 40 + i).save(path)
  cfg = fields.changed(own_folder.defaults(), dir=str(tmp_path / "set"), image_size=(16, 16), noise_res=2)
  copies.say(datasets.open_dataset(cfg, 0))
  assert "byte for byte" not in caplog.text


def test_what_cannot_be_opened_is_left_to_who_reads_it(tmp_path, monkeypatch):
  """It may go, or be taken away from us, between the look at its size and the reading."""
  a, b = write(tmp_path, "a", "b")
  shutil.copy(a, b)
  absent = str(tmp_path / "absent")
  assert copies._size(absent) is copies._piece(absent) is copies._digest(absent) is None
  for known in (("_size",), ("_size", "_piece")):
    for name in known:
      monkeypatch.setattr(copies, name, lambda path: 7)
    assert copies.find({"train": [a, absent], "test": [str(tmp_path), b]}) == [(a, "train", b, "test")]


def test_results_beside_images_are_left_out_and_what_was_put_aside_is_said(tmp_path, caplog):
  """abnormal/overlays/a.png was an abnormal image, normal/pred/a.png was trained on."""
  images = ("normal/a.png", "normal/images/b.png", "normal/c.png", "abnormal/d.png")
  results = ("normal/pred/a.png", "normal/heatmaps/b.png", "abnormal/Overlays/d.png")
  write(tmp_path, *images, *results, "normal/pred/alone.png")
  found = sides.look(tmp_path)
  assert sorted(m.name for m in found.members) == sorted([*images, "normal/pred/alone.png"])
  told = {str(i.path.relative_to(tmp_path)): i.reason for i in found.found.left_out}
  assert told == dict.fromkeys(results, "is a result by its folder") and "aside" not in caplog.text
  write(tmp_path, "normal/bad_quality/e.png", "trash/f.png")
  sides.look(tmp_path)
  assert "normal/bad_quality/e.png and 0 more files lie in folders that speak of what was put" in caplog.text


@pytest.mark.parametrize("copy", [
    "n01 (1)", "n01(2)", "n01_1_", "n01.1", "Copy of n01", "Kopie von n01", "n01 copy 2", "n01 - Copie",
    "n01 – Copie (2)", "N01 (Jane's conflicted copy 2024-01-02)"])
def test_a_copy_by_its_name_is_of_the_same_patient(copy):
  """Browsers, file managers and clouds: a file and its copy lay on two sides of a split."""
  names = ["n01.png", f"{copy}.png", "n02.png", "n03.png"]
  assert patients.of_files(names)[0] == patients.of_files(names)[1] != patients.of_files(names)[2]
  assert len(set(patients.of_files([f"benign ({k}).png" for k in range(4)]))) == 4  # BUSI: no copies


def test_patients_that_are_said_otherwise_are_not_joined_by_names(tmp_path):
  assert patients.of_files(["P1/a.png", "P2/a (1).png", "P2/a.png"]) == ["P1", "P2", "P2"]
  assert patients.of_files(["a1.png", "a1 (1).png"], r"(a1.*)") == ["a1", "a1 (1)"]


def test_a_day_with_dashes_is_no_patient():
  """ID001 2019-05-01 and ID001 2020-06-01 were ID001 2019-05 and ID001 2020-06."""
  names = [f"ID{k:03d}{day}.png" for k in range(3) for day in (" 2019-05-01", "_2020-06-01", ".2021.06.01")]
  assert patients.of_files(names) == [f"ID{k:03d}" for k in range(3) for _ in range(3)]
  for kind in ("2019-05-{:02d}", "Screenshot 2019-{:02d}-05 at 10.22"):  # the first was one patient a month
    assert len(set(patients.of_files([kind.format(k) + ".png" for k in range(1, 10)]))) == 9
  assert patients.of_scans(["UCSF-PDGM-0315", "UCSF-PDGM-0315_FU003d"])["UCSF-PDGM-0315_FU003d"] == (
      "UCSF-PDGM-0315")


def test_a_file_whose_patient_is_called_as_another_file_is_said(caplog):
  """Both are radiographs of one child, on two sides of the split."""
  names = ["IM-0033-0001.jpeg", "IM-0033-0001-0002.jpeg", "IM-0034-0001.jpeg"]
  assert patients.of_files(names) == ["IM-0033", "IM-0033-0001", "IM-0034"]
  assert ("IM-0033-0001-0002.jpeg counts as one of patient IM-0033-0001, and IM-0033-0001.jpeg as one of "
          "IM-0033, by their names (1 such files)") in caplog.text
  caplog.clear()
  patients.of_files([names[0], names[2], "a.png", "a_1.png", "P1/x.png", "P1/x_1.png"])
  patients.of_files(names, pattern=r"(IM-\d+)")
  patients.of_rows([tables.Row({"patient": f"P{k}"}, tables.pathlib.Path(), 2) for k in (1, 1, 2)], names)
  assert not caplog.text


@pytest.mark.parametrize("name", ["CT_{p}.{s}", "{p}.{s}", "volume-{p}.{s}", "MR{p}.{s}"])
def test_a_number_behind_a_dot_is_that_of_a_slice(name):
  """Every slice of a stack was a patient of its own."""
  names = [f"{name.format(p=p, s=s)}.png" for p in (11, 12, 13) for s in range(3)]
  found = patients.of_files(names)
  assert found[0] == found[2] != found[3] == found[5] and len(set(found)) == 3
  uids = ["1.2.840.1.7.png", "1.2.840.1.8.png", "v1.x.png", "a.1.png"]
  assert len(set(patients.of_files(uids))) == 4


def test_a_pattern_that_fits_no_name_is_said(caplog):
  """Patients were told by another rule than the one that was given."""
  names = ["a_1.png", "a_2.png", "b_1.png"]
  patients.of_files(names, "(pat.)")
  patients.of_scans(["P1", "P2"], "(pat.)")
  assert caplog.text.count("config.data.group_pattern='(pat.)' fits none of") == 2
  caplog.clear()
  rows = [tables.Row({"patient": "P1"}, tables.pathlib.Path("t.csv"), 2)] * 3
  patients.of_rows(rows, names, "(pat.)")
  patients.of_files(names, "(a)")
  patients.of_files(names, "(pat.)", "file")
  assert not caplog.text


@pytest.mark.parametrize("second", ["n01 (1)", "Copy of n01", "Kopie von n01", "copie de n01", "Copia di n01",
                                    "copia de n01", "n01 - Copy", "n01 Kopie (2)"])
def test_a_second_copy_is_of_the_same_person_in_every_language(second):
  plain = {f"{name}.png": name for name in ("n01", second, "n02", "Copy of n09")}
  whose = person_names.copied({name: name for name in plain}, plain)
  assert whose == {"n01.png": "n01.png", f"{second}.png": "n01.png", "n02.png": "n02.png",
                   "Copy of n09.png": "Copy of n09.png"}  # of which the first is not there


@pytest.mark.parametrize("folder", ["overlay", "heatmaps", "pred", "predictions", "cam", "gradcam", "results",
                                    "outputs", "viz", "visualisation", "thumbs", "previews"])
def test_pictures_of_results_beside_images_of_their_names_are_none(tmp_path, folder):
  files = [tmp_path / "a.png", tmp_path / folder / "a.jpg", tmp_path / folder / "b.jpg"]
  kind = "thumbnail" if folder in ("thumbs", "previews") else "result"
  assert folder_words.thumbnails(files) == {files[1]: f"is a {kind} by its folder"}


def test_words_of_the_users_own_leave_numbers_of_people_alone(tmp_path):
  """With normal_words=("fine",) patient 0 was a normal one, beside patients 1 and 2."""
  files = [tmp_path / "set" / name for name in ("0/a.png", "1/a.png", "2/a.png", "fine/a.png")]
  assert list(folder_words.sides(files, tmp_path, ({"fine"}, ())).values()) == [None, None, None, 0]
