"""The autoencoders that the MorphAEus paper compares."""
