"""Layers that several networks share: conv, norm, pool, resample, reflect_pad, swish_norm, init."""
