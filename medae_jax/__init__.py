"""medae_jax: medical-imaging autoencoders, trained and applied with JAX.

`medae_jax.train`, `.evaluate` and `.predict` read data through `data_pipelines` (TensorFlow);
everything else imports and runs with JAX alone.
"""

from medae_jax.core import aliases, xla_flags

__version__ = "0.1.0"

aliases.install()
xla_flags.prefer_eigen_convolutions()
