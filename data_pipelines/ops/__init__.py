"""Operations on examples and batches in tf.data that several domains share."""
