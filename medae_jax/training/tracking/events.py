"""Where numbers and pictures go besides metrics.jsonl: TensorBoard, and what config.train.trackers names.

TensorBoard is always written, into the workdir (`tensorboard --logdir WORKDIR`). MLflow and Weights &
Biases are the user's choice: no account is needed and nothing leaves the machine unless their own
environment variables say so (docs/tracking.md). A tracker that fails is given up with a warning: it
never costs a run.
"""

from __future__ import annotations

from collections.abc import Mapping
import contextlib
import json
import math
import pathlib
from typing import Any

from absl import logging
import numpy as np

from medae_jax.core import config as config_lib
from medae_jax.training.tracking import trackers

_NAMES = {"mlflow": trackers.MLflow, "wandb": trackers.WandB}


class TensorBoard:
  """Events of one process in the workdir; TensorFlow writes them."""

  def __init__(self, workdir: pathlib.Path, suffix: str):
    from data_pipelines.tf import tf  # not from tensorflow: it keeps TensorFlow off the accelerator
    self._tf = tf
    self._events = tf.summary.create_file_writer(str(workdir), filename_suffix=f".{suffix}")

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Named numbers of one step."""
    with self._events.as_default(step=step):
      for name, value in values.items():
        self._tf.summary.scalar(name, value)
    self._events.flush()

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """One picture, uint8 [H,W,3]."""
    with self._events.as_default(step=step):
      self._tf.summary.image(name, image[None])
    self._events.flush()

  def config(self, fields: Mapping[str, Any]) -> None:
    """The config as text (tab "text") and as hyper-parameters (tab "hparams")."""
    from tensorboard.plugins.hparams import summary_v2 as hparams  # `api` imports Keras, seconds
    with self._events.as_default(step=0):
      self._tf.summary.text("config", "\n".join(f"    {k} = {v}" for k, v in fields.items()))
      hparams.hparams(dict(fields))
    self._events.flush()

  def close(self) -> None:
    """Closes the file."""
    self._events.close()


class Events:
  """All of them at once.

  Args:
    config: its train.trackers names those besides TensorBoard. suffix: of this process's event file.
  """

  def __init__(self, workdir, config, suffix: str):
    workdir = pathlib.Path(workdir)
    self._config = config
    self._to: dict[str, Any] = {}
    chosen = config.train.get("trackers", ()) if config is not None else ()
    for name in ("tensorboard", *chosen):
      try:
        self._to[name] = (TensorBoard(workdir, suffix) if name == "tensorboard" else
                          _NAMES[name](workdir, plain_fields(config)))
      except Exception as e:  # not installed, no network, no disk: whatever it raises, the run goes on
        _warn(name, e)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Named finite numbers of one step."""
    self._each(lambda to: to.scalars(int(step), values))

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """One picture, uint8 [H,W,3]."""
    self._each(lambda to: to.image(int(step), name, image))

  def config(self) -> None:
    """The config, once a run."""
    self._each(lambda to: to.config(plain_fields(self._config)))

  def _each(self, write) -> None:
    for name, to in list(self._to.items()):
      try:
        write(to)
      except Exception as e:  # a full disk, a server that is gone: metrics.jsonl has the numbers
        _warn(name, e)
        del self._to[name]
        with contextlib.suppress(Exception):
          to.close()

  def close(self) -> None:
    """Flushes and closes all."""
    for to in self._to.values():
      with contextlib.suppress(Exception):  # what it could not write was said before
        to.close()


def evaluated(workdir, config, step: int, results: Mapping[str, Mapping[str, Any]]) -> None:
  """The numbers of every split and its panel of anomaly maps: "evaluation/test/pixel_ap"."""
  from medae_jax.core import files
  events = Events(workdir, config, "evaluation")
  try:
    for split, result in results.items():
      values = {f"evaluation/{split}/{k}": float(v) for k, v in result.items()
                if isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)}
      events.scalars(step, values)
      panel = pathlib.Path(workdir) / "evaluation" / f"{split}_panel.png"
      if panel.is_file():
        events.image(step, f"evaluation/{split}/panel", files.read_png(panel))
  finally:
    events.close()


def plain_fields(config) -> dict[str, Any]:
  """{"train.steps": 10, ...}: numbers and words as they are, all else as JSON."""
  return {k: v if isinstance(v, (bool, int, float, str)) else json.dumps(v, default=str)
          for k, v in config_lib.flat(config).items()}


def _warn(name: str, error: Exception) -> None:
  what = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
  logging.warning("%s cannot be written (%s): from here on metrics.jsonl alone is, and the run goes on.",
                  {"tensorboard": "TensorBoard events"}.get(name, name), what)
