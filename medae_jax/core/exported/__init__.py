"""Formats of an export beside StableHLO: ONNX, and the preparation that goes with it."""
