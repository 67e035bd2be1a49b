"""Whether a data set is opened to be scored alone, as another hospital's, and needs nothing to train on."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import contextvars

_ALONE = contextvars.ContextVar("scored_alone", default=False)


@contextlib.contextmanager
def opened() -> Iterator[None]:
  """Data sets opened in this block are only scored: their splits are asked for, `train` is not."""
  token = _ALONE.set(True)
  try:
    yield
  finally:
    _ALONE.reset(token)


def now() -> bool:
  """Whether images to train on may be missing."""
  return _ALONE.get()
