"""metrics.jsonl and TensorBoard events: scalars and image panels, by the first process only."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from absl import logging
import numpy as np


class Writer:
  """Appends one JSON line an event, {"step": n, name: value}, and the same to TensorBoard.

  On resume, lines of steps after `first_step` (written after the checkpoint that training resumes
  from) are dropped, so that each step appears once.
  """

  def __init__(self, workdir: str | os.PathLike, first_step: int = 0, active: bool = True):
    self._active = active
    self._events = None
    if not active:
      return
    self._path = pathlib.Path(workdir) / "metrics.jsonl"
    if self._path.exists():
      _drop_after(self._path, first_step)
    self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 - until `close`
    try:
      import tensorflow as tf
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
    self._file.write(json.dumps(line) + "\n")
    self._file.flush()
    if self._events is not None:
      with self._events.as_default(step=int(step)):
        for name, value in values.items():
          self._tf.summary.scalar(name, value)
      self._events.flush()

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """Writes one picture, uint8 [H,W,3], to TensorBoard."""
    if self._active and self._events is not None:
      with self._events.as_default(step=int(step)):
        self._tf.summary.image(name, image[None])
      self._events.flush()

  def close(self) -> None:
    """Flushes and closes the files."""
    if self._active:
      self._file.close()
      if self._events is not None:
        self._events.close()


def _drop_after(path: pathlib.Path, step: int) -> None:
  kept = []
  for line in path.read_text(encoding="utf-8").splitlines():
    try:
      if json.loads(line)["step"] <= step:
        kept.append(line)
    except (ValueError, KeyError):  # the last line of a killed run can be cut
      continue
  temporary = path.with_suffix(".tmp")
  temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
  temporary.replace(path)
