"""Data sets and the tf.data stream; never imports jax, flax or medae_jax."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before any module here loads TensorFlow
