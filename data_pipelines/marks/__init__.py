"""Annotations as they are burnt into scans: catalogue of marks, their parts, layers and letters."""
