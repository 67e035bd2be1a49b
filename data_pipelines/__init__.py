"""Data sets and the tf.data stream; never imports jax, flax or medae_jax.

dataset.py says what a data set is, modules.py and fields.py how one is declared, stream.py makes
batches. datasets/ has what config.data.name names; each domain has a room; formats/ and ops/ serve all.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before any module here loads TensorFlow
