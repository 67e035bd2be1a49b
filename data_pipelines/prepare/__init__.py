"""Programs that write data sets to disk: python -m data_pipelines.prepare NAME.

Each is a module with `main(argv)`; the reading and the numbers lie in the rooms of the domains.
"""

from __future__ import annotations

from collections.abc import Callable
import logging
import sys

from data_pipelines import typed
from data_pipelines.errors import UserError


def program(main: Callable[[list[str]], None], argv: list[str] | None = None) -> None:
  """Runs `main`; what the user can mend becomes one line on stderr and exit 1."""
  logging.basicConfig(level=logging.INFO, format="%(message)s")
  try:
    main([*map(typed.argument, sys.argv[1:] if argv is None else argv)])
  except (UserError, OSError) as error:
    sys.exit(f"error: {error}")
