"""The command line in this process: what `python launch.py ARGUMENTS` prints and how it ends.

A process of its own costs seconds of imports; tests that check what is said and written use this,
and a few start the real one.
"""

import contextlib
import importlib
import io
import sys

from absl import flags

from medae_jax import cli

_GIVEN = ("config", "mode", "workdir", "input", "output", "allow_code", "host", "port", "host_names",
          "max_mb", "open_to_network", "formats", "full_size")


def call(*args) -> tuple[int, str]:
  """(exit code, stdout and stderr) of the command with these arguments."""
  for name in list(flags.FLAGS):  # a fresh command line: parsing adds a flag for each config field
    if name in _GIVEN or name.startswith("config."):
      delattr(flags.FLAGS, name)
  sys.modules.pop("config_config", None)  # else ml_collections runs a config in the module of the last one
  importlib.reload(cli)
  said, code, argv = io.StringIO(), 0, sys.argv
  sys.argv = ["launch.py", *map(str, args)]
  try:
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
      cli.main(cli.parse_flags(sys.argv))
  except SystemExit as e:
    code = e.code
  finally:
    sys.argv = argv
  return code or 0, said.getvalue()
