"""Compact PyTorch training steps, written from the same specifications as the package's methods.

Each module has `build(setting, tensors, batch, device) -> step` where step() trains once and
returns the loss as a tensor, and `tensors` are initial weights under the names of the published
code. They exist to be timed; favourable choices go to PyTorch (fused SiLU, data on the device).
"""
