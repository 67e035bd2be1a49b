"""Which mode needs which flag of the command line, and which modes look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from medae_jax.core.errors import UserError

_NEEDS = {"train": ("config", "workdir"), "bench": ("config",), "sweep": ("config", "workdir"),
          "convert": ("config", "workdir", "input"), "predict": ("workdir", "input"), "list": (),
          "weights": ()}
# Flags that other modes do not look at: who gives one of them means something that would not happen.
MODES = {"input": ("predict", "convert", "weights", "report"),
         "output": ("predict", "export", "report", "weights"), "formats": ("export",),
         **dict.fromkeys(("host", "port", "open_to_network", "host_names", "max_mb"), ("serve",))}


def check(mode: str, value: Callable, given: Iterable[str]) -> None:
  """Raises UserError where a flag is missing, or given to a mode that does not use it.

  Args:
    value: name of a flag -> its value. given: those of MODES on the command line.
  """
  for name in _NEEDS.get(mode, ("workdir",)):
    if not value(name):
      raise UserError(f"--mode={mode} needs --{name}")
  for name in given:
    if mode not in MODES[name]:
      raise UserError(f"--{name} is of --mode={' and '.join(MODES[name])}, not of {mode}: leave it out, "
                      "or choose that mode")
