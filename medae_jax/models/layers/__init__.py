"""Layers that several networks share, a kind a file: convolutions, normalisations, poolings,
resampling, paddings; and the initialisers that the published codes draw from.
"""
