"""The one exception that means "what the user gave cannot be used"; needs no library."""


class UserError(ValueError):
  """Something the user gave is wrong, and nothing was done with it.

  The message is one line: what is wrong, where (file, row, config field), what to do. The launcher
  prints it and exits with 1. Everything else that escapes, besides OSError and a loss that is not
  finite, is a fault of this package: traceback in <workdir>/error.log, exit 70.
  """

  def _render_traceback_(self):
    """What IPython and Jupyter show: the line alone."""
    return [f"UserError: {self}"]
