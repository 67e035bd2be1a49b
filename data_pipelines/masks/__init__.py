"""Images paired with masks: finding and checking the pairs, examples of one size.

label_noise.py makes wrong masks out of right ones (polygons.py does their outlines), and
synthetic_lesions.py draws images whose masks are known.
"""
