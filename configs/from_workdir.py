"""The config of an existing run: what launch.py uses where --config is not given.

  python launch.py --mode=evaluate --workdir=runs/demo --config.eval.batch_size=8
"""

from medae_jax.core import config


def get_config(workdir):
  """The resolved config of `workdir`."""
  return config.read_config(workdir)
