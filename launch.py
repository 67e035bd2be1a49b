"""Runs medae_jax from a clone: `python launch.py ...` is the command `medae-jax ...` of the wheel."""

from medae_jax import cli

if __name__ == "__main__":
  cli.console()
