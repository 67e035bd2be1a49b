"""The Python API: the same numbers and files as the modes, on the input's grid, tables, rich display."""

import re
import subprocess
import sys
from unittest import mock

import nibabel
import numpy as np
import pytest

import medae_jax as mx
from medae_jax import evaluate
from medae_jax.core import calibration, files
from medae_jax.reporting import panels
from tests.contract.cases import ROOT
from tests.unit import fake_run
from tests.unit.modes.test_predict import brain, go, rotated, save


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  folder = fake_run.make(tmp_path_factory.mktemp("run"))
  evaluate.evaluate(folder)
  return mx.load(folder)


@pytest.mark.parametrize("codes, side", [
    ("LPI", "patient's right"), ("RAS", "patient's right"), ("LIP", "patient's right"),
    ("PIL", "the patient's front")])
def test_tables_and_pictures_name_the_same_slice(run, tmp_path, codes, side):
  """Whichever way the third axis points: the overlay counted from the feet up, by sums of the map."""
  affine = nibabel.orientations.inv_ornt_aff(nibabel.orientations.ornt_transform(
      nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(tuple(codes))), (4, 4, 4))
  save(tmp_path / "in", brain(), affine)
  with mock.patch.object(panels, "grid", wraps=panels.grid) as drawn:
    (row,) = go(run.workdir, tmp_path / "in", tmp_path / "out")
  assert row["highest_slice"] == 1 and "slice 2 of 4 (highest)" in drawn.call_args.args[1]
  assert side in drawn.call_args.args[2][0]
  picture = drawn.call_args.args[0][0][drawn.call_args.args[1].index("slice 2 of 4 (highest)")]
  assert picture.max() == 255  # the bright spot of slice 1 of the file


def test_a_file_is_scored_as_predict_scores_it(run, tmp_path):
  save(tmp_path / "in", brain(), rotated())
  before = sorted(tmp_path.rglob("*"))
  found = run.score(tmp_path / "in/p1_flair.nii.gz")
  assert sorted(tmp_path.rglob("*")) == before  # nothing is left beside the input
  with mock.patch.object(panels, "grid", wraps=panels.grid) as drawn:
    (row,) = go(run.workdir, tmp_path / "in", tmp_path / "out")
  # Pictures count slices from 1, tables from 0.
  assert f"slice {row['highest_slice'] + 1} of 4 (highest)" in drawn.call_args.args[1]
  wanted = nibabel.load(tmp_path / "out/p1_anomaly.nii.gz")
  np.testing.assert_array_equal(found.map, np.asarray(wanted.dataobj))
  np.testing.assert_array_equal(found.affine, wanted.affine)
  mask = nibabel.load(tmp_path / "out/p1_mask.nii.gz")
  np.testing.assert_array_equal(found.mask, np.asarray(mask.dataobj) > 0)
  assert found.mask.any() and found.score == row["score"] and found.row["mask_ml"] == row["mask_ml"]
  assert found.picture == (tmp_path / "out/p1_overlay.png").read_bytes()
  assert "<img" in found._repr_html_() and "score" in found._repr_html_()
  assert not run.score(tmp_path / "in/p1_flair.nii.gz", **{"predict.threshold": 9.0}).mask.any()


def test_several_scans_and_wrong_things_are_one_line(run, tmp_path):
  save(tmp_path / "in", brain())
  save(tmp_path / "in", brain(1), name="p2")
  with pytest.raises(mx.UserError, match=r"holds 2 inputs where 1 was asked for"):
    run.score(tmp_path / "in")
  with pytest.raises(FileNotFoundError, match="does not exist"):
    run.score(tmp_path / "nowhere.nii.gz")
  with pytest.raises(mx.UserError, match=r"\[H,W\]"):
    run.score(np.zeros(5))
  (tmp_path / "notes.txt").write_text("no scan")
  (tmp_path / "p3_flair.nii.gz").write_bytes(b"no volume")
  for name, said in (("notes.txt", "holds no "), ("p3_flair.nii.gz", "^p3: scan p3 has no t1")):
    with pytest.raises(mx.UserError, match=said) as error:  # the line named tables in a folder that is gone
      run.score(tmp_path / name)
    assert "listed in" not in str(error.value)
  rows = run.predict(tmp_path / "in", tmp_path / "out")
  assert [r["input"] for r in rows] == ["p1", "p2"] and (tmp_path / "out/predictions.csv").is_file()
  assert list(rows.table()["score"]) == [r["score"] for r in rows]
  assert "2 inputs" in rows._repr_html_() and "<td" in rows._repr_html_()


def test_an_evaluation_that_insisted_leaves_the_thresholds_of_the_run(tmp_path, monkeypatch, caplog):
  run = mx.load(fake_run.make(tmp_path / "run"))

  def forced(workdir, *_):
    files.write_json(workdir / "calibration.json", {"threshold": 1.0, "prepared": {"image_size": [8, 8]}})
    return {"test": {}}
  monkeypatch.setattr(evaluate, "evaluate", forced)
  assert run.evaluate() is not None and run.calibration is None
  assert "image_size=(8, 8), this is prepared with (16, 20)" in caplog.text


