"""predict refuses what the run was not trained on, says what is unusual, and marks results of a demo."""

import csv
import dataclasses
import logging
import pathlib

import ml_collections
import numpy as np
from PIL import Image
import pytest

from configs import common
from medae_jax import predict
from medae_jax.core import trained
from medae_jax.core.trained_on import record
from medae_jax.tasks import readers_said
from tests import image_files
from tests.unit import fake_run
from tests.unit.core.test_trained_on import brains, rays
from tests.unit.modes.test_predict import brain, save


def go(run, source, out, **more):
  return predict.predict(run, {"predict.input": str(source), "predict.output": str(out), **more})


def table(out):
  with open(out / "predictions.csv", encoding="utf-8") as file:
    return {row["input"]: row for row in csv.DictReader(file)}


@pytest.fixture
def run(tmp_path):
  """A brain model of two modalities with a record of its training."""
  folder = fake_run.make(tmp_path / "run")
  record.write(folder, brains(modalities=("flair", "t1"), channels=2, size=fake_run.SHAPE,
                              quantiles=brains().quantiles[:2], background=0.0, usual=0.2))
  return folder


def test_brains(run, tmp_path):
  folder, out = tmp_path / "in", tmp_path / "out"
  save(folder, brain(), name="good")
  Image.fromarray(brain()[0, :, :, 1].astype(np.uint8)).save(folder / "packed.png")
  save(tmp_path / "cut", brain(), np.diag([-1.5, -2, 3, 1]), name="good")
  with pytest.raises(ValueError, match="1 of 1 inputs failed.*grey picture.*predict.force=True insists"):
    go(run, folder / "packed.png", out)
  row = table(out)["packed"]
  assert row["error"].count("does not fit the model") == 1 and not list(out.glob("packed*"))
  assert go(run, folder, out)[0]["error"] == "" and "warning" not in table(out)["good"]
  with pytest.raises(ValueError, match="2 modalities|channel"):  # forced, the reader says what it lacks
    go(run, folder / "packed.png", out, **{"predict.force": True})
  assert "read all the same" in table(out)["packed"]["warning"]


def test_unusual_intensities_stand_in_the_table_and_the_result_is_written(run, tmp_path, caplog):
  record.write(run, dataclasses.replace(record.read(run), usual=0.01, synthetic=True, variant="demo",
                                        quantiles=((0.9,) * 10 + (0.95,) * 11,) * 2))
  save(tmp_path / "in", brain())
  with caplog.at_level("INFO"):
    row = go(run, tmp_path / "in", tmp_path / "out")[0]
  assert "far from those of the training" in row["warning"] and row["trained_on"] == "synthetic, demo"
  assert (tmp_path / "out/p1_anomaly.nii.gz").exists()
  assert table(tmp_path / "out")["p1"]["trained_on"] == "synthetic, demo"
  assert "trained on synthetic, demo data" in caplog.text and "1 done (1 with a warning" in caplog.text


def test_what_readers_say_stands_in_the_row_of_its_input(tmp_path):
  """It stood in the log alone, whose lines belong to nobody where many are predicted."""
  run = fake_run.make(tmp_path / "run")
  save(tmp_path / "in", brain(), name="p1")
  twice = brain()
  twice[1] = twice[0]
  save(tmp_path / "in", twice, name="p2")
  save(tmp_path / "in", brain(2), name="p3")
  first, second, third = go(run, tmp_path / "in", tmp_path / "out")
  said = "p2_flair.nii.gz and p2_t1.nii.gz hold the same voxels, as flair and as t1: is one a copy"
  assert second["warning"].startswith(said) and {*first, *third} & {"warning"} == set()
  assert table(tmp_path / "out")["p2"]["warning"].startswith(said)


def test_warnings_of_readers_are_collected_in_a_block_and_named_from_the_input_on(tmp_path):
  before, log = logging.getLogger().handlers[:], logging.getLogger()
  with pytest.raises(RuntimeError), readers_said.said() as lines:
    for where, level in (("data_pipelines/a.py", 30), ("tasks/admit.py", 30), ("data_pipelines/a.py", 20)):
      where = f"/x/{where}"
      log.handle(logging.LogRecord("a", level, where, 1, "%s \n twice", ("odd",), None))
    log.handle(logging.LogRecord("a", 30, "/x/data_pipelines/b.py", 1, "odd twice", (), None))
    raise RuntimeError
  assert lines == ["odd twice"] and log.handlers == before
  short = readers_said.without_place
  assert short(f"{tmp_path}/a/b.png is odd", tmp_path) == "a/b.png is odd"
  (tmp_path / "b.png").write_text("x")
  assert short(f"{tmp_path}/b.png is odd", tmp_path / "b.png") == "b.png is odd"
  assert short("/b.png is odd", pathlib.Path("/")) == "/b.png is odd"


def test_left_out_slices_stand_in_the_table(tmp_path):
  """Also of a run without a record."""
  volume = brain(slices=6)
  volume[:, :, :, 4:] = 0
  volume[:, 8:10, 8:10, 5] = 40  # a weak slice beyond a gap
  save(tmp_path / "in", volume)
  row = go(fake_run.make(tmp_path / "run"), tmp_path / "in", tmp_path / "out")[0]
  assert "slices 5 hold anatomy and are left out" in row["warning"] and "trained_on" not in row


