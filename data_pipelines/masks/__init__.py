"""Images paired with masks: reading, noisy variants of masks, polygons, synthetic lesions."""
