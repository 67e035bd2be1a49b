"""Every field of a family of experiments with its published default.

The config files fill in the rest: data, sizes, seeds.
"""
