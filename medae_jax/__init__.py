"""medae_jax: medical-imaging autoencoders, trained and applied with JAX.

`medae_jax.load(workdir)` opens a trained run (core/trained.py). `medae_jax.train`, `.evaluate` and
`.predict` read data through `data_pipelines` (TensorFlow); everything else imports and runs with JAX
alone.
"""

from medae_jax.core import places
from medae_jax.core.device import xla_flags

__version__ = "0.2.0.dev0"

places.install_aliases()
xla_flags.prefer_eigen_convolutions()


def __getattr__(name):
  if name == "load":  # looked up when asked for: `import medae_jax` stays quick
    from medae_jax.core import trained
    return trained.load
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
