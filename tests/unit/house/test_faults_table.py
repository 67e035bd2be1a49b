"""Whoever changes a line that the table of planted faults names hears of it from the quick tests."""

from benchmarks.faults import table


def test_every_planted_fault_fits_the_code():
  assert table.problems(table.read()) == []
