"""The web page and the HTTP API of --mode=serve (docs/serve.md).

It knows HTTP and nothing of models: `medae_jax/serve.py` hands it a function that scores a folder.
"""
