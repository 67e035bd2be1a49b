"""The one exception that means "what the user gave cannot be used"; needs no library."""

import errno

_ELSEWHERE = "give another --workdir or --output"
_REMEDIES = {**dict.fromkeys((errno.EACCES, errno.EPERM), f"change its permissions, or {_ELSEWHERE}"),
             **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), f"make room there, or {_ELSEWHERE}"),
             errno.EROFS: _ELSEWHERE, errno.ENAMETOOLONG: "choose a shorter name",
             errno.ENOENT: f"bring it back, or, where it was to be written, {_ELSEWHERE}"}


def line_of(error: BaseException) -> str:
  """What is printed of an error of the user's or of the system: what, where, what to do."""
  if isinstance(error, OSError) and error.errno in _REMEDIES:  # writing itself names no file
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror}; {_REMEDIES[error.errno]}"
  return " ".join(str(error).split()) or type(error).__name__


class UserError(ValueError):
  """Something the user gave is wrong, and nothing was done with it.

  The message is one line: what is wrong, where (file, row, config field), what to do. The launcher
  prints it and exits with 1. Everything else that escapes, besides OSError and a loss that is not
  finite, is a fault of this package: traceback in <workdir>/error.log, exit 70.
  """

  def _render_traceback_(self):
    """What IPython and Jupyter show: the line alone."""
    return [f"UserError: {self}"]
