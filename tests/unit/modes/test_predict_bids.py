"""BIDS: scans found by entities, derivatives by the rules of the standard."""

import csv
import json

import nibabel
import numpy as np
import pytest

from data_pipelines.brains import inputs
from medae_jax import predict
from medae_jax.core import files
from medae_jax.core.errors import UserError
from tests.stored_volumes import NAMES, egg, save
from tests.unit import fake_run
from tests.unit.formats import bids_rules

BOTH = ("sub-01/ses-a/anat/sub-01_ses-a", "sub-01/ses-b/anat/sub-01_ses-b_run-1",
        "sub-01/ses-b/anat/sub-01_ses-b_run-2", "sub-02/anat/sub-02_acq-3d")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A brain model of two modalities, with thresholds."""
  workdir = fake_run.make(tmp_path_factory.mktemp("brains"))
  files.write_json(workdir / "calibration.json", {"threshold": 0.2, "map_max": 0.5, "threshold_rule": "rule"})
  return workdir


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
  """A raw data set: three sessions and subjects, other sequences, another data set's derivatives."""
  root = tmp_path_factory.mktemp("raw")
  flair, t1 = egg((18, 20, 3))
  for prefix in BOTH:
    save(root / f"{prefix}_FLAIR.nii.gz", flair)
    save(root / f"{prefix}_T1w.nii.gz", t1)
  for other in ("sub-01/ses-a/anat/sub-01_ses-a_ce-gd_T1w", "sub-01/ses-a/anat/sub-01_ses-a_T2w",
                "sub-02/func/sub-02_task-rest_bold", "derivatives/x/sub-02/anat/sub-02_desc-preproc_T1w",
                "sub-02/anat/sub-03_FLAIR"):
    save(root / f"{other}.nii.gz", t1)
  files.write_json(root / "dataset_description.json", {"Name": "raw", "BIDSVersion": "1.10.0",
                                                       "DatasetDOI": "doi:10.0/x"})
  return root


def go(run, source, out, **more):
  return predict.predict(run, {"predict.input": str(source), "predict.output": str(out),
                               "predict.layout": "bids", **more})


def test_runs_of_a_session_stay_together_across_contrast_agents(tmp_path):
  """Two runs, each without and with contrast agent: `ce` tells modalities apart, not scans."""
  for k in (1, 2):
    for name in ("", "ce-gd_"):
      save(tmp_path / f"sub-01/anat/sub-01_{name}run-{k}_T1w.nii.gz", egg((6, 6, 3))[1])
  files.write_json(tmp_path / "dataset_description.json", {"Name": "runs", "BIDSVersion": "1.10.0"})
  scans, _ = inputs.find_all(tmp_path, ("t1", "t1ce"), ("nifti",))
  assert [sorted(f.name[:-7] for f in s.files.values()) for s in scans] == [
      [f"sub-01_ce-gd_run-{k}_T1w", f"sub-01_run-{k}_T1w"] for k in (1, 2)]


def test_scans_are_found_by_entities(raw):
  scans, found = inputs.find_all(raw, NAMES, ("nifti", "image", "dicom"))
  assert [s.title for s in scans] == [p.rpartition("/")[2] for p in BOTH]
  assert scans[0].files["t1"].name == "sub-01_ses-a_T1w.nii.gz" and len(found.left_out) == 6
  reasons = {i.path.name: i.reason for i in found.left_out}
  assert reasons["sub-01_ses-a_T2w.nii.gz"] == "is none of flair, t1 by its BIDS name"
  three = inputs.find_all(raw / "sub-01/ses-a", ("t1", "t1ce", "t2"), ("nifti",))[0]
  assert {m: f.name[13:-7] for m, f in three[0].files.items()} == {
      "t1": "T1w", "t1ce": "ce-gd_T1w", "t2": "T2w"}
  one, _ = inputs.find_all(raw / "sub-01/ses-b/anat/sub-01_ses-b_run-2_T1w.nii.gz", NAMES, ("nifti",))
  assert [s.title for s in one] == ["sub-01_ses-b_run-2"]
  each = inputs.find_all(raw / "sub-02", ("image",), ("nifti",))[0]
  assert [s.title for s in each] == ["sub-02_acq-3d_FLAIR", "sub-02_acq-3d_T1w"]


def test_several_files_of_a_modality_are_named(tmp_path):
  for name in ("acq-a_FLAIR", "acq-b_FLAIR", "T1w"):
    save(tmp_path / f"sub-1/anat/sub-1_{name}.nii.gz", egg((6, 6, 2))[0])
  files.write_json(tmp_path / "dataset_description.json", {"Name": "raw"})
  scans, _ = inputs.find_all(tmp_path, NAMES, ("nifti",))
  lacking = {"sub-1": "flair", "sub-1_acq-a": "t1", "sub-1_acq-b": "t1"}
  assert {s.name for s in scans} == set(lacking)
  for scan in scans:
    with pytest.raises(UserError, match=f"scan {scan.name} has no {lacking[scan.name]} volume"):
      inputs.read_scan(scan, NAMES)


