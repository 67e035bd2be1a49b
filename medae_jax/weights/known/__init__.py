"""Files of pretrained weights that are known: what they are, where they come from, how they are found.

`--mode=weights` lists, checks and converts them (command.py).
"""
