"""Losses, one family a file: pixel, ssim, ncc (box: windows), deformation, perceptual (trunk: networks of
features), adversarial.

Pure functions of arrays; no networks, no configs.
"""
