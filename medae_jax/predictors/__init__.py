"""Predictors, one file a kind (`config.eval.kind`): files in -> maps, masks or images out.

`medae_jax/predict.py` restores the checkpoint and walks over the inputs; the predictor reads one
input and returns what is to be written. Everything is written on the grid, orientation, depth and
colour of the input.
"""

from __future__ import annotations

from typing import Any


class BasePredictor:
  """What `predict.py` asks of a predictor.

  Attributes:
    image_shape: (H, W, C) of a training image as the checkpoint notes it; None where it does not.
      `predict.py` sets it before anything is predicted.
  """

  image_shape: tuple[int, int, int] | None = None

  def __init__(self, config, calibration: dict[str, Any] | None, score_fn):
    """`score_fn`: numpy batch {"image": [B,H,W,C] f32} -> dict of jax arrays [B,...]."""
    self.config, self.calibration, self.score_fn = config, calibration, score_fn

  def find_inputs(self, input_path) -> list[Any]:
    """The inputs under a file or folder, in a fixed order.

    Raises:
      FileNotFoundError, ValueError: nothing there that can be read; one clear line.
    """
    raise NotImplementedError

  def name_of(self, item) -> str:
    """Short name of an input for the CSV and for error lines."""
    return str(item)

  def files_of(self, item) -> list[Any]:
    """Files that an input consists of: results never replace one of them."""
    return [item] if not isinstance(item, dict) else []

  def predict_one(self, item, out_dir) -> dict[str, Any]:
    """Reads one input, writes its files into the (temporary) folder out_dir; returns its CSV row.

    `predict.py` moves the files to their place when this returns: nothing partial is left behind.

    Raises:
      ValueError, OSError: one clear line that names the file; the other inputs go on.
    """
    raise NotImplementedError