def test_a_run_without_a_record_compares_nothing(tmp_path):
  save(tmp_path / "in", 7 * brain())
  old = go(fake_run.make(tmp_path / "run"), tmp_path / "in", tmp_path / "out")[0]
  assert set(old) & {"warning", "trained_on"} == set()


def test_a_damaged_record_is_said_before_anything_is_written(run, tmp_path):
  (run / record.FILE).write_text('{"kind": "volume"}')
  save(tmp_path / "in", brain())
  with pytest.raises(ValueError, match="trained_on.json is damaged"):
    go(run, tmp_path / "in", tmp_path / "out")
  assert not (tmp_path / "out").exists()


def _stand_in(monkeypatch, folder, kind, found, **data):
  """predict with a model of that kind that is a function."""
  c = common.base(kind)
  c.data = ml_collections.ConfigDict({"name": "none", "window": (0, 0), **data})
  c.method = ml_collections.ConfigDict({
      "name": "none", "score": {"threshold": 2.0, "dilate": 0, "fill": "network"}})

  def load(workdir, changed, **_):
    own = c.copy_and_resolve_references()
    own.update_from_flattened_dict(changed)
    run = trained.Trained(own, None, None, None, {"step": 1, "which": "last"})
    run.__dict__["score_fn"] = found
    return run
  monkeypatch.setattr(trained, "load", load)
  monkeypatch.setattr(predict.base, "check", lambda *a: None)
  monkeypatch.setattr(predict.config_lib, "read_config", lambda w: c)
  folder.mkdir()
  return folder


def _pictures(folder):
  folder.mkdir()
  grey = np.random.default_rng(0).integers(20, 230, (16, 16), np.uint8)
  Image.fromarray(grey).save(folder / "grey.png")
  image_files.dicom(folder / "ray.dcm", grey, Modality="CR", PixelSpacing=[0.2, 0.1])
  image_files.dicom(folder / "head.dcm", grey, Modality="MR")
  return folder


@pytest.mark.parametrize("kind", ["restoration", "segmentation"])
def test_images(tmp_path, monkeypatch, kind):
  score = {"restoration": lambda b: {"recon": b["image"], "map": 0 * b["image"][..., :1]},
           "segmentation": lambda b: {"logit": b["image"][..., :1]}}[kind]
  run = _stand_in(monkeypatch, tmp_path / "run", kind, score, channels=3, image_size=16)
  record.write(run, rays(channels=3, quantiles=brains().quantiles, coloured=1.0, usual=1.0))
  source = _pictures(tmp_path / "in")
  with pytest.raises(ValueError, match="1 of 3 inputs failed, the first: head.dcm.*header says MR"):
    go(run, source, tmp_path / "out")
  rows = table(tmp_path / "out")
  assert "it is grey, and every picture" in rows["grey.png"]["warning"] and not rows["ray.dcm"]["error"]
  assert "pixels are not square (0.2 x 0.1 mm" in rows["ray.dcm"]["warning"]
  assert "not square" not in rows["grey.png"]["warning"]
  go(run, source, tmp_path / "out", **{"predict.force": True})
  assert "header says MR" in table(tmp_path / "out")["head.dcm"]["warning"]


def test_images_of_anomaly_methods(tmp_path):
  run = fake_run.write(tmp_path / "run", fake_run.config(
      splits=("test",), modalities=(), image_size=(16, 16), channels=1))
  record.write(run, rays(usual=1.0, size=(16, 16)))
  source = _pictures(tmp_path / "in")
  with pytest.raises(ValueError, match="1 of 3 inputs failed, the first: head.*header says MR"):
    go(run, source, tmp_path / "out")
  assert "not square" in table(tmp_path / "out")["ray"]["warning"]


def test_what_no_input_can_change_is_said_once_before_anything_is_written(tmp_path):
  """An option of the score that does not fit stood in the row of each input."""
  noted = {"image": [[4, *fake_run.SHAPE, 2], "float32"]}
  run = fake_run.write(tmp_path / "run", fake_run.config(), noted=noted)
  save(tmp_path / "in", brain())
  with pytest.raises(ValueError, match="^a 99x99 median needs images larger than 49 px"):
    go(run, tmp_path / "in", tmp_path / "out", **{"method.score.median": 99})
  assert not (tmp_path / "out").exists()
  (tmp_path / "file").write_text("mine")
  with pytest.raises(ValueError, match="--output=.*file is no folder but a file"):
    go(run, tmp_path / "in", tmp_path / "file")
  (tmp_path / "in/p1_t1.nii.gz").unlink()
  Image.fromarray(brain()[0, :, :, 1].astype(np.uint8)).save(tmp_path / "in/p1_t1.png")
  with pytest.raises(ValueError, match="p1 has pictures and volumes .*give all modalities in one form"):
    (tmp_path / "manifest.csv").write_text("patient,flair,t1\np1,in/p1_flair.nii.gz,in/p1_t1.png\n")
    go(run, tmp_path / "manifest.csv", tmp_path / "out")
