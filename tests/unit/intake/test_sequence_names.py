"""Which sequence of a brain the name of a file tells, and what is no input for a model of others."""

import nibabel
import numpy as np
import pytest

from data_pipelines.brains import inputs, scan_folders, sequences

THREE = ("flair", "t1", "t1ce")


def folder_of(root, *names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.ones((3, 3, 2), np.int16), np.eye(4)), root / f"{name}.nii.gz")
  return root


def found(root, modalities):
  """({scan: {modality: name of the file}}, {name: reason})."""
  scans, every = inputs.find_all(root, modalities, ("nifti",))
  shown = lambda p: p.name.removesuffix(".nii.gz")
  return ({s.name: {m: shown(p) for m, p in s.files.items()} for s in scans},
          {shown(item.path): item.reason for item in every.left_out})


@pytest.mark.parametrize("files", [
    ("p1_FLAIR", "p1_T1w", "p1_ce-gd_T1w"), ("p1_flair", "p1_t1_pre", "p1_t1_post"),
    ("p1.flair", "p1.t1", "p1.t1gd"),
    ("p1-t2f", "p1-t1n", "p1-t1c"),
    ("p1/T2_FLAIR", "p1/T1", "p1/T1_CE"), ("p1/p1_T2_flair", "p1/p1_t1", "p1/p1_gd_t1"),
    ("p1_dark-fluid", "p1_T1", "p1_t1km")])
def test_the_three_of_a_scan_are_found_by_their_usual_names(tmp_path, files):
  scans, left_out = found(folder_of(tmp_path, *files), THREE)
  assert scans == {"p1": {m: f.rsplit("/", 1)[-1] for m, f in zip(THREE, files)}} and not left_out


@pytest.mark.parametrize("name", [
    "p1_T1w", "p1_t1gd", "p1_dwi", "p1_ADC", "p1_T2star", "p1_t1_brain", "t1_p1", "p1_pet", "T1", "p1_gd_t1",
    "p1_T1map"])
@pytest.mark.parametrize("alone", [True, False])
def test_another_sequence_is_never_read_as_flair(tmp_path, name, alone):
  """A model of one sequence took any file that it did not know for its own."""
  root = folder_of(tmp_path, name)
  scans, left_out = found(root / f"{name}.nii.gz" if alone else root, ("flair",))
  assert not scans and left_out == {name: sequences.UNUSED}


def test_contrast_is_told_apart_where_the_model_has_none(tmp_path):
  scans, left_out = found(
      folder_of(tmp_path, "a_T1w", "a_ce-gd_T1w", "b_t1_gd", "c_t1", "d_post_t1"), ("t1",))
  assert scans == {"a": {"t1": "a_T1w"}, "c": {"t1": "c_t1"}, "d_post": {"t1": "d_post_t1"}}
  assert set(left_out) == {"a_ce-gd_T1w", "b_t1_gd"}


def test_a_name_of_two_sequences_is_named(tmp_path):
  scans, left_out = found(folder_of(tmp_path, "a_t1_to_flair", "b_flair_t1", "c_T1_flair"), ("flair",))
  assert scans == {"c_T1": {"flair": "c_T1_flair"}}  # of the first visit
  assert all("names several sequences (flair, t1): rename" in why for why in left_out.values())
  assert set(left_out) == {"a_t1_to_flair", "b_flair_t1"}


def test_words_of_other_models_and_own_names_mean_nothing_here(tmp_path):
  root = folder_of(tmp_path, "a_pet", "b_T1w", "map_01")
  assert found(root, ("pet",))[0] == {"a": {"pet": "a_pet"}, "b_T1w": {"": "b_T1w"}, "map_01": {"": "map_01"}}
  scans, left_out = found(root, ("flair", "t1w"))
  assert scans == {"b": {"t1w": "b_T1w"}, "map_01": {"": "map_01"}} and set(left_out) == {"a_pet"}


@pytest.mark.parametrize("names", [
    ("FLAIR", "T1", "T1CE", "mask"), ("P1_T2_flair", "P1_T1w", "p1_ce-gd_T1w", "P1_label"),
    ("P1_flair", "p1-t1n", "P1_t1gd", "seg")])
def test_training_takes_the_same_names(tmp_path, names):
  folder_of(tmp_path, *(f"P1/{n}" for n in names), "P1/P1_t2", "P1/P1_brain_mask")
  (scan,) = scan_folders.look(tmp_path, THREE, {"pattern": "", "grouping": "patient"}).complete
  assert [p.rsplit("/", 1)[-1] for p in (*scan.volumes, scan.seg)] == [f"{n}.nii.gz" for n in names]


@pytest.mark.parametrize("session", ["", "ses-1/"])
def test_a_part_of_a_bids_data_set_needs_no_description(tmp_path, session):
  prefix = f"sub-01/{session}anat/sub-01_{session.replace('/', '_')}"
  folder_of(tmp_path, *(f"{prefix}{n}" for n in ("FLAIR", "T1w", "ce-gd_T1w", "T2w")))
  for root in (tmp_path, tmp_path / "sub-01"):
    scans, left_out = found(root, THREE)
    assert [sorted(s) for s in scans.values()] == [sorted(THREE)]
    assert list(left_out) == [prefix.rsplit("/", 1)[-1] + "T2w"]


def test_a_phase_image_is_no_scan(tmp_path):
  folder_of(tmp_path, *(f"sub-01/anat/sub-01_{part}T1w" for part in ("", "part-phase_")),
            "sub-02/anat/sub-02_part-mag_T1w")
  scans, left_out = found(tmp_path, ("t1",))
  assert scans == {"sub-01": {"t1": "sub-01_T1w"}, "sub-02_part-mag": {"t1": "sub-02_part-mag_T1w"}}
  assert list(left_out) == ["sub-01_part-phase_T1w"]
