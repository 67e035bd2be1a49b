"""Tasks: what is measured and written, one folder each: anomaly, restoration, segmentation.

A method says how to train; a task (config.eval.kind) says what its outputs are good for.
"""
