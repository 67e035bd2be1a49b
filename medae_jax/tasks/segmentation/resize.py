"""Logits at the size of the file: they are resized before they are cut or squashed."""

from __future__ import annotations

import numpy as np
from PIL import Image


def resize_logits(logits: np.ndarray, shape) -> np.ndarray:
  """float32 [H,W] -> [h,w], bilinear with half-pixel centres (area-averaging where it shrinks)."""
  image = Image.fromarray(np.ascontiguousarray(logits, np.float32))
  return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
