"""Missing golden vectors: where they are skipped, where they fail the run."""

import os
import subprocess
import sys

import pytest

from tests import golden_cases
from tests.unit.house.test_structure import ROOT


@pytest.fixture
def places(monkeypatch, tmp_path):
  """No MEDAE_GOLDEN, no CI and empty folders to look in; returns (beside the tests, shared)."""
  monkeypatch.delenv("MEDAE_GOLDEN", raising=False)
  monkeypatch.delenv("CI", raising=False)
  monkeypatch.setattr(golden_cases, "_HERE", tmp_path / "tests")
  monkeypatch.setattr(golden_cases, "_SHARED", tmp_path / "shared")
  return tmp_path / "tests" / "golden", tmp_path / "shared" / "golden"


def test_places_in_their_order(places, monkeypatch, tmp_path):
  own, shared = places
  (shared / "dae").mkdir(parents=True)
  assert golden_cases.golden_dir("dae") == shared / "dae"
  (own / "dae").mkdir(parents=True)
  assert golden_cases.golden_dir("dae") == own / "dae"
  (tmp_path / "mine" / "dae").mkdir(parents=True)
  monkeypatch.setenv("MEDAE_GOLDEN", str(tmp_path / "mine"))
  assert golden_cases.golden_dir("dae") == tmp_path / "mine" / "dae"


@pytest.mark.parametrize("chosen", [False, True])
def test_a_missing_family_is_skipped_and_in_ci_an_error(places, monkeypatch, tmp_path, chosen):
  """Also where MEDAE_GOLDEN holds others: the folders of the project do not fill in for it."""
  if chosen:
    (places[0] / "piad").mkdir(parents=True)
    (tmp_path / "mine" / "dae").mkdir(parents=True)
    monkeypatch.setenv("MEDAE_GOLDEN", str(tmp_path / "mine"))
  with pytest.raises(pytest.skip.Exception, match="piad"):
    golden_cases.golden_dir("piad")
  (case,) = golden_cases.file_cases("piad", "*.npz")
  assert case.marks[0].name == "skip" and "piad" in case.marks[0].kwargs["reason"]
  monkeypatch.setenv("CI", "true")
  for find in (golden_cases.golden_dir, lambda f: golden_cases.file_cases(f, "*.npz")):
    with pytest.raises(golden_cases.MissingGolden, match="piad"):
      find("piad")


def test_a_missing_file_is_skipped_and_in_ci_an_error_among_our_own(places, monkeypatch, tmp_path):
  for folder in (places[0], tmp_path / "mine"):
    (folder / "dae").mkdir(parents=True)
  with pytest.raises(pytest.skip.Exception, match="noise"):
    golden_cases.golden_files("dae", "noise*.npz")
  monkeypatch.setenv("CI", "true")
  with pytest.raises(golden_cases.MissingGolden, match="noise"):
    golden_cases.golden_files("dae", "noise*.npz")
  monkeypatch.setenv("MEDAE_GOLDEN", str(tmp_path / "mine"))
  with pytest.raises(pytest.skip.Exception, match="noise"):
    golden_cases.golden_files("dae", "noise*.npz")


@pytest.mark.parametrize("exists", [False, True])
def test_a_wrong_folder_is_an_error_everywhere(places, monkeypatch, tmp_path, exists):
  (places[0] / "dae").mkdir(parents=True)
  folder = tmp_path / "mistyped"
  if exists:
    (folder / "golden").mkdir(parents=True)  # one level too high
  monkeypatch.setenv("MEDAE_GOLDEN", str(folder))
  for find in (golden_cases.golden_dir, lambda f: golden_cases.file_cases(f, "*.npz")):
    with pytest.raises(golden_cases.MissingGolden, match="mistyped"):
      find("dae")
  with pytest.raises(pytest.UsageError, match="mistyped"):
    golden_cases.check_environment()


def test_a_run_with_a_wrong_folder_fails(tmp_path):
  """The whole of pytest, with the exit code that a script sees."""
  run = subprocess.run([sys.executable, "-m", "pytest", "-q", "tests/parity/test_protocol.py"],
                       cwd=ROOT, capture_output=True, text=True, check=False,
                       env={**os.environ, "MEDAE_GOLDEN": str(tmp_path / "mistyped")})
  assert run.returncode == pytest.ExitCode.USAGE_ERROR, run.stdout
  assert "mistyped: no such folder" in run.stderr and "skipped" not in run.stdout
