"""Normal images to train on, anomalies to test on: what natural, nih and camelyon share.

folds.py has the published rules of the folds and those without leaks, lists.py the data set of five
lists, transforms.py the transforms of the benchmark exact to the grey level, fields.py the fields.
"""
