"""What --mode=export made is predicted with, served and opened in Python, without the run."""

import csv
import hashlib
import json
import shutil

import nibabel
import numpy as np
import pytest

from medae_jax import api, evaluate, export, predict, serve
from medae_jax.core import artefact, trained
from medae_jax.core.errors import UserError
from medae_jax.core.exported import opened
from tests.unit import fake_run
from tests.unit.modes.test_predict import brain, rotated, save
from tests.unit.serving import asking


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """(workdir, export of it, folder of a scan)."""
  place = tmp_path_factory.mktemp("exported")
  noted = {"image": [[4, *fake_run.SHAPE, 2], "float32"]}
  run = fake_run.write(place / "run", fake_run.config(), noted=noted)
  evaluate.evaluate(run)
  save(place / "in", brain(), rotated())
  return run, export.export(run, place / "out"), place / "in"


def rows(folder):
  with open(folder / "predictions.csv", newline="", encoding="utf-8") as file:
    return list(csv.DictReader(file))


@pytest.mark.parametrize("which", [0, 1])
def test_the_score_is_made_once_for_all_arrays(folders, monkeypatch, which):
  """Of a run and of its export, with fields of predict changed first or later."""
  made, of_run, of_export = [], trained.scoring.score_fn, opened.artefact.load
  monkeypatch.setattr(trained.scoring, "score_fn", lambda *args: made.append(1) or of_run(*args))
  monkeypatch.setattr(opened.artefact, "load", lambda *args: made.append(1) or of_export(*args))
  run = api.load(folders[which])
  image = np.random.default_rng(0).uniform(0, 0.5, (*fake_run.SHAPE, 2)).astype(np.float32)
  scores = [run.score(image, **changed).score
            for changed in ({"predict.threshold": 0.3}, {}, {"predict.threshold": 0.2}, {})]
  assert made == [1] and len(set(scores)) == 1


def test_predict_writes_the_same_files_from_either(folders, tmp_path):
  for k, folder in enumerate(folders[:2]):
    predict.predict(folder, {"predict.input": str(folders[2]), "predict.output": str(tmp_path / str(k))})
  assert rows(tmp_path / "0") == rows(tmp_path / "1")
  for kind in ("anomaly", "mask"):
    one, other = (nibabel.load(tmp_path / k / f"p1_{kind}.nii.gz").get_fdata() for k in "01")
    np.testing.assert_allclose(one, other, atol=1e-6)
  assert one.any()


def test_it_is_served_and_opened_with_the_same_verdict(folders, tmp_path):
  run, out, scan = folders
  want, got = (api.load(f).score(scan) for f in (run, out))
  assert got.score == pytest.approx(want.score) and got.verdict == want.verdict
  application = serve.make_app(out, parent=tmp_path)
  files = [(p.name, p.read_bytes()) for p in sorted(scan.iterdir())]
  status, found = asking.post(application, files)
  assert status == 200 and found["score"] == pytest.approx(want.score) and found["verdict"] == want.verdict
  _, found = asking.post(application, files, "?threshold=9")
  assert found["row"]["mask_voxels"] == 0


def test_what_an_export_cannot_do_is_one_line(folders, tmp_path):
  _, out, _ = folders
  with pytest.raises(UserError, match="scores as it was exported: config.method.score.median"):
    opened.load(out, {"method.score.median": 1})
  with pytest.raises(UserError, match="is an export: predict and serve take it"):
    trained.load(out)
  copy = shutil.copytree(out, tmp_path / "copy")
  (copy / "weights.npz").write_bytes((copy / "weights.npz").read_bytes()[:-1])
  with pytest.raises(UserError, match="weights.npz is missing, or not the file that was exported"):
    opened.load(copy)
  manifest = json.loads((copy / "manifest.json").read_text())
  del manifest["files"]["score.stablehlo"]
  (copy / "manifest.json").write_text(json.dumps(manifest))
  with pytest.raises(UserError, match="holds no score.stablehlo: export with the format stablehlo"):
    opened.load(copy)


def test_an_export_of_another_version_is_not_guessed_at(folders, tmp_path):
  """It was read as if it were of this one."""
  out = shutil.copytree(folders[1], tmp_path / "out")
  manifest = json.loads((out / "manifest.json").read_text())
  (out / "manifest.json").write_text(json.dumps({**manifest, "format": "medae_jax export 2"}))
  with pytest.raises(UserError, match="is a 'medae_jax export 2', and this version reads 'medae_jax e"):
    opened.load(out)


@pytest.mark.parametrize("name", ["calibration.json", "trained_on.json"])
def test_thresholds_and_notes_of_the_training_are_those_exported(folders, tmp_path, name):
  """Without the notes SYNTHETIC results would not say so."""
  out = shutil.copytree(folders[1], tmp_path / "out")
  manifest = json.loads((out / "manifest.json").read_text())
  if name == "trained_on.json":  # this run was written by hand, without one
    (out / name).write_text('{"synthetic": true}')
    manifest["files"][name] = hashlib.sha256((out / name).read_bytes()).hexdigest()
    (out / "manifest.json").write_text(json.dumps(manifest))
  opened.load(out)
  for change in ((out / name).unlink, lambda: (out / name).write_text("{}")):
    change()
    with pytest.raises(UserError, match=f"{name} is missing, or not the file that was exported"):
      opened.load(out)


@pytest.mark.parametrize("change", [
    {"inputs": {}}, {"inputs": {"image": 5}},
    {"inputs": {"image": {"shape": ["b", "x", 3, 4], "dtype": "float32"}}}, {"checkpoint": 5},
    {"checkpoint": {"which": "best"}}])
def test_a_damaged_manifest_is_named(folders, tmp_path, change):
  out = shutil.copytree(folders[1], tmp_path / "out")
  manifest = json.loads((out / "manifest.json").read_text())
  (out / "manifest.json").write_text(json.dumps({**manifest, **change}))
  with pytest.raises(UserError, match="manifest.json is damaged .*: export again"):
    opened.load(out)


def test_of_the_config_predict_alone_may_be_edited(folders, tmp_path):
  """An orientation that training did not have prepares scans otherwise, and nobody would see it."""
  out = shutil.copytree(folders[1], tmp_path / "out")
  written = json.loads((out / "config.json").read_text())
  written["predict"]["threshold"] = 9.0
  (out / "config.json").write_text(json.dumps(written))
  assert opened.load(out).config.predict.threshold == 9
  written["data"]["orientation"] = "RAS"
  (out / "config.json").write_text(json.dumps(written))
  with pytest.raises(UserError, match="config.json is not the one that was exported: .* predict may"):
    opened.load(out)
  manifest = json.loads((out / "manifest.json").read_text())
  del manifest["config"]  # of an older version
  (out / "manifest.json").write_text(json.dumps(manifest))
  opened.load(out)


def test_an_export_takes_nothing_of_others_away(folders, tmp_path):
  """predict without --output writes into the export: the next export into that folder deleted the results."""
  out = shutil.copytree(folders[1], tmp_path / "out")
  (out / "preparation/__pycache__").mkdir(parents=True)
  for name in ("preparation/__pycache__/find.pyc", ".DS_Store", "error.log"):
    (out / name).write_text("made by running it")
  artefact.check_target(out)
  api.load(out).predict(folders[2])
  with pytest.raises(UserError, match=r"holds what no export has written \(files: \d, the first pred"):
    export.export(folders[0], out)
  assert rows(out / "predictions")
