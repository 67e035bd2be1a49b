"""metrics.jsonl and TensorBoard events: scalars and image panels, by the first process only."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from typing import Any

from absl import logging
import numpy as np

from medae_jax.core import files


class Writer:
  """Appends one JSON line an event, {"step": n, name: value}, and the same to TensorBoard.

  On resume, lines of steps after `first_step` (written after the checkpoint that training resumes
  from) are dropped, so that each step appears once.

  Args:
    validated: False: the checkpoint does not know the validation of `first_step` (it was saved at the
      end of a stage, the validation begins the next one): it comes again, and its line goes as well.
  """

  def __init__(self, workdir: str | os.PathLike, first_step: int = 0, active: bool = True,
               validated: bool = True):
    self._active = active
    self._events: Any = None
    if not active:
      return
    self._path = pathlib.Path(workdir) / "metrics.jsonl"
    if self._path.exists():
      _drop_after(self._path, first_step, validated)
    self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 - until `close`
    try:
      from data_pipelines.tf_stream import tf  # not from tensorflow: it keeps TensorFlow off the accelerator
      self._tf = tf
      self._events = tf.summary.create_file_writer(str(workdir), filename_suffix=f".{first_step}")
    except ImportError:
      logging.warning("TensorFlow is missing: metrics.jsonl is written, TensorBoard events are not.")

  def scalars(self, step: int, values: dict[str, Any]) -> None:
    """Writes named numbers of one step; numbers that are not finite become null."""
    if not self._active:
      return
    values = {k: float(v) for k, v in values.items()}
    line = {"step": int(step), **{k: v if np.isfinite(v) else None for k, v in values.items()}}
    try:
      self._file.write(json.dumps(line) + "\n")
      self._file.flush()
    except OSError as e:
      raise OSError(f"{self._path} could not be written ({e.strerror or e}): checkpoints are kept; free "
                    "some space and start the same command again") from e

    def write():
      for name, value in values.items():
        self._tf.summary.scalar(name, value)
    self._event(step, write)

  def _event(self, step: int, write) -> None:
    """Writes to TensorBoard; where that fails (a full disk) the run goes on without."""
    if self._events is None:
      return
    try:
      with self._events.as_default(step=int(step)):
        write()
      self._events.flush()
    except self._tf.errors.OpError as e:
      logging.warning("TensorBoard events cannot be written (%s): from here on metrics.jsonl alone is.",
                      str(e).strip().splitlines()[0][:200])
      self._give_up()

  def _give_up(self) -> None:
    events: Any = self._events
    self._events = None
    with contextlib.suppress(Exception):  # it tries to write what it could not write
      events.close()

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """Writes one picture, uint8 [H,W,3], to TensorBoard."""
    if self._active:
      self._event(step, lambda: self._tf.summary.image(name, image[None]))

  def close(self) -> None:
    """Flushes and closes the files."""
    if self._active:
      with contextlib.suppress(OSError):  # a full disk: said when the line was written
        self._file.close()
      if self._events is not None:
        self._give_up()


def _drop_after(path: pathlib.Path, step: int, validated: bool) -> None:
  kept = [event for event in files.read_events(path) if event["step"] < step or (
      event["step"] == step and (validated or not any(name.startswith("val/") for name in event)))]
  files.write_bytes(path, "".join(json.dumps(event) + "\n" for event in kept).encode())
