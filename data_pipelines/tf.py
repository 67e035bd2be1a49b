"""TensorFlow without Keras and off the accelerator: `from data_pipelines.tf import tf`.

TensorFlow imports Keras, and with it much else, while it is imported itself: a third of the time that this
takes, and nothing here uses it. A program that asks for `tensorflow.keras` later finds it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import sys


def _without_keras():
  """The module `tensorflow`, with Keras where that has been imported before, or Keras 2 is asked for."""
  if {"tensorflow", "keras"} & sys.modules.keys() or os.environ.get("TF_USE_LEGACY_KERAS"):
    import tensorflow
    return tensorflow
  keras = importlib.util.find_spec("keras")
  sys.modules["keras"] = None  # an import of it fails, which TensorFlow is ready for
  try:
    import tensorflow
  finally:
    del sys.modules["keras"]
  if keras and keras.origin:
    tensorflow.__path__.insert(0, str(pathlib.Path(keras.origin).parent / "_tf_keras"))
  return tensorflow


tf = _without_keras()

# Before the first use of TensorFlow, or it takes the accelerator's memory. RuntimeError: TensorFlow
# already runs, whoever started it has chosen.
with contextlib.suppress(RuntimeError):
  tf.config.set_visible_devices([], "GPU")
