"""Code outside the package runs only where the user says so: --allow_code, or this module's `allow`.

config.json names its method and its data set. A workdir from elsewhere could name any module of
this machine, and reading it would import that.
"""

from __future__ import annotations

import os

from data_pipelines.errors import UserError

VARIABLE = "MEDAE_JAX_ALLOW_CODE"  # an environment variable: processes started from here have it too


def allow() -> None:
  """From here on, config.method.name and config.data.name may import modules outside the package."""
  os.environ[VARIABLE] = "1"


def check(field: str, name: str) -> None:
  """Refuses code outside the package where nobody allowed it.

  Args:
    field: whose value `name` is, "config.method.name" say.

  Raises:
    UserError: it is not allowed; with the flag that allows it.
  """
  if os.environ.get(VARIABLE) != "1":
    raise UserError(f"{field}={name!r} imports code outside this package; if you trust it, add "
                    "--allow_code (in Python: medae_jax.load(..., allow_code=True), or the "
                    f"environment variable {VARIABLE}=1)")
