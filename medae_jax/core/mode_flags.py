"""Which mode looks at which flag of the command line."""

from __future__ import annotations

from collections.abc import Iterable

from medae_jax.core.errors import UserError

# Flags that other modes do not look at: who gives one of them means something that would not happen.
MODES = {"input": ("predict", "convert", "weights", "report"),
         "output": ("predict", "export", "report", "weights"), "formats": ("export",),
         **dict.fromkeys(("host", "port", "open_to_network", "host_names", "max_mb"), ("serve",))}


def check(mode: str, given: Iterable[str]) -> None:
  """Raises UserError where a flag is given to a mode that does not use it."""
  for name in given:
    if mode not in MODES[name]:
      raise UserError(f"--{name} is of --mode={' and '.join(MODES[name])}, not of {mode}: leave it out, "
                      "or choose that mode")
