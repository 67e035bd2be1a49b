"""Annotations as they are burnt into scans, drawn on clean frames with the mask of what was drawn.

catalogue.py says which marks there are, parts.py and font.py of which strokes they consist, layers.py
paints them; reference.py draws those of the original generator.
"""
