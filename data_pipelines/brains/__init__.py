"""Brain volumes: finding the scans of a folder, preparing them into records, slices as examples.

Numbers are those of the published preparation of the DAE (normalise.py). Used by datasets/brats.py
and datasets/synthetic.py; inputs.py reads the volumes that predict is given.
"""
