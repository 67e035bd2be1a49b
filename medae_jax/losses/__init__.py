"""Losses, one family a file: pixel, ssim, perceptual, adversarial.

Pure functions of arrays; no networks, no configs.
"""
