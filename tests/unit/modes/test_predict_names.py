"""predict: nothing is overwritten, nothing lands outside --output, every input has its row."""

import csv
import gzip
import os
import subprocess
import sys

import nibabel
import numpy as np
from PIL import Image
import pytest

from data_pipelines.formats import images
from medae_jax import predict
from medae_jax.core import artefact, files, places, scratch
from medae_jax.tasks.anomaly import predictor as anomaly
from tests import messy_folder
from tests.unit import fake_run, known_maps
from tests.unit.modes.test_predict import brain, save


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A brain model of two modalities."""
  return fake_run.make(tmp_path_factory.mktemp("brains"))


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
  """A model of single images."""
  return known_maps.write(tmp_path_factory.mktemp("flat"), known_maps.config(""), last=1.0)


def go(run, source, out, **more):
  """Rows of the table, whether or not an input failed."""
  try:
    predict.predict(run, {"predict.input": str(source), "predict.output": str(out),
                          "predict.overlay_slices": 0, **more})
  except ValueError as error:
    assert "inputs failed" in str(error)
  with open(out / "predictions.csv", newline="", encoding="utf-8") as file:
    return list(csv.DictReader(file))


def grey(path, value=100):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((8, 8), value, np.uint8)).save(path, "PNG")


def inside(tmp_path):
  return {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")}


PATIENTS = ("../../evil", "/etc/evil", "a/b", "a_b", "A<B", "<x>", "=cmd|' /C calc'!A1", "+1+1", "@SUM(1)",
            "-2+3", "..", "con", "ü" * 150, "x" * 300)


def test_patients_of_a_manifest_stay_inside_the_output(run, tmp_path):
  save(tmp_path / "in", brain(slices=2))
  lines = [f'"{p}",p1_flair.nii.gz,p1_t1.nii.gz' for p in PATIENTS]
  (tmp_path / "in/manifest.csv").write_text("patient,flair,t1\n" + "\n".join(lines) + "\n")
  before = inside(tmp_path)
  rows = go(run, tmp_path / "in", tmp_path / "a/b/out")
  assert [r["error"] for r in rows] == [""] * len(PATIENTS)
  assert all(name.startswith("a") for name in inside(tmp_path) - before)
  assert len(list((tmp_path / "a/b/out").glob("*_anomaly.nii.gz"))) == len(PATIENTS)
  assert not [p for p in (tmp_path / "a/b/out").iterdir() if p.is_dir()]
  for patient, row in zip(PATIENTS, rows):  # a spreadsheet shows a formula as text
    assert row["input"] == ("'" + patient if patient[0] in "=+-@" else patient)


@pytest.mark.parametrize("value,text", [("=1+1", "'=1+1"), ("+a", "'+a"), ("-a", "'-a"), ("@a", "'@a"),
                                        ("\t=a", "'\t=a"), ("-1.5", "-1.5"), ("+2e-3", "+2e-3"),
                                        (-0.5, "-0.5"), ("a=b", "a=b"), ("", ""), (None, ""),
                                        (float("nan"), "")])
def test_cells_are_no_formulas(tmp_path, value, text):
  files.write_csv(tmp_path / "x.csv", [{"=h": value, "b": 1}])
  with open(tmp_path / "x.csv", newline="", encoding="utf-8") as file:
    assert list(csv.reader(file)) == [["'=h", "b"], [text, "1"]]


def test_every_input_of_a_messy_folder_has_its_own_result(flat, tmp_path):
  used = messy_folder.fill(tmp_path / "in", ".png", tmp_path / "store")
  for k, name in enumerate(sorted(used)):
    if name != "link.png":
      grey(tmp_path / "in" / name, k)
  for kind, (make, _) in messy_folder.BROKEN.items():
    make(tmp_path / "in" / f"{kind}.png")
  (tmp_path / "in" / "zz.png").write_bytes(b"no image")
  rows = go(flat, tmp_path / "in", tmp_path / "out")
  bad = {r["input"]: r["error"] for r in rows if r["error"]}
  assert set(bad) == {*(f"{kind}.png" for kind in messy_folder.BROKEN), "zz"}
  maps = sorted((tmp_path / "out").glob("*_anomaly.tif"))
  assert len(rows) - len(bad) == len(maps) == len(used)
  values = sorted(round(255 * float(np.asarray(Image.open(p))[0, 0])) for p in maps)
  wanted = [k for k, name in enumerate(sorted(used)) if name != "link.png"]
  wanted.append(sorted(used).index("plain.png"))  # what the link leads to
  assert values == sorted(wanted)
  with open(tmp_path / "out/left_out.csv", newline="", encoding="utf-8") as file:
    left = {r["file"]: r["reason"] for r in csv.DictReader(file)}
  assert {"notes.txt", "above", "again", "older results"} <= set(left)


def test_where_there_is_no_input_the_line_names_a_table_of_all_that_is_left_out(flat, run, tmp_path):
  for i in range(9):
    (tmp_path / "in").mkdir(exist_ok=True)
    (tmp_path / f"in/notes{i}.txt").write_text("")
  for model, what in ((flat, "no image or DICOM"), (run, "no NIfTI volume or image or DICOM")):
    out = tmp_path / f"out{len(what)}"
    with pytest.raises(ValueError, match=f"in holds {what}.*notes0.txt.*listed in {out}/left_out.csv") as e:
      predict.predict(model, {"predict.input": str(tmp_path / "in"), "predict.output": str(out)})
    assert "\n" not in str(e.value)
    with open(out / "left_out.csv", newline="", encoding="utf-8") as file:
      assert [r["file"] for r in csv.DictReader(file)] == [f"notes{i}.txt" for i in range(9)]
    assert inside(out) == {"left_out.csv"}


def test_where_all_inputs_are_results_nothing_is_predicted(flat, tmp_path):
  grey(tmp_path / "in/out/a.png")
  with pytest.raises(ValueError, match="holds no .*a.png lies in --output.*left_out.csv"):
    predict.predict(flat, {"predict.input": str(tmp_path / "in"),
                           "predict.output": str(tmp_path / "in/out")})
  assert inside(tmp_path / "in") == {"out", "out/a.png", "out/left_out.csv"}


def test_twins_have_two_results(flat, tmp_path):
  for name in ("case1.png", "case1.jpg", "left_mask.png", "0007_anomaly.png", "a.png", "a_mask.png"):
    grey(tmp_path / "in" / name)
  rows = go(flat, tmp_path / "in", tmp_path / "out")
  assert [r["input"] for r in rows] == ["0007_anomaly", "a", "case1_jpg", "case1_png", "left_mask"]
  left = (tmp_path / "out/left_out.csv").read_text()
  assert "a_mask.png,\"is named as a label or a result of a.png" in left


def test_results_are_no_inputs_of_the_next_run(flat, tmp_path):
  grey(tmp_path / "in/a.png")
  grey(tmp_path / "in/b/c.png")
  for out in ("in/results", "in/results", "in/more"):
    assert [r["input"] for r in go(flat, tmp_path / "in", tmp_path / out)] == ["a", "c"]
  with pytest.raises(ValueError, match="--output=.* is --input"):
    predict.predict(flat, {"predict.input": str(tmp_path / "in"), "predict.output": str(tmp_path / "in")})
  (tmp_path / "in/results/predictions.csv").unlink()  # of a run that was killed
  assert [r["input"] for r in go(flat, tmp_path / "in", tmp_path / "in/results")] == ["a", "c"]


def test_files_that_predict_has_not_written_are_not_replaced(flat, tmp_path):
  grey(tmp_path / "in/a.png")
  (tmp_path / "out").mkdir()
  (tmp_path / "out/a_anomaly.tif").write_text("years of work")
  grey(tmp_path / "in/b.png")
  for _ in range(3):  # a table that says so is no permission for the next run
    rows = go(flat, tmp_path / "in", tmp_path / "out")
    assert "which no prediction has written" in rows[0]["error"] and not rows[1]["error"]
    assert (tmp_path / "out/a_anomaly.tif").read_text() == "years of work"
  for _ in range(2):  # but a run may be repeated
    assert [r["error"] for r in go(flat, tmp_path / "in", tmp_path / "other")] == ["", ""]


def test_a_result_never_replaces_another(flat, tmp_path, monkeypatch):
  for name in ("a.png", "b.png"):
    grey(tmp_path / "in" / name)

  def predict_one(self, item, out_dir):
    images.write_array(out_dir / ("Same.png" if item.name == "a" else "same.png"), np.zeros((2, 2), np.uint8))
    return {}
  monkeypatch.setattr(anomaly.Predictor, "predict_one", predict_one)
  rows = go(flat, tmp_path / "in", tmp_path / "out")
  assert rows[0]["error"] == "" and "a result of a" in rows[1]["error"]


@pytest.mark.parametrize("error", [
    MemoryError(), RuntimeError("Symlink loop"), KeyError("x"), AttributeError("y"), TypeError("z"),
    csv.Error("c"), Image.DecompressionBombError("big"), ZeroDivisionError(), RecursionError(),
    UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates"), AssertionError("multi\nline")])
def test_whatever_an_input_raises_the_others_go_on(flat, tmp_path, monkeypatch, error):
  for name in ("a.png", "b.png", "c.png"):
    grey(tmp_path / "in" / name)
  whole = anomaly.Predictor.predict_one

  def predict_one(self, item, out_dir):
    if item.name == "b":
      (out_dir / "half.png").write_bytes(b"")
      raise error
    return whole(self, item, out_dir)
  monkeypatch.setattr(anomaly.Predictor, "predict_one", predict_one)
  rows = go(flat, tmp_path / "in", tmp_path / "out")
  assert [bool(r["error"]) for r in rows] == [False, True, False] and "\n" not in rows[1]["error"]
  assert not list((tmp_path / "out").glob("half*")) and not list((tmp_path / "out").glob(".partial*"))
  assert len(list((tmp_path / "out").glob("*_anomaly.tif"))) == 2


def test_restoration_keeps_its_masks_apart_from_inputs_called_masks(tmp_path):
  from medae_jax.tasks.restoration import predictor as restoration
  for name in ("a.png", "masks/a_mask.png", "COMPARE/a.png", "masks_2/b.png", "c.png", "c.bmp"):
    grey(tmp_path / "in" / name)
  found = restoration.Predictor.__new__(restoration.Predictor)
  found.config = known_maps.config("")
  found.find_inputs(tmp_path / "in")
  assert found._folders == {"masks": "masks_3", "compare": "compare_2"}
  assert sorted(found._names.values()) == ["COMPARE/a", "a", "c_bmp", "c_png", "masks/a_mask", "masks_2/b"]


# ---------------------------------------------------------------------------- what killed runs leave
def test_litter_of_killed_runs_goes_at_the_next_start(flat, tmp_path):
  grey(tmp_path / "in/a.png")
  old = tmp_path / "out/.partial_abcd1234"
  old.mkdir(parents=True)
  (old / "half.tif").write_bytes(b"")
  code = ("import sys, pathlib; from medae_jax.core import scratch\n"
          "with scratch.folder(pathlib.Path(sys.argv[1]), '.partial_') as f:\n"
          "  (f / 'half').write_text(''); print(f, flush=True); sys.stdin.read()")
  with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out")], stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE, text=True, cwd=places.PACKAGE.parent) as process:
    held = process.stdout.readline().strip()
    go(flat, tmp_path / "in", tmp_path / "out")
    assert os.path.isdir(held) and not old.exists()  # another run's folder stays while that runs
    process.kill()
  go(flat, tmp_path / "in", tmp_path / "out")
  assert not list((tmp_path / "out").glob(".partial*"))


def test_the_table_of_a_killed_run_says_what_is_finished(flat, tmp_path, monkeypatch):
  for name in ("a.png", "b.png", "c.png"):
    grey(tmp_path / "in" / name)
  tables = []
  monkeypatch.setattr(predict, "_EVERY", 0)
  write = predict.outputs.write_csv

  def seen(path, rows):
    tables.append([(r["input"], r["error"]) for r in rows])
    return write(path, rows)
  monkeypatch.setattr(predict.outputs, "write_csv", seen)
  go(flat, tmp_path / "in", tmp_path / "out")
  tables = [t for t in tables if t]
  assert tables[0] == [("", "not finished")] and tables[-1] == [("a", ""), ("b", ""), ("c", "")]
  assert [("a", ""), ("b", ""), ("", "not finished")] in tables


def test_an_export_that_was_killed_is_mended_by_the_next(tmp_path):
  out = tmp_path / "out"
  left = tmp_path / ".out.export-abcd"
  (left / "old").mkdir(parents=True)
  (left / "old" / "model").write_text("former")  # killed after the former export was taken away
  (tmp_path / ".out.settings").mkdir()           # somebody else's
  with pytest.raises(ZeroDivisionError), artefact.replacing(out) as new:
    (new / "model").write_text("half")
    raise ZeroDivisionError
  assert (out / "model").read_text() == "former"
  with artefact.replacing(out) as new:
    (new / "model").write_text("new")
  assert (out / "model").read_text() == "new"
  assert sorted(p.name for p in tmp_path.iterdir()) == [".out.settings", "out"]


def test_scratch_leaves_what_is_not_its_own(tmp_path):
  (tmp_path / ".partial_file").write_text("")
  (tmp_path / ".partial_link").symlink_to(tmp_path)
  (tmp_path / "partial_x").mkdir()
  scratch.remove_litter(tmp_path, ".partial_")
  assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name", ["a[0]", "x*", "what?", "a]b", "[fold]/run"])
def test_workdirs_that_orbax_cannot_read_are_refused(tmp_path, name):
  with pytest.raises(ValueError, match=r"cannot be read again; choose another name"):
    places.check_workdir(tmp_path / name)
  places.check_workdir(tmp_path / "a {b} (c) ü:d")


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_free_text_of_a_header_does_not_travel(run, tmp_path, kind):
  (tmp_path / "in").mkdir()
  for modality, volume in zip(("flair", "t1"), brain(slices=2)):
    image = kind(volume, np.diag([1.5, 2, 3, 1]))
    for field in ("descrip", "db_name", "data_type", "aux_file", "intent_name"):
      if field in image.header:
        image.header[field] = b"MUELLER"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"MUELLER, ANNA 1950 " * 99))
    nibabel.save(image, tmp_path / f"in/p_{modality}.nii")
  assert b"MUELLER" in (tmp_path / "in/p_flair.nii").read_bytes()
  go(run, tmp_path / "in", tmp_path / "out", **{"predict.threshold": 0.1})
  for name in ("p_anomaly.nii.gz", "p_mask.nii.gz"):
    assert b"MUELLER" not in gzip.decompress((tmp_path / "out" / name).read_bytes())
    written = nibabel.load(tmp_path / "out" / name)
    assert type(written) is kind and not written.header.extensions
    np.testing.assert_array_equal(written.affine, np.diag([1.5, 2, 3, 1]))


def test_a_volume_and_its_map_lie_beside_each_other(run, tmp_path):
  """--output=--input: the maps are not taken for scans, no input is touched."""
  save(tmp_path, brain(slices=2))
  nibabel.save(nibabel.load(tmp_path / "p1_t1.nii.gz"), tmp_path / "p1_t2.nii.gz")
  for _ in range(2):
    assert [r["input"] for r in go(run, tmp_path, tmp_path)] == ["p1"]
