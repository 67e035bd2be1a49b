"""Chest radiographs: drawn ones, and the lists, labels and boxes of the public data sets.

phantom.py draws synthetic radiographs with findings and masks; rsna.py, padchest.py and covid_radiography.py
read the tables and folders of those data sets into listing.py's form.
"""
