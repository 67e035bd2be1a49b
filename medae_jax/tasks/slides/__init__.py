"""Predict on whole slides, for every task whose predictor scores image patches.

No task of its own (config.eval.kind): predict.py takes whole.py where --input is a slide.
"""