def test_derivatives_follow_the_rules(run, raw, tmp_path):
  out = tmp_path / "out"
  rows = go(run, raw, out)
  assert len(rows) == 4 and not bids_rules.broken(out)
  place = out / "sub-01/ses-b/anat/sub-01_ses-b_run-1_desc-anomaly"
  said, mask = (json.loads(open(f"{place}_{k}.json").read()) for k in ("probseg", "mask"))
  assert said["Sources"] == [f"bids:raw:{BOTH[1]}_{s}.nii.gz" for s in ("FLAIR", "T1w")]
  assert said["AnomalyScale"] >= 0.5 and said["Units"] == "arbitrary"
  assert "no probability" in said["Description"]
  assert mask["Threshold"] == 0.2 and mask["ThresholdRule"] == "rule"
  assert mask["ThresholdOfProbseg"] == pytest.approx(0.2 / said["AnomalyScale"])
  about = json.loads((out / "dataset_description.json").read_text())
  assert about["SourceDatasets"] == [{"URL": "bids:raw:", "DOI": "doi:10.0/x"}]
  assert (out / "sub-01/ses-a/anat/sub-01_ses-a_desc-anomaly_overlay.png").is_file()
  plain = tmp_path / "plain"  # the same numbers as in the other layout
  predict.predict(run, {"predict.input": str(raw / "sub-01/ses-b"), "predict.output": str(plain),
                        "predict.overlay_slices": 0})
  name = "sub-01_ses-b_run-1"
  image, scaled = nibabel.load(plain / f"{name}_anomaly.nii.gz"), nibabel.load(f"{place}_probseg.nii.gz")
  np.testing.assert_allclose(scaled.get_fdata() * said["AnomalyScale"], image.get_fdata(), atol=1e-6)
  np.testing.assert_array_equal(nibabel.load(f"{place}_mask.nii.gz").get_fdata(),
                                nibabel.load(plain / f"{name}_mask.nii.gz").get_fdata())
  np.testing.assert_allclose(scaled.affine, image.affine)


def test_a_second_run_keeps_the_lines_of_other_scans(run, raw, tmp_path):
  go(run, raw / "sub-01", tmp_path, **{"predict.overlay_slices": 0})
  again = go(run, raw / f"{BOTH[2]}_FLAIR.nii.gz", tmp_path, **{"predict.overlay_slices": 0})
  assert len(again) == 1 and not bids_rules.broken(tmp_path)
  with open(tmp_path / "sub-01/ses-b/sub-01_ses-b_scans.tsv", newline="") as file:
    table = list(csv.DictReader(file, delimiter="\t"))
  assert [r["filename"] for r in table] == [
      f"anat/sub-01_ses-b_run-{k}_desc-anomaly_probseg.nii.gz" for k in (1, 2)]
  assert float(table[1]["anomaly_score"]) == pytest.approx(again[0]["score"], rel=1e-5)
  assert table[0]["p_value"] == "n/a" and float(table[0]["threshold"]) == 0.2


def test_other_folders_get_subjects_of_their_names(run, raw, tmp_path):
  for name in ("P-1", "P.2"):
    for modality, volume in zip(NAMES, egg((18, 20, 3))):
      save(tmp_path / f"in/{name}_{modality}.nii.gz", volume)
  go(run, tmp_path / "in", tmp_path / "out", **{"predict.overlay_slices": 0})
  assert not bids_rules.broken(tmp_path / "out") and (tmp_path / "out/sub-P1/sub-P1_scans.tsv").is_file()
  for modality in NAMES:
    (tmp_path / f"in/P.2_{modality}.nii.gz").rename(tmp_path / f"in/p1_{modality}.nii.gz")
  with pytest.raises(UserError, match="P-1 and p1 would both be sub-p1"):
    go(run, tmp_path / "in", tmp_path / "two")


def test_what_bids_has_no_place_for_is_refused(run, raw, tmp_path):
  with pytest.raises(UserError, match="is a BIDS data set that medae_jax has not made"):
    go(run, raw, raw)
  with pytest.raises(UserError, match="layout=bids has no place for DICOM"):
    go(run, raw, tmp_path, **{"predict.dicom_seg": "True"})
  flat = fake_run.make(tmp_path / "flat", modalities=())
  with pytest.raises(UserError, match="layout=bids is for volumes"):
    go(flat, raw, tmp_path / "x")


def test_the_rules_find_what_is_wrong(run, raw, tmp_path):
  go(run, raw / "sub-02", tmp_path, **{"predict.overlay_slices": 0})
  place = tmp_path / "sub-02/anat/sub-02_acq-3d_desc-anomaly_mask"
  place.with_suffix(".json").unlink()
  save(place.with_name("sub-02_anomaly.nii.gz"), np.zeros((2, 2, 2)))
  (tmp_path / "scans.json").write_text("{}")
  assert len(bids_rules.broken(tmp_path)) == 2 + 7
