"""Runs medae_jax from a clone: `python launch.py ...` is the command `medae-jax ...` of the wheel."""

import sys

try:
  from medae_jax import cli
except ModuleNotFoundError as missing:  # Python is another one than that of `make`
  sys.exit(f"medae_jax: error: {sys.executable} has no {missing.name}: source .venv/bin/activate, which "
           "`make demo` makes, or pip install -r requirements.txt")

if __name__ == "__main__":
  cli.console()
