"""Pairs of an annotated and a clean frame: what the data sets paired and annotations share.

frames.py reads files and makes whole frames or windows of them, splits.py divides frames by patient,
ops.py augments triples inside the stream, ultrasound.py makes synthetic frames.
"""
