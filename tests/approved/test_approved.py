"""What writers write, whole, against the approved texts; programs: tests/unit/models/test_every_method.py."""

import pytest

from tests.approved import all_cases, shown, write
from tests.approved.compare import compared


@pytest.mark.parametrize("name", all_cases.WRITERS)
def test_pages_tables_and_pictures_are_the_approved_ones(name, tmp_path):
  compared(name, tmp_path)


@pytest.mark.parametrize("name", all_cases.RUNS)
def test_what_a_run_leaves_is_the_approved(name, tmp_path):
  compared(name, tmp_path)


@pytest.mark.parametrize("name", all_cases.DATA_SETS)
def test_what_a_data_set_delivers_is_the_approved(name, tmp_path):
  compared(name, tmp_path)


def test_every_text_has_its_case():
  assert {p.stem for p in write.FOLDER.glob("*.txt")} == set(all_cases.CASES)


def test_last_digits_alone_are_no_difference():
  same = shown.difference
  assert not same("a 0.33333 b", "a 0.33334 b") and not same("x 1e-05", "x 1.00005e-05")
  assert same("a 0.333 b", "a 0.334 b") and same("3 of 4", "3 of 5") and same("a 0.5 b", "b 0.5 a")
  assert same("a\nb", "b\na") and same("0.5", "0.5\n1") and same("-0.5", "0.5")
