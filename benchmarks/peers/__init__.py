"""Compact PyTorch training steps of the published methods, written from the same descriptions as ours.

Each module has `build(setting, tensors, batch, device) -> step` where step() trains once and
returns the loss as a tensor, and `tensors` are initial weights under the names of the published
code. They exist to be timed; favourable choices go to PyTorch (fused SiLU, data on the device).
"""
