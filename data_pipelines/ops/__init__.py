"""Operations on arrays and batches that several domains share.

resize.py is numpy and Pillow; augment.py and coarse_noise.py are batch ops of the stream and load
TensorFlow, so that data sets import them only when they are opened.
"""
