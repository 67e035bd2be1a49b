"""Networks of the autoencoders that the MorphAEus paper compares, a family a file; parts: their layers.

The spatial encoder and decoder are models/conv_ae.py, the denoising U-Net models/dae_unet.py.
"""
