"""MLflow and Weights & Biases, each one run a workdir, found again when the run is resumed or evaluated."""

from __future__ import annotations

from collections.abc import Mapping
import os
import pathlib
import tempfile
from typing import Any

import numpy as np

from medae_jax.core import files

_EXPERIMENT = "medae_jax"


class MLflow:
  """A run of MLflow; extra `mlflow`.

  Where MLFLOW_TRACKING_URI is not set, a folder of files, <workdir>/mlruns; MLFLOW_EXPERIMENT_NAME is
  "medae_jax" without it.
  """

  def __init__(self, workdir: pathlib.Path, fields: Mapping[str, Any]):
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
      os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
      uri = (workdir / "mlruns").absolute().as_uri()
    from mlflow.tracking import MlflowClient
    self._client = MlflowClient(uri)
    self._run, known = _kept(workdir, "mlflow", self._make(workdir))
    if known:
      self._client.update_run(self._run, status="RUNNING")

  def _make(self, workdir):
    def make():
      name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
      found = self._client.get_experiment_by_name(name)
      experiment = found.experiment_id if found else self._client.create_experiment(name)
      return self._client.create_run(experiment, run_name=workdir.name).info.run_id
    return make

  def scalars(self, step, values):
    for name, value in values.items():
      self._client.log_metric(self._run, name, value, step=step)

  def image(self, step, name, image):
    with tempfile.TemporaryDirectory() as folder:
      path = files.write_png(pathlib.Path(folder) / f"{name.rpartition('/')[2]}_{step}.png", image)
      self._client.log_artifact(self._run, str(path), name.rpartition("/")[0] or None)

  def config(self, fields):
    for name, value in fields.items():
      self._client.log_param(self._run, name, str(value)[:6000])

  def close(self):
    self._client.set_terminated(self._run)


class WandB:
  """A run of Weights & Biases; extra `wandb`.

  Offline, in <workdir>/wandb, unless WANDB_MODE says otherwise; WANDB_PROJECT is "medae_jax" without it.
  """

  def __init__(self, workdir: pathlib.Path, fields: Mapping[str, Any]):
    import wandb
    self._wandb = wandb
    name, _ = _kept(workdir, "wandb", wandb.util.generate_id)
    self._run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", _EXPERIMENT), name=workdir.name, dir=str(workdir), id=name,
        resume="allow", mode=os.environ.get("WANDB_MODE", "offline"), config=dict(fields))

  def scalars(self, step, values):
    self._run.log(dict(values), step=step)

  def image(self, step, name, image):
    self._run.log({name: self._wandb.Image(np.asarray(image))}, step=step)

  def config(self, fields):
    self._run.config.update(dict(fields), allow_val_change=True)

  def close(self):
    self._run.finish()


def _kept(workdir: pathlib.Path, tracker: str, make) -> tuple[str, bool]:
  """(id of this workdir's run, True where it was there already): <workdir>/.<tracker>_run holds it."""
  path = workdir / f".{tracker}_run"
  if path.is_file() and (name := path.read_text(encoding="utf-8").strip()):
    return name, True
  name = make()
  files.write_bytes(path, name.encode())
  return name, False
