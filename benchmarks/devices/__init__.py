"""Several devices: what they say to each other."""
