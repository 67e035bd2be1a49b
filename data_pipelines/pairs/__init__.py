"""Pairs of an annotated and a clean frame: splits, windows, synthetic ultrasound."""
