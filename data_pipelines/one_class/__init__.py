"""Normal images to train on, anomalies to test on: lists, folds without leaks, transformations."""
