"""Results as a BIDS data set and as DICOM objects: names, scales of empty maps, what travels; by hand."""

import csv
import json
import types

import numpy as np
import pytest

from medae_jax.core import artefact
from medae_jax.tasks.anomaly.written import bids, dicom_objects
from tests.unit.anomaly.test_written import dicom


def scan(name, folder):
  path = folder / "x.nii"
  return types.SimpleNamespace(name=name, title=name, files={"t1": path}, all_files=[path])


@pytest.fixture
def kept(monkeypatch):
  """{file: (array, where a viewer's scale ends)} of what is written."""
  found = {}
  monkeypatch.setattr(bids.nifti, "write_like", lambda path, array, like, what, shown: found.update(
      {path.name: (array, shown)}))
  return found


@pytest.mark.parametrize("values, top, shares", [
    ([0, 0], None, [0, 0]), ([-1, 2], 4.0, [0, 0.5]), ([1, 8], 4.0, [0.125, 1])])
def test_shares_of_the_scale_are_from_0_to_1_also_of_an_empty_map(tmp_path, kept, values, top, shares):
  made = bids.Derivatives({"map_max": top})
  told = {"method": "m", "run": "r", "checkpoint": "best", "trained_on": "synthetic"}
  made._about = {**told, "calibration": "rule"}
  made.map(scan("sub-1", tmp_path), tmp_path, np.float32(values), None, 1.0)
  (array, shown), = kept.values()
  np.testing.assert_allclose(array, shares)
  said = json.loads((tmp_path / "sub-1/anat/sub-1_desc-anomaly_probseg.json").read_text())
  assert shown == 1 and said["AnomalyScale"] == (max(top or 0, *values) or 1)
  assert {k: v for k, v in said["Model"].items() if k != "software"} == told


@pytest.mark.parametrize("name, apart, stem", [
    ("sub-1_ses-a", False, "sub-1_ses-a_desc-anomaly"), ("sub-1_desc-preproc", False, "sub-1_desc-anomaly"),
    ("sub-1_T1w", True, "sub-1_desc-anomalyT1w"), ("P 1", False, "sub-P1_desc-anomaly")])
def test_entities_of_the_source_stay_but_for_its_description(tmp_path, name, apart, stem):
  assert bids.Derivatives(None, apart)._stem(scan(name, tmp_path)) == stem


def test_the_table_of_a_session_is_in_order_and_its_volumes_are_in_ml(tmp_path):
  made = bids.Derivatives(None)
  made.begin(tmp_path, {"input": str(tmp_path)})
  assert "*_overlay.png" in (tmp_path / ".bidsignore").read_text().splitlines()
  for run in (2, 1):
    one = scan(f"sub-1_run-{run}", tmp_path)
    made.row(one, {"score": 0.5, "mask_ml": 1.5, "mask_voxels": 9})
    made.after(one)
  with open(tmp_path / "sub-1/sub-1_scans.tsv", newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file, delimiter="\t"))
  assert [r["filename"] for r in rows] == [f"anat/sub-1_run-{k}_desc-anomaly_probseg.nii.gz" for k in (1, 2)]
  assert {r["mask_volume"] for r in rows} == {"1.5"}


def test_names_of_bids_are_told_apart_as_they_stand(tmp_path):
  bids.Derivatives(None).check([scan(n, tmp_path) for n in ("sub-A", "sub-a")])


def test_a_report_has_what_is_known_and_an_empty_map_a_scale(tmp_path, monkeypatch):
  told, made = dicom(monkeypatch, fails=False), dicom_objects.DicomResults("auto", None)
  about = {"method": "m", "checkpoint": "c", "trained_on": "synthetic", "calibration": "rule"}
  made.begin(about)
  one = types.SimpleNamespace(name="s", title="s", files={"t1": "key"}, series={"key": ("a.dcm",)})
  assert made.write(one, "t1", tmp_path, np.zeros(1), None, {"score": 2.0}, None) == {"seg_scale": 1.0}
  values = list(vars(told[0]).values())
  assert values[:5] == [None, 2.0, None, None, None] and values[5] == about


def test_a_manifest_of_something_else_makes_no_export(tmp_path):
  for text, found in (('{"format": "medae_jax export 1"}', True), ('{"format": "web app"}', False),
                      ('{"name": "x"}', False), ("[]", False), ("{", False)):
    (tmp_path / "manifest.json").write_text(text)
    assert artefact.is_export(tmp_path) == found
