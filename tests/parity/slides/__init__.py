"""Preparation of slides and radiographs against the vectors of golden/stain_normalization."""
