"""TensorBoard, MLflow and W&B: what they get is what metrics.jsonl and evaluation/<split>.json hold."""

import json
import sys
import types

import numpy as np
import pytest

from medae_jax.core import config as config_lib, files
from medae_jax.training import writer
from medae_jax.training.tracking import events, trackers
from tests.unit import tiny_dae


@pytest.fixture
def config():
  return config_lib.override(tiny_dae.config(), {"train.steps": 7})


def written(workdir):
  """{(tag, step): value} of all event files; of a picture [width, height, bytes]."""
  from tensorboard.backend.event_processing import event_file_loader
  from tensorboard.util import tensor_util
  found = {}
  for path in sorted(workdir.glob("events*")):
    for event in event_file_loader.EventFileLoader(str(path)).Load():
      for value in event.summary.value:
        array = tensor_util.make_ndarray(value.tensor) if value.HasField("tensor") else None
        found[value.tag, event.step] = None if array is None else array.tolist()
  return found


def test_tensorboard_has_numbers_pictures_config_and_hyper_parameters(tmp_path, config):
  out = writer.Writer(tmp_path, 0, config=config)
  out.scalars(3, {"train/loss": 0.5, "val/loss": float("nan")})
  out.close()
  (tmp_path / "evaluation").mkdir()
  files.write_png(tmp_path / "evaluation/test_panel.png", np.zeros((5, 6, 3), np.uint8))
  result = {"pixel_ap": 0.25, "n_images": 8, "image_auroc": float("nan"), "synthetic": True, "dataset": "x"}
  events.evaluated(tmp_path, config, 7, {"test": result})
  found = written(tmp_path)
  assert found["train/loss", 3] == 0.5 and np.isnan(found["val/loss", 3])
  assert found["evaluation/test/pixel_ap", 7] == 0.25 and found["evaluation/test/n_images", 7] == 8
  assert not [k for k, _ in found if "auroc" in k or "synthetic" in k]
  assert found["evaluation/test/panel", 7] [:2] == [b"6", b"5"]  # width, height
  text = str(found["config", 0])
  assert "train.steps = 7" in text and "model.depth = 2" in text
  assert ("_hparams_/session_start_info", 0) in found
  assert [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
      {"step": 3, "train/loss": 0.5, "val/loss": None}]


def test_mlflow_keeps_one_run_a_workdir_in_a_store_of_files(tmp_path, config, monkeypatch):
  pytest.importorskip("mlflow")
  monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
  monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
  config = config_lib.override(config, {"train.trackers": ("mlflow",)})
  for first, value in ((0, 0.5), (4, 0.25)):  # begun, and resumed
    out = writer.Writer(tmp_path, first, config=config)
    out.scalars(first + 1, {"train/loss": value})
    out.close()
  (tmp_path / "evaluation").mkdir()
  files.write_png(tmp_path / "evaluation/test_panel.png", np.zeros((5, 6, 3), np.uint8))
  events.evaluated(tmp_path, config, 7, {"test": {"pixel_ap": 0.75}})
  from mlflow.tracking import MlflowClient
  client = MlflowClient((tmp_path / "mlruns").as_uri())
  experiment = client.get_experiment_by_name("medae_jax")
  (run,) = client.search_runs([experiment.experiment_id])
  assert run.info.run_id == (tmp_path / ".mlflow_run").read_text() and run.info.status == "FINISHED"
  assert run.data.params["train.steps"] == "7"
  history = client.get_metric_history(run.info.run_id, "train/loss")
  assert [(m.step, m.value) for m in history] == [(1, 0.5), (5, 0.25)]
  assert run.data.metrics["evaluation/test/pixel_ap"] == 0.75
  assert [a.path for a in client.list_artifacts(run.info.run_id, "evaluation/test")] == [
      "evaluation/test/panel_7.png"]


def test_wandb_is_offline_and_gets_the_same(tmp_path, config, monkeypatch):
  """Against a stand-in of the package: what is called, with what."""
  said = []
  run = types.SimpleNamespace(log=lambda values, step: said.append((step, values)),
                              config=types.SimpleNamespace(update=lambda *_, **__: None),
                              finish=lambda: said.append("finished"))
  stand_in = types.SimpleNamespace(
      init=lambda **given: said.append(given) or run, Image=lambda array: array.shape,
      util=types.SimpleNamespace(generate_id=lambda: "abc"))
  monkeypatch.setitem(sys.modules, "wandb", stand_in)
  monkeypatch.delenv("WANDB_MODE", raising=False)
  config = config_lib.override(config, {"train.trackers": ("wandb",)})
  out = writer.Writer(tmp_path, 0, config=config)
  out.scalars(3, {"train/loss": 0.5})
  out.image(3, "val/panel", np.zeros((5, 6, 3), np.uint8))
  out.close()
  begun, loss, picture, end = said
  assert begun["mode"] == "offline" and begun["id"] == "abc" and begun["config"]["train.steps"] == 7
  assert (loss, picture, end) == ((3, {"train/loss": 0.5}), (3, {"val/panel": (5, 6, 3)}), "finished")


def test_what_fails_is_given_up_and_the_numbers_are_kept(tmp_path, config, monkeypatch, caplog):
  def broken(self, step, values):
    raise OSError("no space")
  monkeypatch.setattr(events.TensorBoard, "scalars", broken)
  monkeypatch.setitem(sys.modules, "wandb", None)  # not installed
  out = writer.Writer(tmp_path, 0, config=config_lib.override(config, {"train.trackers": ("wandb",)}))
  for step in (1, 2):
    out.scalars(step, {"train/loss": 0.5})
  out.close()
  assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
  warned = [r.getMessage() for r in caplog.records if "cannot be written" in r.getMessage()]
  assert len(warned) == 2 and warned[0].startswith("wandb") and "no space" in warned[1]


def test_a_full_disk_is_said_with_the_file_and_what_to_do(tmp_path, monkeypatch):
  made = writer.Writer(tmp_path)

  def full(text):
    raise OSError(28, "No space left on device")
  monkeypatch.setattr(made, "_file", types.SimpleNamespace(write=full, flush=lambda: None))
  with pytest.raises(OSError, match=r"metrics.jsonl could not be written \(No space .*: checkpoints are"):
    made.scalars(1, {"loss": 1.0})


def test_a_resumed_run_of_mlflow_is_running_again(tmp_path, monkeypatch):
  """Against a stand-in of its client: a new run is running by itself."""
  said = []
  client = types.SimpleNamespace(
      get_experiment_by_name=lambda name: types.SimpleNamespace(experiment_id="1"),
      create_run=lambda experiment, run_name: types.SimpleNamespace(info=types.SimpleNamespace(run_id="r")),
      update_run=lambda run, status: said.append((run, status)))
  for name in ("mlflow", "mlflow.tracking"):
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(MlflowClient=lambda uri: client))
  trackers.MLflow(tmp_path, {})
  assert not said
  trackers.MLflow(tmp_path, {})
  assert said == [("r", "RUNNING")]
