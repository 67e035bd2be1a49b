"""Losses, one family a file: pixel, ssim, perceptual (trunk: networks of features), adversarial.

Pure functions of arrays; no networks, no configs.
"""
