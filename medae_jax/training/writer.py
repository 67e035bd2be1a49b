"""metrics.jsonl and events (TensorBoard, trackers): scalars and image panels, by the first process only."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from typing import Any

import numpy as np

from medae_jax.core import files
from medae_jax.training.tracking.events import Events


class Writer:
  """Appends one JSON line an event, {"step": n, name: value}, and the same to `Events`.

  On resume, lines of steps after `first_step` (written after the checkpoint that training resumes
  from) are dropped, so that each step appears once.

  Args:
    validated: False: the checkpoint does not know the validation of `first_step` (it was saved at the
      end of a stage, the validation begins the next one): it comes again, and its line goes as well.
    config: of the run, for TensorBoard and the trackers that it names; None = its numbers alone.
  """

  def __init__(self, workdir: str | os.PathLike, first_step: int = 0, active: bool = True,
               validated: bool = True, config: Any = None):
    self._active = active
    if not active:
      return
    self._path = pathlib.Path(workdir) / "metrics.jsonl"
    if self._path.exists():
      _drop_after(self._path, first_step, validated)
    self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 - until `close`
    self._events = Events(workdir, config, str(first_step))
    if config is not None and not first_step:
      self._events.config()

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

    self._events.scalars(step, values)

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """Writes one picture, uint8 [H,W,3], to the events."""
    if self._active:
      self._events.image(step, name, image)

  def close(self) -> None:
    """Flushes and closes the files."""
    if self._active:
      with contextlib.suppress(OSError):  # a full disk: said when the line was written
        self._file.close()
      self._events.close()


def _drop_after(path: pathlib.Path, step: int, validated: bool) -> None:
  kept = [event for event in files.read_events(path) if event["step"] < step or (
      event["step"] == step and (validated or not any(name.startswith("val/") for name in event)))]
  files.write_bytes(path, "".join(json.dumps(event) + "\n" for event in kept).encode())
