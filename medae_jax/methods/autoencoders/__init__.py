"""The autoencoders that the MorphAEus paper compares (docs/ae_zoo.md): ae, vae, beta_vae, aae, si_vae.

The denoising one is methods/dae.py. What they share: _base (networks, scores), _plain (one loss, one
optimiser), _passes (networks applied, their statistics kept).
"""
