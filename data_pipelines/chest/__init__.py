"""Chest radiographs: drawn ones, and the lists, labels and boxes of the public data sets.

phantom.py draws synthetic radiographs with findings and masks.
"""
