"""Evaluators, one file a kind: `config.eval.kind` names the file, `Evaluator` is the class in it.

`medae_jax/evaluate.py` restores the checkpoint, streams a split through `method.score`, hands the
batches to the evaluator and writes what it returns. An evaluator never reads files.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class BaseEvaluator:
  """What `evaluate.py` asks of an evaluator, with defaults for the optional parts.

  Attributes:
    on_device: True = `update` gets the outputs of `method.score` as jax arrays (nothing is copied
      to the host unless the evaluator does it); False = numpy arrays.
  """

  on_device = False

  def __init__(self, config, dataset, split: str, calibration: dict[str, Any] | None):
    """`dataset`: data_pipelines DataSet; `calibration`: what val gave, None where there is none."""
    self.config, self.dataset, self.split = config, dataset, split
    self.calibration = calibration
    self.source = dataset.split(split)

  def update(self, batch: dict[str, np.ndarray], outputs: dict[str, Any]) -> None:
    """One batch, in the order of the split; rows with batch["valid"] False are padding.

    `batch["position"]` int64 [B] indexes the source (`self.source.meta(position)`).
    """
    raise NotImplementedError

  def result(self) -> dict[str, Any]:
    """The numbers for evaluation/<split>.json; NaN is written as null."""
    raise NotImplementedError

  def rows(self) -> list[dict[str, Any]]:
    """One dict a line of evaluation/<split>.csv (per patient or per image)."""
    return []

  def tables(self) -> dict[str, list[dict[str, Any]]]:
    """More tables: {name: rows} becomes evaluation/<split>_<name>.csv."""
    return {}

  def calibrate(self) -> dict[str, Any]:
    """For split "val" only: thresholds and scales, written to <workdir>/calibration.json.

    An entry "score" is merged into config.method.score by everything that scores afterwards.
    """
    return {}

  def choose(self) -> np.ndarray:
    """Positions of the examples to show; they are scored once more and given to `show`."""
    return np.zeros(0, np.int64)

  def show(self, batch: dict[str, np.ndarray], outputs: dict[str, Any]) -> None:
    """A batch of the chosen examples as numpy arrays, before `panels` is called.

    batch["position"] is the place in what `choose` returned. Where the method has a `preview`, its
    pictures of the training task are among the outputs ("noised", "denoised").
    """

  def panels(self) -> dict[str, np.ndarray]:
    """{name: uint8 [H,W,3]}; "panel" becomes evaluation/<split>_panel.png."""
    return {}

  def close(self) -> None:
    """Frees scratch files; called whether or not the evaluation succeeded."""