def test_a_notebook_shows_the_line_of_an_error_alone(tmp_path, monkeypatch):
  pytest.importorskip("IPython")
  monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
  from IPython.core.interactiveshell import InteractiveShell
  shell = InteractiveShell()
  said = []
  shell._showtraceback = lambda kind, value, lines: said.extend(lines)
  shell.run_cell("import medae_jax as mx\nmx.config('dae_brats:smoke', {'train.stepz': 1})")
  assert len(said) == 1 and said[0].startswith("UserError: config.train.stepz: there is no 'stepz'")


def test_arrays_keep_their_axes(run):
  batch = fake_run.open(run.config.data, 0).split("test").read(np.arange(4))["image"]
  many, one = run.score(batch), run.score(batch[1])
  cut = calibration.read(run.workdir)
  assert many.map.shape == batch.shape[:3] and many["map"].shape == (*batch.shape[:3], 1)
  np.testing.assert_array_equal(one.map, many.map[1])
  assert one.score == many.score[1] and one.verdict == many.verdict[1]
  assert many.verdict == ["abnormal" if s > cut["image_threshold"] else "normal" for s in many.score]
  assert {"normal", "abnormal"} == set(many.verdict)
  above = many.map > np.float32(cut["threshold"])
  assert (many.mask <= above).all() and many.mask.any() and one.mask.shape == fake_run.SHAPE
  assert "<img" in one._repr_html_() and "4 scores" in many._repr_html_()


def test_normal_scans_of_val_give_a_p_value(run, monkeypatch):
  known = {**run.calibration, "scan_unit": "image", "scan_scores": [0.001, 0.002, 0.5], "scan_threshold": 0.4}
  monkeypatch.setattr(type(run), "calibration", known)
  found = run.score(np.full((*fake_run.SHAPE, 2), 0.3, np.float32))
  assert found.p_value == 1.0 and found.verdict == "normal"  # (1 + 3) / (3 + 1): nothing scores lower
  assert "p-value 1" in found._repr_html_()


def test_evaluation_is_the_files_of_the_mode(run):
  found = run.evaluate("test", **{"eval.bootstrap": 20})
  stored = files.read_json(run.workdir / "evaluation/test.json", "")
  assert found["pixel_ap"] == stored["pixel_ap"] == run.evaluation()["pixel_ap"]
  table = found.table()
  assert table.loc["pixel_ap", "value"] == stored["pixel_ap"]
  assert tuple(table.loc["pixel_ap", ["low", "high"]]) == tuple(stored["ci95"]["pixel_ap"])
  assert found.report.is_file() and "Pixel average precision" in str(found)
  html = found._repr_html_()
  assert "Pixel average precision" in html and "SYNTHETIC" in html and "data:image/jpeg" in html
  assert len(found.cases("images")) == 11 and "patient" in found.cases()[0]
  figure = found.plot()
  assert figure._repr_png_().startswith(b"\x89PNG")
  names = [t.get_text() for t in figure.axes[0].get_yticklabels()]
  assert names == list(table[table["kind"] == "result"]["metric"])
  assert [t.get_text() for t in figure.axes[1].get_legend().get_texts()] == ["normal (6)", "abnormal (5)"]
  with pytest.raises(FileNotFoundError, match=r"train.json does not exist: run.evaluate\(\)"):
    run.evaluation("train")


def test_a_run_shows_itself(run):
  assert re.fullmatch(r"Run\('.*', tests.unit.fake_run:Method, step 0\)", repr(run))
  assert "pixel threshold" in run._repr_html_() and "SYNTHETIC" in run._repr_html_()


def test_config_by_name_with_fields_of_their_types():
  found = mx.config("dae_brats:smoke", **{"train.steps": 7, "optim.lr": 1, "eval.splits": ["test"]})
  assert found.train.steps == 7 and found.eval.splits == ("test",) and found.is_locked
  assert mx.config("configs/dae_brats.py:smoke", {"train.steps": 3}).train.steps == 3
  for change, words in (({"train.steps": "10"}, "is of type str, not int"), ({"model.remat": 1}, "not bool"),
                        ({"train.stepz": 1}, "no 'stepz'"), ({"train.steps": True}, "not int")):
    with pytest.raises(mx.UserError, match=words):
      mx.config("dae_brats:smoke", change)
  with pytest.raises(FileNotFoundError, match="nosuch does not exist"):
    mx.config("nosuch")


def test_no_days_of_synthetic_training_by_accident(tmp_path):
  with pytest.raises(mx.UserError, match=r"full size on synthetic data .* full_size=True"):
    mx.train("dae_brats", tmp_path / "w")
  assert not (tmp_path / "w").exists()


def test_the_import_is_cheap_and_says_what_there_is():
  script = ("import sys, medae_jax as mx\nassert {'load', 'train', 'config', 'Run'} <= set(dir(mx))\n"
            "mx.config('dae_brats:smoke')\nprint([m for m in ('jax', 'tensorflow', 'pandas', 'matplotlib') "
            "if m in sys.modules])\n")
  done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "[]"
