"""Which tests are slow: measured, kept in slow.txt, marked by conftest.py.

  python -m tests.time_tests [PYTEST ARGUMENTS]            runs the tests and writes tests/slow.txt afresh
  python -m tests.time_tests --files [PYTEST ARGUMENTS]    shows where the time goes, and writes nothing:
                                                           by file, and the dearest tests and fixtures

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
DEAREST = 40
PATH = pathlib.Path(__file__).parent / "slow.txt"


def listed() -> set[str]:
  """Names of slow test functions, "tests/unit/x/test_y.py::test_z"."""
  return set(PATH.read_text(encoding="utf-8").split()) if PATH.is_file() else set()


def function_of(nodeid: str) -> str:
  """A node's id without its parameters."""
  return nodeid.partition("[")[0]


class Clock:
  """A pytest plugin: seconds of each test function, its dearest case; of files, tests and fixtures."""

  def __init__(self):
    self.seconds, self.files = collections.Counter(), collections.Counter()
    self.parts = collections.Counter()  # tests, with the set-up they asked for first, and set-ups
    self._inner = [0.0]

  @pytest.hookimpl(hookwrapper=True)
  def pytest_pycollect_makemodule(self, module_path, parent):
    yield from self._file(str(module_path.relative_to(parent.config.rootpath)))

  @pytest.hookimpl(hookwrapper=True)
  def pytest_runtest_protocol(self, item):
    begin = _used()
    yield from self._file(item.nodeid.partition("::")[0])
    self.parts[item.nodeid] = spent = _used() - begin
    name = function_of(item.nodeid)
    self.seconds[name] = max(self.seconds[name], spent)

  @pytest.hookimpl(hookwrapper=True)
  def pytest_fixture_setup(self, fixturedef):
    """Without the fixtures it asks for."""
    begin = _used()
    self._inner.append(0.0)
    yield
    whole = _used() - begin
    self.parts[f"{fixturedef.baseid}::{fixturedef.argname} (set-up)"] += whole - self._inner.pop()
    self._inner[-1] += whole

  def _file(self, name):
    begin = _used()
    yield
    self.files[name] += _used() - begin

  def table(self) -> str:
    found = [f"{sum(self.files.values()):9.1f} s in all"]
    for counted, most in ((self.files, None), (self.parts, DEAREST)):
      found += ["", *(f"{seconds:9.1f} s {name}" for name, seconds in counted.most_common(most))]
    return "\n".join(found)


def _used():
  return sum(u.ru_utime + u.ru_stime for u in map(
      resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def main(arguments):
  clock, where_only = Clock(), arguments[:1] == ["--files"]
  arguments = arguments[where_only:]
  code = pytest.main(["-q", "-p", "no:xdist", *(arguments or ["tests"])], plugins=[clock])
  if where_only:
    print(clock.table())
    return code
  slow = {name for name, seconds in clock.seconds.items() if seconds > LIMIT}
  slow |= {name for name in listed() if name not in clock.seconds and arguments}  # not run this time
  PATH.write_text("".join(f"{name}\n" for name in sorted(slow)), encoding="utf-8")
  print(f"{len(slow)} of {len(clock.seconds)} test functions take more than {LIMIT} s: {PATH}")
  return code


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
