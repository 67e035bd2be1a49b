"""Comparisons with PyTorch on the same machine. Never imported by the package."""
