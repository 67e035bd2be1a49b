"""Which tests are slow: measured, kept in slow.txt, marked by conftest.py.

  python -m tests.time_tests [PYTEST ARGUMENTS]    runs the tests and writes tests/slow.txt afresh

Counted is processor time, with that of processes a test starts, so that a busy machine changes little.
A test function is slow where one of its cases takes more than LIMIT seconds; whatever is not measured
(new, or skipped here) is taken for fast.
"""

import collections
import pathlib
import resource
import sys

import pytest

LIMIT = 1.0  # seconds: what `make test-fast` leaves out
PATH = pathlib.Path(__file__).parent / "slow.txt"


def listed() -> set[str]:
  """Names of slow test functions, "tests/unit/x/test_y.py::test_z"."""
  return set(PATH.read_text(encoding="utf-8").split()) if PATH.is_file() else set()


def function_of(nodeid: str) -> str:
  """A node's id without its parameters."""
  return nodeid.partition("[")[0]


class Clock:
  """A pytest plugin: seconds of each test function, its dearest case."""

  def __init__(self):
    self.seconds = collections.Counter()

  @pytest.hookimpl(hookwrapper=True)
  def pytest_runtest_protocol(self, item):
    begin = _used()
    yield
    name = function_of(item.nodeid)
    self.seconds[name] = max(self.seconds[name], _used() - begin)


def _used():
  return sum(u.ru_utime + u.ru_stime for u in map(
      resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def main(arguments):
  clock = Clock()
  code = pytest.main(["-q", "-p", "no:xdist", *(arguments or ["tests"])], plugins=[clock])
  slow = {name for name, seconds in clock.seconds.items() if seconds > LIMIT}
  slow |= {name for name in listed() if name not in clock.seconds and arguments}  # not run this time
  PATH.write_text("".join(f"{name}\n" for name in sorted(slow)), encoding="utf-8")
  print(f"{len(slow)} of {len(clock.seconds)} test functions take more than {LIMIT} s: {PATH}")
  return code


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
