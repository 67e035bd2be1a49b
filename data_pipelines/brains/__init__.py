"""Brain volumes: preparation into records, slices as examples, inputs of predict.

Used by datasets/brats.py and datasets/synthetic.py.
"""
