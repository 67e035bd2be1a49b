"""MorphAEus and the chest X-ray autoencoders."""
