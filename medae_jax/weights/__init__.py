"""Weights from other libraries, read without unpickling, and the map of names of each network."""
