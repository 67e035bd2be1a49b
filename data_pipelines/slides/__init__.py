"""Whole slides: one reader of all formats, a writer of pyramids, tissue, and what is made of them.

Pixels come in through reader.py alone (engines.py knows the libraries), places are pixels of level 0.
"""
